"""Numbers are spelled so that people read them right."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.shadow.sequence import Interval
from sidecar.shadow.spelling import (
    between,
    moment,
    part,
    percent,
    plain,
    points,
    seconds,
    size,
    times,
)


@pytest.mark.parametrize(
    ("share", "spelled"),
    [
        (0, "0%"),
        (-0.0, "0%"),
        (-1e-14, "0%"),
        (1, "100%"),
        (0.25, "25%"),
        (0.12345, "12.35%"),
        (0.99996, "99.996%"),
        (0.9999996, "99.99996%"),
        (0.000004, "0.0004%"),
        (1.5, "150%"),
        (-0.031, "-3.1%"),
    ],
)
def test_a_share_is_told_from_none_and_from_all(share: float, spelled: str) -> None:
    assert percent(share) == spelled


@given(st.floats(1e-8, 1 - 1e-8))
def test_no_share_between_is_spelled_as_none_or_all(share: float) -> None:
    assert percent(share) not in {"0%", "100%"}


@pytest.mark.parametrize(
    ("number", "spelled"),
    [(0, "0%"), (0.1234, "0.12%"), (7.5, "7.5%"), (42.4, "42%"), (94.3, "94.3%"), (100, "100%")],
)
def test_a_part_is_told_roughly(number: float, spelled: str) -> None:
    assert part(number, 100) == spelled
    assert part(number, 0) == "0%"


def test_differences_have_a_sign() -> None:
    assert (points(0.012), points(-0.012), points(0)) == ("+1.2 pp", "-1.2 pp", "0 pp")


def test_units_are_those_that_people_use() -> None:
    assert [seconds(one) for one in (0, 5e-6, 0.0123, 1.5)] == ["0 µs", "5 µs", "12.3 ms", "1.5 s"]
    assert [size(one) for one in (0, 1, 1023, 1 << 20)] == [
        "0 bytes",
        "1 bytes",
        "1023 bytes",
        "1 MiB",
    ]
    assert [moment(one) for one in (-5.0, 60.0, 1e300)] == [
        "1970-01-01 00:00",
        "1970-01-01 00:01",
        "9999-12-31 23:59",
    ]


def test_an_interval_without_an_end_is_open() -> None:
    assert between(Interval(0.9, 1.25), times) == "0.9x to 1.25x"
    assert between(Interval(0.5, inf), times) == "0.5x or more"
    assert between(Interval(0, inf), times) == "not known"
    assert between(Interval(-inf, inf), seconds) == "not known"


@given(st.text())
def test_what_cannot_be_seen_is_spelled_out(text: str) -> None:
    assert plain(text, 50).isprintable()
    assert bool(plain(text, 50).encode()) == bool(text)
