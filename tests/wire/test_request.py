"""Heads of requests: what is read, and what is refused."""

from __future__ import annotations

import pytest

from sidecar.wire.request import is_request_id


@pytest.mark.parametrize("fit", [b"a", b"~!", b"x" * 128, b'{"a":1}', b"00-abc-01"])
def test_a_request_id_of_visible_ascii_is_kept(fit: bytes) -> None:
    assert is_request_id(fit)


@pytest.mark.parametrize(
    "unfit", [b"", b" ", b"a b", b"a\t", b"a\r\nX-Evil: 1", b"\x00", b"\x7f", b"\xff", b"x" * 129]
)
def test_any_other_request_id_is_not(unfit: bytes) -> None:
    assert not is_request_id(unfit)
