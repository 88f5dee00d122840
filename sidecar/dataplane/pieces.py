"""Messages in pieces: joined for one write, but for those that cost more to copy than to write."""

from __future__ import annotations

from typing import Final

MIN_APART_BYTES: Final = 16 * 1024  # of a piece that is not copied to join others


def joined(pieces: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return `pieces` as one."""
    return [b"".join(pieces)]


def packed(pieces: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return `pieces` with the small ones between large ones joined."""
    packed: list[bytes | memoryview] = []
    small: list[bytes | memoryview] = []
    for piece in pieces:
        if len(piece) < MIN_APART_BYTES:
            small.append(piece)
            continue
        if small:
            packed.append(b"".join(small))
            small = []
        packed.append(piece)
    if small:
        packed.append(b"".join(small))
    return packed
