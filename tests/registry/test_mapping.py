"""What MLflow says of a version becomes its lineage; what is meant for us has to be right."""

from __future__ import annotations

import hashlib
import json

import pytest

from sidecar.errors import RegistryError
from sidecar.model.policy import Column, DataSet, FeatureSet, Lineage, Signature
from sidecar.policy.lineage import faults
from sidecar.registry.mapping import Mapped, lineage_of, signature_of
from sidecar.registry.mlflow import Data, DataInput, ModelVersion, Run, RunData, RunInputs, Tag

SHA = f"sha256:{'a' * 64}"
COMMIT = "8" * 40
PAGE = "http://mlflow/#/models/credit/versions/3"
VERSION = ModelVersion("credit", "3", 1763902800123, "ada", "r1")


def tags(**values: str) -> tuple[Tag, ...]:
    return tuple(Tag(name.replace("__", "."), value) for name, value in values.items())


def mapped(
    version: ModelVersion = VERSION,
    of_run: tuple[Tag, ...] = (),
    params: tuple[Tag, ...] = (),
    data: tuple[DataInput, ...] = (),
) -> Mapped:
    return lineage_of(version, Run(RunData(params, of_run), RunInputs(data)), None, PAGE)


def trained_on(name: str, digest: str, **of: str) -> DataInput:
    return DataInput(Data(name, digest), tags(**of))


def test_a_version_without_a_run_tells_where_and_when_it_was_registered() -> None:
    found = lineage_of(VERSION, None, None, PAGE)

    assert found.lineage == Lineage(
        registry=PAGE, run="r1", owner="ada", created="2025-11-23T13:00:00.123Z"
    )
    assert not any(faults(found.lineage, ()))


def test_a_run_tells_commit_and_parameters() -> None:
    params = (Tag("solver", "lbfgs"), Tag("C", "1.0"))
    found = mapped(of_run=tags(mlflow__source__git__commit=COMMIT), params=params).lineage

    canonical = json.dumps({"C": "1.0", "solver": "lbfgs"}, separators=(",", ":"))
    assert found.git == COMMIT
    assert found.config == f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


@pytest.mark.parametrize(
    ("told", "image"),
    [("b" * 64, f"sha256:{'b' * 64}"), (f"sha256:{'b' * 64}", f"sha256:{'b' * 64}"), ("1f", None)],
)
def test_the_image_that_a_run_ran_in_is_told_by_its_digest(told: str, image: str | None) -> None:
    run = tags(mlflow__docker__image__id=told)

    assert mapped(of_run=run).lineage.image == image
    assert mapped(of_run=(*run, Tag("rmv.image", SHA))).lineage.image == SHA


def test_data_sets_are_told_by_the_best_digest_there_is() -> None:
    found = mapped(
        data=(
            trained_on("sampled", "1a2b3c4d", mlflow__data__context="training"),
            trained_on("hashed", "b" * 64),
            trained_on("tagged", "1a2b3c4d", rmv__digest=SHA),
        )
    )

    assert found.lineage.training_data == (
        DataSet("sampled", "mlflow:1a2b3c4d"),
        DataSet("hashed", f"sha256:{'b' * 64}"),
        DataSet("tagged", SHA),
    )
    assert found.notes == ()


def test_what_a_version_was_evaluated_on_is_no_training_data() -> None:
    found = mapped(data=(trained_on("holdout", "1a", mlflow__data__context="eval"),))

    assert found.lineage.training_data == ()
    assert found.notes == ("the data set holdout is for eval: no training data",)


def test_a_data_set_that_was_given_twice_stands_there_once() -> None:
    twice = mapped(data=(trained_on("a", "1"), trained_on("a", "1"))).lineage

    assert twice.training_data == (DataSet("a", "mlflow:1"),)
    assert not any(faults(twice, ()))


def test_tags_of_ours_come_first_and_those_of_the_version_before_the_runs() -> None:
    version = ModelVersion(
        "credit", "3", tags=tags(rmv__owner="risk", rmv__training_data__bureau=SHA, other="x")
    )
    of_run = tags(
        rmv__owner="nobody",
        rmv__image="a" * 64,
        rmv__config=SHA,
        rmv__feature_set=f"applicants:7@{SHA}",
        mlflow__user="ada",
    )

    found = mapped(version, of_run, params=(Tag("C", "1"),)).lineage

    assert (found.owner, found.image, found.config) == ("risk", SHA, SHA)
    assert found.feature_set == FeatureSet("applicants:7", SHA)
    assert found.training_data == (DataSet("bureau", SHA),)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rmv.image", "latest"),
        ("rmv.config", "sha256:1"),
        ("rmv.feature_set", SHA),
        ("rmv.feature_set", "service@latest"),
        ("rmv.training_data.loans", "mlflow:1a2b"),
    ],
)
def test_a_tag_of_ours_that_is_wrong_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(RegistryError, match=name.replace(".", r"\.")):
        mapped(of_run=(Tag(name, value),))


def test_a_commit_that_is_none_is_told_and_left_out() -> None:
    found = mapped(of_run=tags(mlflow__source__git__commit="main"))

    assert found.lineage.git == ""
    assert found.notes == ("mlflow.source.git.commit is no commit: main",)


@pytest.mark.parametrize("at_ms", [0, 10**30, -(10**30)])
def test_a_time_that_no_calendar_has_is_left_out(at_ms: int) -> None:
    assert mapped(ModelVersion("credit", "3", at_ms)).lineage.created is None


@pytest.mark.parametrize(
    ("told", "column"),
    [
        ({"type": "double", "name": "income", "required": True}, Column("double", "income")),
        ({"type": "long"}, Column("long")),
        ({"type": "long", "name": "a", "required": False}, Column("long", "a", optional=True)),
        (
            {"type": "tensor", "name": "x", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}},
            Column("float32", "x", (-1, 3)),
        ),
        (
            {"name": "alpha", "type": "double", "default": 0.1, "shape": None},
            Column("double", "alpha", optional=True),
        ),
        (
            {"name": "stop", "type": "string", "default": ["a"], "shape": [-1]},
            Column("string", "stop", (-1,), optional=True),
        ),
        ({"type": "array", "items": {"type": "string"}, "name": "t"}, Column("array<string>", "t")),
        (
            {
                "type": "object",
                "name": "o",
                "properties": {
                    "city": {"type": "string", "required": True},
                    "zip": {"type": "map", "values": {"type": "long"}, "required": False},
                },
            },
            Column("object<city: string, zip?: map<long>>", "o"),
        ),
        (
            {"type": "object", "properties": {"x" * 300: {"type": "string"}}},
            Column("object"),
        ),
    ],
)
def test_a_column_is_told_by_its_type(told: dict[str, object], column: Column) -> None:
    described = {"signature": {"inputs": json.dumps([told]), "outputs": None}}

    assert signature_of(json.loads(json.dumps(described))) == Signature(inputs=(column,))


@pytest.mark.parametrize("inputs", ["{", '{"type": "long"}', "[1]", "[{}]", '[{"type": "array"}]'])
def test_a_signature_that_cannot_be_read_is_told(inputs: str) -> None:
    with pytest.raises(RegistryError, match="the signature in MLmodel cannot be read"):
        signature_of({"signature": {"inputs": inputs}})


def test_a_signature_nested_beyond_all_measure_is_told() -> None:
    deep = '{"type": "array", "items": ' * 5000 + "1" + "}" * 5000

    with pytest.raises(RegistryError, match="the signature in MLmodel cannot be read"):
        signature_of({"signature": {"inputs": f"[{deep}]"}})


@pytest.mark.parametrize("described", [None, [], {}, {"signature": None}])
def test_a_file_without_a_signature_has_none(described: None) -> None:
    assert signature_of(described) is None
