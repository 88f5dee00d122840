"""`rmv try` decides simulated requests, the same ones each time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import POLICY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv

SPLIT = POLICY.replace(
    "default: v1", "  - id: canary\n    split: {key: tenant, arms: {v1: 80, v2: 20}}\ndefault: v1"
)


@pytest.fixture
def split(store: Rmv, tmp_path: Path) -> Rmv:
    """Run the command on a store whose policy has a split by tenant."""
    file = tmp_path / "split.yaml"
    file.write_text(SPLIT)
    assert store("apply", "-f", file).code == 0
    return store


def tried(rmv: Rmv, *arguments: str | Path) -> dict[str, dict[str, float]]:
    ran = rmv("try", "tumor", *arguments, "--json")
    assert ran.code == 0, ran.err
    return {one["version"]: one for one in json.loads(ran.out)}


def test_shares_are_told_with_what_is_to_be_expected(split: Rmv) -> None:
    ran = split("try", "tumor", "-n", "2000")
    again = split("try", "tumor", "-n", "2000")

    header, *rows = ran.out.splitlines()
    assert header.split() == ["VERSION", "REASON", "REQUESTS", "EXPECTED", "OBSERVED", "3", "SIGMA"]
    assert [row.split()[:2] for row in rows] == [["v1", "SPLIT:canary"], ["v2", "SPLIT:canary"]]
    assert "20.0 %" in rows[1]
    assert "17.3 to 22.7 %" in rows[1]
    assert ran.err == ""
    assert again.out == ran.out


def test_headers_and_claims_are_those_of_every_caller(split: Rmv) -> None:
    found = tried(split, "-n", "50", "-H", "X-Beta: yes")

    assert list(found) == ["v2"]
    assert found["v2"]["requests"] == 50
    assert found["v2"]["low"] == found["v2"]["high"] == 1.0


def test_named_tenants_are_taken_in_turn_with_their_pins(split: Rmv, tmp_path: Path) -> None:
    tenants = tmp_path / "tenants"
    tenants.write_text("acme\n\n evil \nglobex\n")
    split("pin", "tumor", "acme", "v2")

    ran = split("try", "tumor", "-n", "30", "--tenants", tenants, "--json")
    found = {(one["version"], one["reason"]): one["requests"] for one in json.loads(ran.out)}

    assert found["v2", "PINNED"] == 10
    assert found["v1", "SPLIT:canary"] >= 10  # evil may not use v2
    assert sum(found.values()) == 30


def test_a_document_can_be_tried_before_it_is_applied(tumor: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "split.yaml"
    file.write_text(SPLIT)

    found = tried(tumor, "-f", file)
    other = tumor("try", "fraud", "-f", file)

    assert set(found) == {"v1", "v2"}
    assert other.code == 1
    assert "no policy of `fraud`" in other.err
    assert "canary" not in tumor("get", "tumor").out


def test_refused_callers_are_a_share_too(split: Rmv) -> None:
    split("kill", "tumor", "--reason", "recall")

    found = tried(split, "-n", "10")

    assert list(found) == [""]
    assert found[""]["requests"] == 10


@pytest.mark.parametrize("text", ["", "caf\u00e9\n"])
def test_tenants_that_nobody_can_have_are_refused(split: Rmv, tmp_path: Path, text: str) -> None:
    tenants = tmp_path / "tenants"
    tenants.write_text(text)

    assert split("try", "tumor", "--tenants", tenants).code == 2
    assert split("try", "tumor", "--tenants", tmp_path / "none").code == 2


def test_one_document_that_is_tried_names_the_model(split: Rmv, tmp_path: Path) -> None:
    file, other = tmp_path / "split.yaml", tmp_path / "other.yaml"
    other.write_text(SPLIT.replace("model: tumor", "model: fraud"))

    one = split("try", "-f", file, "-n", "50")
    two = split("try", "-f", file, "-f", other)
    none = split("try")

    assert one == split("try", "tumor", "-n", "50")
    assert (two.code, none.code) == (2, 2)
    assert "the documents have tumor, fraud" in two.err
