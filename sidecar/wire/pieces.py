"""Messages in pieces: joined for one write, but for those that cost more to copy than to write."""

from __future__ import annotations

from typing import Final

MIN_APART_BYTES: Final = 16 * 1024  # of a piece that is not copied, to join others or to be cut out

Pieces = list[bytes | memoryview]


def gathered(pieces: Pieces, *, is_bulky: bool) -> Pieces:
    """Return `pieces` as few as are worth writing; `is_bulky` where one of them may be large."""
    if not is_bulky:
        return [b"".join(pieces)]
    gathered: Pieces = []
    small: Pieces = []
    for piece in pieces:
        if len(piece) < MIN_APART_BYTES:
            small.append(piece)
            continue
        if small:
            gathered.append(b"".join(small))
            small = []
        gathered.append(piece)
    if small:
        gathered.append(b"".join(small))
    return gathered


def cut(data: bytes, start: int, end: int) -> bytes | memoryview:
    """Return a part of `data`, copied where that is cheap."""
    if not start and end == len(data):
        return data
    return data[start:end] if end - start < MIN_APART_BYTES else memoryview(data)[start:end]
