"""Request ids."""

from __future__ import annotations

import re

from sidecar.runtime.ids import RequestIds


def test_ids_are_32_hexadecimal_digits_and_differ() -> None:
    ids = RequestIds(bytes(range(10)))

    made = [ids.make() for _ in range(1_000)]

    assert len(set(made)) == 1_000
    assert all(re.fullmatch(rb"[0-9a-f]{32}", one) for one in made)


def test_workers_with_other_entropy_make_other_ids() -> None:
    one, other = RequestIds(bytes(10)), RequestIds(b"\x01" + bytes(9))

    assert not {one.make() for _ in range(100)} & {other.make() for _ in range(100)}
