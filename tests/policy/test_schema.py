"""The JSON Schema that editors use is that of the structs, and fits every policy that is valid."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given

from sidecar.model import comparison
from sidecar.model import policy as structs
from sidecar.policy import codec, document
from sidecar.policy.schema import DIALECT, WORDS, schema
from tests.policy.policies import policies

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

    from sidecar.model.policy import Policy

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "docs" / "policy.schema.json"
SAMPLES = sorted((ROOT / "policies").glob("*.yaml"))
VERSIONS = {"v1": {"endpoints": ["http://h:1"]}}


@cache
def validator() -> Draft202012Validator:
    """Return what judges documents."""
    # To import it takes seconds, which each process that collects this file would spend.
    from jsonschema import Draft202012Validator as Validator  # noqa: PLC0415

    return Validator(schema())


def faults(value: object) -> list[str]:
    """Return the paths at which a document does not fit the schema."""
    return [error.json_path for error in validator().iter_errors(value)]


def test_the_committed_schema_is_the_one_of_the_structs() -> None:
    # If this fails: rmv schema > docs/policy.schema.json
    assert json.loads(COMMITTED.read_text()) == schema()


def test_the_schema_is_one_of_its_dialect() -> None:
    validator().check_schema(schema())

    assert schema()["$schema"] == DIALECT


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_a_sample_fits_the_schema_that_it_names(sample: Path) -> None:
    text = sample.read_text()
    comment = text.splitlines()[0]
    named = sample.parent / comment.removeprefix("# yaml-language-server: $schema=")

    assert named.resolve() == COMMITTED
    assert faults(document.read(text, sample.name)) == []


@given(policies())
def test_every_policy_of_the_structs_fits_the_schema(policy: Policy) -> None:
    assert faults(json.loads(codec.encode(policy))) == []


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"modle": "m"}, "$"),
        ({"versions": {"v 1": {"endpoints": ["x"]}}}, "$.versions"),
        ({"versions": {"v1": {"endpoints": []}}}, "$.versions.v1.endpoints"),
        ({"versions": {"v1": {"endpoints": ["x"], "state": "on"}}}, "$.versions.v1.state"),
        ({"rules": [{"id": "r"}]}, "$.rules[0]"),
        ({"rules": [{"id": "r", "serve": "v1", "deny": "no"}]}, "$.rules[0]"),
        ({"rules": [{"id": "r", "serve": "v1", "when": {"tenent": "a"}}]}, "$.rules[0].when"),
        ({"rules": [{"id": "r", "split": {"arms": {"v1": -1}}}]}, "$.rules[0].split.arms.v1"),
        ({"shadows": [{"version": "v1", "key": "scope"}]}, "$.shadows[0].key"),
    ],
)
def test_an_editor_sees_what_does_not_fit(members: dict[str, object], path: str) -> None:
    assert faults({"model": "m", "versions": VERSIONS} | members) == [path]


def test_every_field_of_every_struct_has_words() -> None:
    found = {
        name: {field.encode_name for field in msgspec.structs.fields(struct)}
        for name, struct in (vars(structs) | vars(comparison)).items()
        if isinstance(struct, type)
        and issubclass(struct, msgspec.Struct)
        and struct is not msgspec.Struct
    }

    assert {name: set(fields) for name, fields in WORDS.items()} == found
