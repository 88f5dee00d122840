"""The head of a response: from bytes to a `ResponseHead`, or to a reason against it."""

from __future__ import annotations

import re
from typing import Final

from sidecar.wire import fields as wire
from sidecar.wire.fields import RESPONSE_FIELDS, FieldKinds
from sidecar.wire.framing import CHUNKED, UNTIL_CLOSE, is_chunked_alone, is_lengthless
from sidecar.wire.head import HeadError, bad_name, read_length, split_lines
from sidecar.wire.memory import remember

MAX_STATUS_LINES: Final = 256  # remembered
MAX_STATUS_LINE_BYTES: Final = 128  # of one that is
MAX_HEADS: Final = 512  # remembered; those of one second are alike but for a length or a version
MAX_HEAD_BYTES: Final = 1024  # of one that is
KINDS: Final = FieldKinds(RESPONSE_FIELDS)
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: (.*))?\r\n")


class ResponseHead:
    """What a response's head says; not to be changed, for it may be shared.

    `framing` is by the head alone: HEAD, 204 and 304 differ. `passed` is what goes on to the
    client, whole lines: the status line, in our version of HTTP, and the fields for him.
    """

    __slots__ = ("framing", "keeps_alive", "passed", "reason", "status", "trailer", "upgrade")

    def __init__(self, status: int, reason: bytes) -> None:
        self.status = status
        self.reason = reason
        self.passed = b""
        self.framing = UNTIL_CLOSE
        self.keeps_alive = True
        self.trailer = b""
        self.upgrade = b""


_StatusLine = tuple[int, bytes, bool]
_status_lines: Final[dict[bytes, _StatusLine]] = {}
_heads: Final[dict[bytes, ResponseHead]] = {}


def read_response(block: bytes, *, hides_decisions: bool) -> ResponseHead:
    """Read a head: from its status line through the CRLF of its last header line.

    With `hides_decisions` the upstream's own X-Model-* are left out. Raises HeadError for
    whatever is not exactly a response of HTTP/1.1 or HTTP/1.0 (RFC 9112 sections 4 to 6).

    Servers say the same again and again: their clock moves once a second, and answers of a model
    are often of one length. So a head that is byte for byte one of the last is not read twice.
    """
    if not hides_decisions:
        return _read(block, hides_decisions=False)
    head = _heads.get(block)
    if head is None:
        head = _read(block, hides_decisions=True)
        if len(block) <= MAX_HEAD_BYTES:
            remember(_heads, block, head, MAX_HEADS)
    return head


def _read(block: bytes, *, hides_decisions: bool) -> ResponseHead:
    lines = split_lines(block)
    status, reason, is_http10 = _status_lines.get(lines[0]) or _read_line(lines[0])
    del lines[0]
    head = ResponseHead(status, reason)
    reader = _Fields(head, hides_decisions=hides_decisions)
    kept: list[bytes] = []
    kinds = KINDS
    for line in lines:
        at = wire.colon_of(line)
        if at < 1:
            raise bad_name(line)
        kind = kinds.of(line[:at])
        if kind == wire.PASS or reader.take(kind, line, at):
            kept.append(line)
    reader.finish(kept, is_http10=is_http10)
    head.passed = b"HTTP/1.1 %d %b\r\n%b" % (status, reason, b"".join(kept))
    return head


def _read_line(line: bytes) -> _StatusLine:
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise HeadError("the status line is not that of HTTP/1.1 or HTTP/1.0")
    parsed = int(found[2]), found[3] or b"", found[1] == b"0"
    if len(line) <= MAX_STATUS_LINE_BYTES:
        remember(_status_lines, line, parsed, MAX_STATUS_LINES)
    return parsed


class _Fields:
    """The fields of one head that the sidecar reads."""

    __slots__ = ("_connection", "_has_length", "_head", "_hides_decisions")

    def __init__(self, head: ResponseHead, *, hides_decisions: bool) -> None:
        self._head = head
        self._hides_decisions = hides_decisions
        self._has_length = False
        self._connection = b""

    def take(self, kind: int, line: bytes, at: int) -> bool:
        """Read a field whose colon is at `at`; return whether it is passed on as it is."""
        head, value = self._head, wire.value_at(line, at)
        if kind == wire.CONTENT_LENGTH:
            if self._has_length or head.framing == CHUNKED:
                raise HeadError("its length is given twice")
            self._has_length = True
            head.framing = read_length(value)
            return not is_lengthless(head.status)
        if kind == wire.CONNECTION:
            self._connection += b"," + value if self._connection else value
            return False
        return self._take_rare(kind, line, value)

    def _take_rare(self, kind: int, line: bytes, value: bytes) -> bool:
        head = self._head
        if kind == wire.INVALID:
            raise bad_name(line)
        if kind == wire.TRANSFER_ENCODING:
            if self._has_length or head.framing == CHUNKED or not is_chunked_alone(value):
                raise HeadError("Transfer-Encoding is not exactly chunked, or beside a length")
            head.framing = CHUNKED
        elif kind == wire.TRAILER:
            head.trailer += b", " + value if head.trailer else value
        elif kind == wire.UPGRADE:
            head.upgrade += b", " + value if head.upgrade else value
        elif kind == wire.DECISION:
            return not self._hides_decisions
        return False

    def finish(self, kept: list[bytes], *, is_http10: bool) -> None:
        """Judge what only the whole head tells; `kept` are the lines to be passed on."""
        head = self._head
        if is_http10 and head.framing == CHUNKED:
            raise HeadError("HTTP/1.0 has no Transfer-Encoding")
        if self._connection or is_http10:
            names = wire.options(self._connection)
            head.keeps_alive = b"keep-alive" in names if is_http10 else b"close" not in names
            wire.drop_nominated(kept, self._connection)
