"""How bodies are delimited."""

from __future__ import annotations

import pytest

from sidecar.wire.framing import is_bodiless, is_chunked_alone


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED", b" chunked", b"chunked\t "])
def test_chunked_is_told_in_any_case(value: bytes) -> None:
    assert is_chunked_alone(value)


@pytest.mark.parametrize(
    "value",
    [b"", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked,", b"chunked;q=1", b"xchunked",
     b'"chunked"', b"chunked chunked", b"chunked\x00", b"identity"],
)  # fmt: skip
def test_nothing_else_is_chunked(value: bytes) -> None:
    assert not is_chunked_alone(value)


@pytest.mark.parametrize(
    ("method", "status", "is_without"),
    [
        (b"GET", 200, False),
        (b"GET", 204, True),
        (b"GET", 304, True),
        (b"GET", 205, False),
        (b"HEAD", 200, True),
        (b"HEAD", 404, True),
        (b"POST", 204, True),
    ],
)
def test_some_responses_have_no_body_whatever_they_say(
    method: bytes, status: int, *, is_without: bool
) -> None:
    assert is_bodiless(method, status) is is_without
