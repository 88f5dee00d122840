"""Trains the demo's three model versions and writes them as plain JSON.

The results are committed, so nobody has to run this to use the demo. scikit-learn is no dependency
of the project; to train again:

    python -m venv .venv-train
    .venv-train/bin/pip install scikit-learn==1.9.1
    .venv-train/bin/python deploy/demo/train.py

The task is scikit-learn's breast-cancer data: 30 measurements of a tumour, label 1 for malignant.

    v1  logistic regression on all 30 measurements
    v2  gradient-boosted trees, few and shallow
    v3  logistic regression on the ten `mean` measurements alone: the candidate to shadow
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import sklearn  # type: ignore[import-not-found]  # trains only; see above
from sklearn.datasets import load_breast_cancer  # type: ignore[import-not-found]
from sklearn.ensemble import GradientBoostingClassifier  # type: ignore[import-not-found]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-not-found]
from sklearn.model_selection import train_test_split  # type: ignore[import-not-found]
from sklearn.preprocessing import StandardScaler  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
SEED = 20240229
HOLDOUT_SHARE = 0.25
SAMPLE_ROWS = 60  # hold-out rows that are committed for the demo to send

Rows = list[list[float]]
Document = dict[str, object]


class FittedTree(Protocol):
    """scikit-learn's form of one tree: parallel arrays, an entry a node."""

    feature: Sequence[int]  # the column that is compared; negative in a leaf
    threshold: Sequence[float]
    children_left: Sequence[int]
    children_right: Sequence[int]
    value: Sequence[Sequence[Sequence[float]]]


@dataclass(frozen=True)
class Data:
    """The measurements, split once: no version ever sees the hold-out while it trains."""

    features: list[str]
    train: Rows
    train_labels: list[int]
    holdout: Rows
    holdout_labels: list[int]


def load() -> Data:
    """Read the data set and split it, the same way every time."""
    raw = load_breast_cancer()
    malignant = [1 - int(target) for target in raw.target]  # the data set says 0 for malignant
    train, holdout, train_labels, holdout_labels = train_test_split(
        raw.data.tolist(), malignant, test_size=HOLDOUT_SHARE, random_state=SEED, stratify=malignant
    )
    features = [str(name) for name in raw.feature_names]
    return Data(features, train, train_labels, holdout, holdout_labels)


def logistic(data: Data, features: list[str], *, inverse_penalty: float) -> Document:
    """Fit a logistic regression on the standardised `features`; smaller is a stronger penalty."""
    columns = [data.features.index(name) for name in features]
    scaler = StandardScaler().fit(_pick(data.train, columns))
    model = LogisticRegression(C=inverse_penalty, max_iter=1_000)
    model.fit(scaler.transform(_pick(data.train, columns)), data.train_labels)
    answers = model.predict_proba(scaler.transform(_pick(data.holdout, columns)))[:, 1]
    means, scales, weights = scaler.mean_, scaler.scale_, model.coef_[0]
    terms = [
        {
            "feature": name,
            "column": columns[i],
            "mean": float(means[i]),
            "scale": float(scales[i]),
            "coefficient": float(weights[i]),
        }
        for i, name in enumerate(features)
    ]
    learned: Document = {"intercept": float(model.intercept_[0]), "terms": terms}
    return _document("logistic", data, learned, answers.tolist())


def boosted_trees(data: Data, *, trees: int, depth: int, rate: float) -> Document:
    """Fit `trees` trees of at most `depth` levels, each counting with `rate`."""
    model = GradientBoostingClassifier(
        n_estimators=trees, max_depth=depth, learning_rate=rate, random_state=SEED
    )
    model.fit(data.train, data.train_labels)
    answers = model.predict_proba(data.holdout)[:, 1]
    share = sum(data.train_labels) / len(data.train_labels)
    learned: Document = {
        "intercept": math.log(share / (1 - share)),  # boosting starts from the training odds
        "rate": rate,
        "trees": [_node(tree.tree_, 0, data.features) for tree in model.estimators_[:, 0]],
    }
    return _document("boosted-trees", data, learned, answers.tolist())


def _node(tree: FittedTree, index: int, features: list[str]) -> Document | float:
    """Turn one node of scikit-learn's parallel arrays, and all below it, into nested objects."""
    column = int(tree.feature[index])
    if column < 0:
        return float(tree.value[index][0][0])  # one output, one value
    return {
        "feature": features[column],
        "column": column,
        "threshold": float(tree.threshold[index]),
        "below": _node(tree, int(tree.children_left[index]), features),
        "above": _node(tree, int(tree.children_right[index]), features),
    }


def _pick(rows: Rows, columns: list[int]) -> Rows:
    return [[row[column] for column in columns] for row in rows]


def _document(kind: str, data: Data, learned: Document, answers: list[float]) -> Document:
    """Join what was learned with where it comes from and what scikit-learn itself answers."""
    right = [(p >= 0.5) == bool(y) for p, y in zip(answers, data.holdout_labels, strict=True)]  # noqa: PLR2004
    return {
        "kind": kind,
        "trained_with": f"scikit-learn {sklearn.__version__}",
        "holdout_rows": len(right),
        "holdout_accuracy": round(sum(right) / len(right), 4),
        "inputs": data.features,
        **learned,
        "expected": answers[:SAMPLE_ROWS],
    }


def write(path: Path, document: Document) -> None:
    """Write JSON with one line a member, and a list of lists or objects one line an item."""
    members = []
    for name, value in document.items():
        text = json.dumps(value)
        if isinstance(value, list) and value and isinstance(value[0], list | dict):
            text = "[\n    " + ",\n    ".join(json.dumps(item) for item in value) + "\n  ]"
        members.append(f"  {json.dumps(name)}: {text}")
    path.write_text("{\n" + ",\n".join(members) + "\n}\n", encoding="utf-8")


def main() -> None:
    """Train, print the accuracies, write `models/*.json` and `rows.json`."""
    data = load()
    means = [name for name in data.features if name.startswith("mean ")]
    versions = {
        "v1": logistic(data, data.features, inverse_penalty=1.0),
        "v2": boosted_trees(data, trees=40, depth=2, rate=0.2),
        "v3": logistic(data, means, inverse_penalty=0.1),
    }
    for version, document in versions.items():
        print(f"{version} {document['kind']}: {document['holdout_accuracy']} of the hold-out right")
        write(HERE / "models" / f"{version}.json", document)
    sample = data.holdout[:SAMPLE_ROWS]
    labels = data.holdout_labels[:SAMPLE_ROWS]
    write(HERE / "rows.json", {"features": data.features, "labels": labels, "rows": sample})


if __name__ == "__main__":
    main()
