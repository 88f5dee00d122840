"""Train two versions of one classifier and lay them out for MLServer, in whose environment it runs.

Usage: train.py FOLDER HTTP_PORT GRPC_PORT. Also writes `expected.json`: some rows, and what each
version itself says of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.tree import DecisionTreeClassifier

TRAINING_ROWS = 400
VERSIONS = {
    "1": DecisionTreeClassifier(max_depth=1, random_state=0),
    "2": DecisionTreeClassifier(max_depth=4, random_state=0),
}


def main(folder: Path, http_port: int, grpc_port: int) -> None:
    """Write models, MLServer's settings and the expected answers to `folder`."""
    data, classes = load_breast_cancer(return_X_y=True)
    rows = data[TRAINING_ROWS:]
    answers = {}
    for version, model in VERSIONS.items():
        model.fit(data[:TRAINING_ROWS], classes[:TRAINING_ROWS])
        _lay_out(folder / version, version, model)
        answers[version] = model.predict_proba(rows).tolist()
    (folder / "expected.json").write_text(json.dumps({"rows": rows.tolist(), "answers": answers}))
    settings = {
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_endpoint": None,  # it would want a third port
        "parallel_workers": 0,  # both versions in one process
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def _lay_out(folder: Path, version: str, model: DecisionTreeClassifier) -> None:
    folder.mkdir()
    joblib.dump(model, folder / "model.joblib")
    settings = {
        "name": "tumor",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": version},
    }
    (folder / "model-settings.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
