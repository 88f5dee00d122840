"""Times, as RFC 3339 spells them."""

from __future__ import annotations

import pytest

from sidecar.policy.moment import seconds


@pytest.mark.parametrize(
    ("text", "at_s"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2001-09-09T01:46:40Z", 1_000_000_000.0),
        ("2001-09-09t03:46:40.500+02:00", 1_000_000_000.5),
        ("2001-09-08T20:46:40-05:00", 1_000_000_000.0),
    ],
)
def test_a_moment_is_a_number_of_seconds(text: str, at_s: float) -> None:
    assert seconds(text) == at_s


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23",
        "2026-11-23T13:00:00",
        "2026-11-23T13:00Z",
        "2026-02-30T13:00:00Z",
        "2026-11-23T25:00:00Z",
        "20261123T130000Z",
        "2026-W48-1T13:00:00Z",
        "tomorrow",
        "",
    ],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        seconds(text)
