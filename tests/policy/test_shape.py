"""Misfits are told no further than anybody reads, and near words are found among many."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from sidecar.policy.problem import MAX_PROBLEMS
from sidecar.policy.shape import shaping, suggestion
from sidecar.policy.steps import finish

if TYPE_CHECKING:
    from types import FrameType

    from sidecar.model.identity import JSON

MANY = [f"version-{n}" for n in range(300)]


def wrong(count: int) -> dict[str, JSON]:
    """Return a document that is wrong in each of so many rules, twice."""
    rules: list[JSON] = [
        {"id": f"r{n}", "whenn": {"tenant": "a"}, "serve": n} for n in range(count)
    ]
    return {"model": "m", "versions": {"v1": {"endpoints": ["http://h:1"]}}, "rules": rules}


def calls_to_refuse(value: JSON) -> int:
    """Count the calls of functions until plain values are refused."""
    count = 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    assert finish(shaping(value)).misfits
    sys.setprofile(note)
    try:
        finish(shaping(value))
    finally:
        sys.setprofile(None)
    return count


def test_a_mistake_repeated_without_end_is_walked_no_further_than_it_is_told() -> None:
    assert len(finish(shaping(wrong(16_000))).misfits) == MAX_PROBLEMS + 1


def test_a_large_document_costs_no_more_calls_to_refuse_than_a_small_one() -> None:
    assert calls_to_refuse(wrong(12_000)) < 1.1 * calls_to_refuse(wrong(200))


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("version-1", "version-1"),
        ("versoin-12", "version-12"),
        ("verison-299", "version-299"),
        ("version_42", "version-42"),
        ("vrsion-7", "version-7"),
    ],
)
def test_the_near_word_is_found_among_hundreds(wrong: str, near: str) -> None:
    assert suggestion(wrong, MANY) == f'; did you mean "{near}"?'


@pytest.mark.parametrize("wrong", ["", "completely", "x" * 1_000_000])
def test_nothing_is_suggested_for_a_word_like_no_other(wrong: str) -> None:
    assert suggestion(wrong, MANY) == ""
