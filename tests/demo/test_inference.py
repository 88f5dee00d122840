"""Plain Python answers what scikit-learn answered when it trained the models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta, Struct

from deploy.demo.model_server import BoostedTrees, InputTensor, Model, load, probability

DEMO = Path(__file__).parents[2] / "deploy" / "demo"
VERSIONS = ("v1", "v2", "v3")


class Sample(Struct):
    """The committed hold-out rows."""

    features: list[str]
    labels: list[int]
    rows: list[list[float]]


class Origin(Struct):
    """What a model file says of its training."""

    inputs: list[str]
    trained_with: str
    holdout_rows: int
    holdout_accuracy: Annotated[float, Meta(ge=0, le=1)]
    expected: list[float]


def sample() -> Sample:
    return msgspec.json.decode((DEMO / "rows.json").read_bytes(), type=Sample)


def model_file(version: str) -> Path:
    return DEMO / "models" / f"{version}.json"


def origin(version: str) -> Origin:
    return msgspec.json.decode(model_file(version).read_bytes(), type=Origin)


@pytest.mark.parametrize("version", VERSIONS)
def test_plain_python_equals_scikit_learn(version: str) -> None:
    model = load(model_file(version))

    answers = [probability(model, row) for row in sample().rows]

    assert answers == pytest.approx(origin(version).expected, rel=0, abs=1e-9)


@pytest.mark.parametrize("version", VERSIONS)
def test_model_files_say_where_they_come_from(version: str) -> None:
    said = origin(version)

    assert said.trained_with.startswith("scikit-learn ")
    assert said.inputs == sample().features
    assert said.holdout_accuracy > 0.9
    assert said.holdout_rows >= len(sample().rows)


def test_the_versions_disagree_on_some_row() -> None:
    labels = {
        version: [answer >= 0.5 for answer in origin(version).expected] for version in VERSIONS
    }

    assert labels["v1"] != labels["v2"]
    assert labels["v1"] != labels["v3"]


def test_sample_rows_fit_their_labels_and_features() -> None:
    rows = sample()

    assert len(rows.rows) == len(rows.labels) == 60
    assert {len(row) for row in rows.rows} == {len(rows.features)} == {30}
    assert set(rows.labels) == {0, 1}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("extreme", [-1e12, 0.0, 1e12])
def test_extreme_values_still_give_a_probability(version: str, extreme: float) -> None:
    model: Model = load(model_file(version))

    answer = probability(model, [extreme] * 30)

    assert math.isfinite(answer)
    assert 0 <= answer <= 1


def test_a_value_on_a_threshold_goes_below() -> None:
    model = load(model_file("v2"))
    assert isinstance(model, BoostedTrees)
    root = model.trees[0]
    row = [0.0] * 30
    row[root.column] = root.threshold

    on_it = root.leaf(row)
    row[root.column] = math.nextafter(root.threshold, -math.inf)

    assert on_it == root.leaf(row)
    row[root.column] = math.nextafter(root.threshold, math.inf)
    assert on_it != root.leaf(row)


def test_flat_and_nested_data_are_the_same_rows() -> None:
    flat = InputTensor("rows", [2, 2], "FP64", [1.0, 2.0, 3.0, 4.0])
    nested = InputTensor("rows", [2, 2], "FP32", [[1.0, 2.0], [3.0, 4.0]])

    assert flat.rows(2) == nested.rows(2) == [[1.0, 2.0], [3.0, 4.0]]


def test_a_model_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_text('{"kind": "oracle"}')

    with pytest.raises(msgspec.ValidationError, match="oracle"):
        load(path)
