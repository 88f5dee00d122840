"""What heads of requests and responses have in common: where they end, and what may be in them.

RFC 9112 sections 2 to 5, read strictly: whatever two parsers might understand differently is
refused, also where the RFC lets a recipient be lenient.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.errors import Code

HEAD_END: Final = b"\r\n\r\n"
MAX_LENGTH_DIGITS: Final = 18  # of a Content-Length: below 2**63 for everybody
_CONTROLS: Final = bytes((*range(9), 11, 12, *range(14, 32), 127))
_SHOWN: Final = bytes.maketrans(_CONTROLS, b"?" * len(_CONTROLS))  # the rest stays as it is
_LOST: Final = re.compile(rb"(?<!\r)\n|\r[^\n]|[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")


class HeadError(Exception):
    """A message that is refused; its text may be shown and holds no byte of the message."""

    def __init__(self, detail: str, code: Code = Code.MALFORMED_REQUEST) -> None:
        super().__init__(detail)
        self.code = code


def split_lines(block: bytes) -> list[bytes]:
    """Return the lines of a head, each with its CRLF; `block` ends with that of the last.

    Raises HeadError for a control character, or a CR or LF that is not half of a line end.
    """
    lines = block.splitlines(keepends=True)
    is_plain = block.translate(_SHOWN) == block
    for line in lines:
        is_plain &= line.endswith(b"\r\n")
    if not is_plain:
        raise HeadError("the head has a control character, or a bare CR or LF")
    return lines


def is_lost(part: bytes, judged: int = 0) -> bool:
    """Return whether the beginning of a head can never become one, so that none is waited for.

    The first `judged` bytes were found good before; the last of them may be half of a line end.
    """
    return _LOST.search(part, max(judged - 1, 0)) is not None


def bad_name(line: bytes) -> HeadError:
    """Say what is wrong with the name of a header line."""
    if line[:1] in {b" ", b"\t"}:
        return HeadError("a header line is folded")
    if b":" not in line:
        return HeadError("a header line has no colon")
    return HeadError("the name of a header field is not a token")


def read_length(value: bytes) -> int:
    """Return a Content-Length; raises HeadError for anything but digits (RFC 9110 8.6)."""
    if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
        raise HeadError("Content-Length is not a number of bytes")
    return int(value)
