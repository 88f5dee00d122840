"""The parts of a request target as sent: `http://host` (absolute form only), path, query."""

from __future__ import annotations


def split(target: bytes) -> tuple[bytes, bytes, bytes]:
    """Return what precedes the path, the path, and the query with its `?`.

    Joined they are `target`. The authority form of CONNECT and the `*` of OPTIONS
    come back as paths (RFC 9112 section 3.2).
    """
    start = 0
    if not target.startswith(b"/"):
        scheme = target.find(b"://")
        if 0 < scheme < (target.find(b"?") if b"?" in target else len(target)):
            start = _path_start(target, scheme + len(b"://"))
    end = target.find(b"?", start)
    if end < 0:
        return target[:start], target[start:], b""
    return target[:start], target[start:end], target[end:]


def path(target: bytes) -> bytes:
    """Return the path alone, as sent."""
    if target.startswith(b"/"):
        end = target.find(b"?")
        return target if end < 0 else target[:end]
    return split(target)[1]


def _path_start(target: bytes, authority: int) -> int:
    ends = (target.find(mark, authority) for mark in (b"/", b"?"))
    return min((end for end in ends if end >= 0), default=len(target))
