"""Versions by SemVer 2.0.0, and ranges as npm reads them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.semver import key, within

# The order of section 11 of the specification, with its own examples.
ORDERED = (
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "2.0.0",
    "2.1.0",
    "2.1.1",
    "10.0.0",
)


def test_precedence_is_that_of_the_specification() -> None:
    for less, more in pairwise(ORDERED):
        low, high = key(less), key(more)
        assert low is not None
        assert high is not None
        assert low < high


def test_build_metadata_and_a_leading_v_do_not_count() -> None:
    assert key("1.2.3+build.7") == key("v1.2.3") == key("1.2.3")


def test_numbers_left_out_are_zero() -> None:
    assert key("2") == key("2.0") == key("2.0.0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "01.2.3",
        "1.2.3.4",
        "1.2.3-",
        "1.2.3-a..b",
        "1.2-rc",
        "1.2.3-01",
        "1.2.3 ",
        "9" * 300,
    ],
)
def test_what_is_no_version_is_in_no_range(text: str) -> None:
    assert key(text) is None
    assert not within("*")(text)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("1.2.3", ["1.2.3", "1.2.3+b"], ["1.2.4", "1.2.3-a"]),
        ("=1.2", ["1.2.0", "1.2.9"], ["1.3.0", "1.1.9", "1.2.0-a"]),
        (">=2.1 <3", ["2.1", "2.9.9"], ["2.0.9", "3.0.0", "3.0.0-rc.1", "2.2.0-rc.1"]),
        (">= 2.1  < 3", ["2.1.0"], ["3.0.0"]),
        (">1.2", ["1.3.0"], ["1.2.9"]),
        (">1.2.3", ["1.2.4"], ["1.2.3"]),
        ("<=1.2", ["1.2.9", "0.1.0"], ["1.3.0"]),
        ("<=1.2.3", ["1.2.3"], ["1.2.4"]),
        ("<1.2", ["1.1.9"], ["1.2.0", "1.2.0-a"]),
        ("^1.2.3", ["1.2.3", "1.9.0"], ["1.2.2", "2.0.0"]),
        ("^0.2.3", ["0.2.9"], ["0.3.0", "0.2.2"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4"]),
        ("^0.0", ["0.0.9"], ["0.1.0"]),
        ("^0", ["0.9.0"], ["1.0.0"]),
        ("~1.2.3", ["1.2.9"], ["1.3.0", "1.2.2"]),
        ("~1", ["1.9.0"], ["2.0.0"]),
        ("1.2.x", ["1.2.0", "1.2.7"], ["1.3.0"]),
        ("1.X || 3.*", ["1.5.0", "3.0.0"], ["2.0.0"]),
        ("*", ["0.0.0", "9.9.9"], ["1.0.0-a"]),
        (">=2.0.0-rc.1", ["2.0.0-rc.2", "2.0.0", "2.1.0"], ["2.0.0-beta", "2.1.0-rc.1"]),
        ("^2.0.0-rc.1 || <1", ["2.0.0-rc.1", "0.5.0"], ["1.0.0", "3.0.0-rc.1"]),
        ("<2 >=2.0.0-alpha", [], ["2.0.0-beta", "2.0.0", "1.9.0"]),
    ],
)
def test_a_range_has_what_npm_says(text: str, inside: list[str], outside: list[str]) -> None:
    holds = within(text)

    assert [one for one in inside if not holds(one)] == []
    assert [one for one in outside if holds(one)] == []


@pytest.mark.parametrize(
    "text", ["", " ", "1 ||", "banana", ">", ">=1.2.3.4", "=>1", "<*", "1 - 2", ">=1<2", "1" * 300]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|version"):
        within(text)


NUMBERS = st.tuples(*[st.integers(0, 3)] * 3)


@given(NUMBERS, NUMBERS)
def test_a_whole_version_bounds_by_its_numbers(
    bound: tuple[int, ...], version: tuple[int, ...]
) -> None:
    named, asked = (".".join(map(str, numbers)) for numbers in (bound, version))

    assert within(f">={named}")(asked) == (version >= bound)
    assert within(f"<{named}")(asked) == (version < bound)
    assert within(f"<={named}")(asked) == (version <= bound)
    assert within(f">{named}")(asked) == (version > bound)
