"""Durations are read and written as operators do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cli.durations import MAX_S, parse, spell


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("1h", 3600), ("2d", 172_800), ("1h30m", 5400)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "h", "1.5h", "-1h", "1 h", "1w", "0s", "9999999d", "\uff11h"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse(text)


@given(st.integers(min_value=1, max_value=MAX_S))
def test_a_spelled_duration_reads_back_within_its_smaller_unit(seconds: int) -> None:
    read = parse(spell(seconds))

    assert read <= seconds
    assert seconds - read < max(1, seconds / 24)


def test_less_than_a_second_is_not_spelled_as_nothing() -> None:
    assert spell(0.2) == "<1s"
