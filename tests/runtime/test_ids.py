"""Request ids."""

from __future__ import annotations

import re

import pytest

from sidecar.runtime.ids import RequestIds, acceptable


def test_ids_are_32_hexadecimal_digits_and_differ() -> None:
    ids = RequestIds(bytes(range(10)))

    made = [ids.make() for _ in range(1_000)]

    assert len(set(made)) == 1_000
    assert all(re.fullmatch(rb"[0-9a-f]{32}", one) for one in made)


def test_workers_with_other_entropy_make_other_ids() -> None:
    one, other = RequestIds(bytes(10)), RequestIds(b"\x01" + bytes(9))

    assert not {one.make() for _ in range(100)} & {other.make() for _ in range(100)}


@pytest.mark.parametrize("fit", [b"a", b"~!", b"x" * 128, b'{"a":1}', b"00-abc-01"])
def test_visible_ascii_is_accepted(fit: bytes) -> None:
    assert acceptable(fit)


@pytest.mark.parametrize(
    "unfit", [b"", b" ", b"a b", b"a\t", b"a\r\nX-Evil: 1", b"\x00", b"\x7f", b"\xff", b"x" * 129]
)
def test_anything_else_is_not(unfit: bytes) -> None:
    assert not acceptable(unfit)
