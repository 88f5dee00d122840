"""A lineage says what it says in one form, and one digest stands for it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import assume, given

from sidecar.model.policy import Column, DataSet, FeatureSet, Lineage, Signature, Version
from sidecar.policy import codec
from sidecar.policy.diff import diff
from sidecar.policy.lineage import MAX_COLUMNS, digest, faults
from sidecar.policy.problem import PolicyError, render
from tests.policy.examples import make_policy
from tests.policy.policies import LINEAGES

if TYPE_CHECKING:
    from sidecar.policy.problem import Path

ENDPOINTS = ("http://127.0.0.1:9001",)
SHA = f"sha256:{'a' * 64}"
RUN = Lineage(run="r")


def of(lineage: Lineage | None) -> Version:
    return Version(endpoints=ENDPOINTS, lineage=lineage)


def found(lineage: Lineage) -> list[tuple[Path, str]]:
    return [one for one in faults(lineage, ()) if one is not None]


def test_a_version_without_lineage_has_no_digest() -> None:
    assert digest(of(None)) == ""


def test_the_digest_is_that_of_sorted_compact_json() -> None:
    lineage = Lineage(run="r", training_data=(DataSet("loans", SHA),), owner="Zoë")
    canonical = f'{{"owner":"Zoë","run":"r","training_data":[{{"digest":"{SHA}","name":"loans"}}]}}'

    assert digest(of(lineage)) == f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def test_the_digest_never_changes_from_release_to_release() -> None:
    lineage = Lineage(
        registry="models:/credit/1",
        run="96771d89",
        git="0" * 40,
        training_data=(DataSet("loans", SHA), DataSet("bureau", "mlflow:1a2b3c4d")),
        feature_set=FeatureSet("applicants", SHA),
        config=SHA,
        image=SHA,
        signature=Signature(inputs=(Column("double", "income"),), outputs=(Column("long"),)),
        owner="risk",
        created="2026-11-23T13:00:00Z",
    )

    assert (
        digest(of(lineage))
        == "sha256:8b1571f071f96a308112cea439b7e84f85394b400fd221a06fc54666cf9b2b01"
    )


@given(LINEAGES)
def test_a_lineage_that_was_stored_has_the_same_digest(lineage: Lineage) -> None:
    stored = codec.encode(make_policy(versions={"v1": of(lineage)}, default="v1"))
    again = codec.load(stored, source="store")

    assert digest(again.versions["v1"]) == digest(of(lineage))


@given(LINEAGES, LINEAGES)
def test_two_lineages_differ_in_their_digests(one: Lineage, other: Lineage) -> None:
    assume(one != other)

    assert digest(of(one)) != digest(of(other))


@given(LINEAGES)
def test_a_digest_can_be_checked_by_any_reader_of_json(lineage: Lineage) -> None:
    plain = json.loads(msgspec.json.encode(lineage))
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert digest(of(lineage)) == f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


@given(LINEAGES)
def test_lineages_that_fit_have_no_faults(lineage: Lineage) -> None:
    assert found(lineage) == []


@pytest.mark.parametrize(
    ("lineage", "path", "reason"),
    [
        (Lineage(), "", "it says nothing"),
        (Lineage(registry="fraud"), "registry", "a URI is a scheme"),
        (Lineage(registry="https://h/a b"), "registry", "a URI is a scheme"),
        (Lineage(registry="https://h/\n"), "registry", "a URI is a scheme"),
        (Lineage(registry="https://u:p@h/x"), "registry", "a policy is no place for a user"),
        (Lineage(run="a\x1b[2J"), "run", "is no printable text"),
        (Lineage(run="r", owner="a\nb"), "owner", "is no printable text"),
        (Lineage(git="8d5ac0d"), "git", "a commit is told by all of its"),
        (Lineage(git="0" * 40 + "\n"), "git", "a commit is told by all of its"),
        (Lineage(config="sha256:1"), "config", '"sha256:1" is no digest'),
        (Lineage(image=f"{SHA}\n"), "image", "is no digest"),
        (Lineage(image=SHA.upper()), "image", "is no digest"),
        (Lineage(training_data=(DataSet("", "md5:1"),)), "training_data[0].digest", "is no"),
        (Lineage(training_data=(DataSet("a\x00", SHA),)), "training_data[0].name", "is no"),
        (
            Lineage(training_data=(DataSet("a", SHA), DataSet("a", SHA))),
            "training_data[1]",
            "given twice",
        ),
        (Lineage(feature_set=FeatureSet("s", "1")), "feature_set.digest", "is no digest"),
        (Lineage(feature_set=FeatureSet("\t", SHA)), "feature_set.service", "is no printable"),
        (
            Lineage(signature=Signature(inputs=(Column("a", "x"), Column("b", "x")))),
            "signature.inputs[1].name",
            "given twice",
        ),
        (
            Lineage(run="r", signature=Signature(outputs=(Column("a"),) * (MAX_COLUMNS + 1))),
            "signature.outputs",
            "5001 columns: 5000 are the most",
        ),
        (Lineage(created="yesterday"), "created", '"yesterday" is not a time'),
    ],
)
def test_what_no_lineage_may_say_is_refused_with_its_place(
    lineage: Lineage, path: str, reason: str
) -> None:
    ((at, told),) = found(lineage)

    assert render(at) == path
    assert reason in told


def test_a_document_is_refused_at_the_line_of_the_digest() -> None:
    raw = b"""model: m
versions:
  v1:
    endpoints: ["http://h:1"]
    lineage:
      run: r
      image: latest
default: v1
"""
    with pytest.raises(PolicyError) as refused:
        codec.load(raw, source="m.yaml")

    (problem,) = refused.value.problems
    assert (problem.path, problem.line) == ("versions.v1.lineage.image", 7)
    assert 'not text "latest"' in problem.reason


def test_a_change_of_lineage_is_told_by_its_field() -> None:
    old = make_policy(versions={"v1": of(RUN)}, default="v1")
    new = make_policy(versions={"v1": of(Lineage(run="s"))}, default="v1")

    assert [one.spell() for one in diff(old, new)] == ["versions.v1.lineage.run"]
