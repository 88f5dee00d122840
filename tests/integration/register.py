"""Trains and registers a model at an MLflow server, with MLflow's own client, as a team would."""

from __future__ import annotations

import json
import sys

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

MODEL = "credit"
COMMIT = "8d5ac0d24c0f1d3a6d2f0f9a3f3d0c0e5f7a9b1c"
SHA = f"sha256:{'a' * 64}"


def main(tracking_uri: str, folder: str) -> None:
    """Register version 1 of `credit`, aliased `champion`; what MLflow made of it goes to a file."""
    mlflow.set_tracking_uri(tracking_uri)
    rows = pd.DataFrame({"income": [1.0, 2.0, 3.0], "age": [30.0, 40.0, 50.0]})
    data = mlflow.data.from_pandas(rows, name="loans", source=f"{folder}/loans.csv")
    holdout = mlflow.data.from_pandas(rows, name="holdout", source=f"{folder}/holdout.csv")
    with mlflow.start_run() as run:
        mlflow.log_params({"solver": "lbfgs", "C": 1.0})
        mlflow.set_tag("mlflow.source.git.commit", COMMIT)
        mlflow.log_input(data, context="training")
        mlflow.log_input(holdout, context="eval")
        model = LogisticRegression().fit(rows, np.array([0, 1, 1]))
        mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(rows, model.predict(rows)),
            registered_model_name=MODEL,
            pip_requirements=["scikit-learn"],  # else it tries them all out
        )
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(MODEL, "champion", "1")
    client.set_model_version_tag(MODEL, "1", "rmv.image", SHA)
    made = {
        "run": run.info.run_id,
        "digest": data.digest,
        "created_ms": client.get_model_version(MODEL, "1").creation_timestamp,
    }
    with open(f"{folder}/made.json", "w") as file:
        json.dump(made, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
