"""The chunked coding (RFC 9112 section 7.1), read strictly."""

from __future__ import annotations

import re
from typing import Final

from sidecar.errors import Code
from sidecar.wire.fields import is_token
from sidecar.wire.head import HeadError, bad_name, split_lines

MAX_SIZE_DIGITS: Final = 15
MAX_TRAILERS: Final = 256  # lines; each costs more time than its bytes tell
MAX_PIECES: Final = 256  # of data that one call decodes: a fraction of a millisecond
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_BEGINNING: Final = re.compile(rb"[0-9A-Fa-f]{0,15}(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?)?\r?")

# What the next line is.
_SIZE: Final = 0
_GAP: Final = 1  # the empty line after a chunk's data
_TRAILER: Final = 2


class ChunkedBody:
    """One body, decoded piece by piece; what it holds itself is at most `max_line_bytes`.

    `is_done` once the last chunk and the trailer section are in; `trailers` are its lines.
    """

    __slots__ = ("_due", "_framing_bytes", "_left", "_line", "_max", "is_done", "trailers")

    def __init__(self, max_line_bytes: int) -> None:
        self.is_done = False
        self.trailers: list[bytes] = []
        self._max = max_line_bytes
        self._left = 0  # bytes of the chunk in hand
        self._line = b""  # the beginning of a line, from earlier reads
        self._due = _SIZE
        self._framing_bytes = 0  # since the last byte of data

    def feed(self, data: bytes, pos: int, out: list[bytes]) -> int:
        """Decode `data` from `pos` on into `out`; return how far it got.

        That is not to its end where `MAX_PIECES` have come of it. Raises HeadError for what is not
        exactly the coding, or for framing over the limit.
        """
        size = len(data)
        while pos < size and not self.is_done and len(out) < MAX_PIECES:
            if self._left:
                end = min(size, pos + self._left)
                out.append(data[pos:end] if pos or end < size else data)
                self._left -= end - pos
                self._framing_bytes = 0
                pos = end
                continue
            end = data.find(b"\n", pos) + 1
            part = data[pos : end or size]
            pos = end or size
            self._framing_bytes += len(part)
            if self._framing_bytes > self._max:
                detail = f"trailers or an extension of a chunk are over {self._max} bytes"
                raise HeadError(detail, Code.HEAD_TOO_LARGE)
            line = self._line + part if self._line else part
            if end:
                self._line = b""
                self._take(line)
            else:
                self._line = line
                self._judge_beginning(line)
        return pos

    def _take(self, line: bytes) -> None:
        if self._due == _SIZE:
            found = _SIZE_LINE.fullmatch(line)
            if found is None:
                raise HeadError("the size of a chunk is malformed")
            self._left = int(found[1], 16)
            self._due = _GAP if self._left else _TRAILER
        elif self._due == _GAP:
            if line != b"\r\n":
                raise HeadError("a chunk is longer than its size")
            self._due = _SIZE
        elif line == b"\r\n":
            self.is_done = True
        elif len(self.trailers) >= MAX_TRAILERS:
            raise HeadError(f"there are over {MAX_TRAILERS} trailers", Code.HEAD_TOO_LARGE)
        else:
            split_lines(line)
            if not is_token(line[: max(line.find(b":"), 0)]):
                raise bad_name(line)
            self.trailers.append(line)

    def _judge_beginning(self, line: bytes) -> None:
        """Refuse at once what can never become a line: a peer would wait for the answer."""
        if self._due == _GAP:
            if line != b"\r":
                raise HeadError("a chunk is longer than its size")
        elif self._due == _SIZE and _BEGINNING.fullmatch(line) is None:
            raise HeadError("the size of a chunk is malformed")
