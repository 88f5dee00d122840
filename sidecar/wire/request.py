"""The head of a request: from bytes to a `RequestHead`, or to a reason against it."""

from __future__ import annotations

import re
from typing import Final

from sidecar.errors import Code
from sidecar.model.request import RequestHead
from sidecar.wire import fields as wire
from sidecar.wire.fields import REQUEST_FIELDS, FieldKinds, is_token
from sidecar.wire.framing import CHUNKED, is_chunked_alone
from sidecar.wire.head import HeadError, bad_name, is_lost, read_length, split_lines
from sidecar.wire.memory import remember

MAX_LINES: Final = 1024  # remembered: request lines, and those of Content-Length
MAX_LINE_BYTES: Final = 256  # of one that is
MAX_HOSTS: Final = 1024  # remembered as good
MAX_HOST_BYTES: Final = 260  # of one that is: a name of RFC 1035 and a port
KINDS: Final = FieldKinds(REQUEST_FIELDS)
_METHODS: Final = frozenset((b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"))
_VERSIONS: Final = frozenset((b"HTTP/1.0\r\n", b"HTTP/1.1\r\n"))
_TARGET: Final = bytes((*range(33, 35), *range(36, 127), *range(128, 256)))  # visible; no "#"
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?]+)(?:[/?].*)?")
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")  # visible ASCII: it goes into headers and logs
_SLASH: Final = 47
_RequestLine = tuple[bytes, bytes, bool]
# A few models and sizes make up most of the traffic; what is in here has been judged.
_request_lines: Final[dict[bytes, _RequestLine]] = {}
_lengths: Final[dict[bytes, int]] = {}
_hosts: Final[dict[bytes, bool]] = {}


def read_request(block: bytes, max_fields: int) -> RequestHead:
    """Read a head: from its request line through the CRLF of its last header line.

    Raises HeadError for whatever is not exactly a request of HTTP/1.1 or HTTP/1.0
    (RFC 9112 sections 3, 5 and 6), and for whatever could be read in two ways.
    """
    lines = split_lines(block)
    if len(lines) - 1 > max_fields:
        raise HeadError(f"the head has over {max_fields} fields", Code.HEAD_TOO_LARGE)
    method, target, is_http10 = _request_lines.get(lines[0]) or _read_line(lines[0])
    head = RequestHead(method, target, [])
    head.is_http10 = is_http10
    del lines[0]
    reader = _Fields(head)
    kept, kinds = head.fields, KINDS
    for line in lines:
        at = wire.colon_of(line)
        if at < 1:
            raise bad_name(line)
        kind = kinds.of(line[:at])
        if kind == wire.PASS or reader.take(kind, line, at):
            kept.append(line)
    reader.finish()
    return head


def judge_beginning(part: bytes, judged: int = 0) -> None:
    """Refuse at once the beginning of a head that can never become one: HTTP/0.9 sends no more.

    Of `part` the first `judged` bytes were found good before. Raises HeadError.
    """
    if is_lost(part, judged):
        raise HeadError("a control character, or a bare CR or LF")
    end = part.find(b"\r\n")
    if end >= 0 and end + 2 > judged:
        _read_line(part[: end + 2])


def _read_line(line: bytes) -> _RequestLine:
    parts = line.split(b" ")
    if len(parts) != 3:  # noqa: PLR2004 -- method, target, version
        raise HeadError("the first line is not a method, a target and a version")
    method, target, version = parts
    if method not in _METHODS and not is_token(method):
        raise HeadError("the method is not a token")
    if not target or target.translate(None, _TARGET):
        if b"#" in target:
            raise HeadError("the target has a fragment")  # RFC 9112 section 3.2
        raise HeadError("the target is not made of visible characters")
    if version not in _VERSIONS:
        raise HeadError("the version is neither HTTP/1.1 nor HTTP/1.0")
    parsed = method, target, version == b"HTTP/1.0\r\n"
    if len(line) <= MAX_LINE_BYTES:
        remember(_request_lines, line, parsed, MAX_LINES)
    return parsed


class _Fields:
    """The fields of one head that the sidecar reads."""

    __slots__ = ("_connection", "_has_host", "_has_length", "_head", "_is_chunked")

    def __init__(self, head: RequestHead) -> None:
        self._head = head
        self._has_host = self._has_length = self._is_chunked = False
        self._connection = b""

    def take(self, kind: int, line: bytes, at: int) -> bool:
        """Read a field whose colon is at `at`; return whether it is passed on as it is."""
        head = self._head
        if kind == wire.CONTENT_LENGTH:
            return self._take_length(line, at)
        if wire.AUTHORIZATION <= kind <= wire.LAST_WITHHELD:
            head.withheld += (line,)
        value = wire.value_at(line, at)
        if kind == wire.HOST:
            if self._has_host:
                raise HeadError("Host is repeated")
            self._has_host = True
            head.host = value
            return True
        if kind == wire.AUTHORIZATION:
            if head.authorization is not None:  # a container may believe the other one
                raise HeadError("Authorization is repeated")
            head.authorization = value
            return True
        if kind == wire.CONNECTION:
            self._connection += b"," + value if self._connection else value
            return False
        return self._take_rare(kind, line, value)

    def _take_length(self, line: bytes, at: int) -> bool:
        if self._has_length:
            raise HeadError("Content-Length is repeated")
        head = self._head
        self._has_length = True
        known = _lengths.get(line)
        if known is not None:
            head.framing = known
            return True
        value = wire.value_at(line, at)
        head.framing = read_length(value)
        plain = b"%b: %b\r\n" % (line[:at], value)
        if plain != line:
            head.fields.append(plain)  # framing is spelled so that nobody stumbles over it
            return False
        remember(_lengths, line, head.framing, MAX_LINES)
        return True

    def _take_rare(self, kind: int, line: bytes, value: bytes) -> bool:  # noqa: C901 -- a table
        head = self._head
        if kind == wire.INVALID:
            raise bad_name(line)
        if kind == wire.REQUEST_ID:
            head.request_id = value if is_request_id(value) else b""
        elif kind == wire.ASKED_VERSION:
            head.asked_version = _only(head.asked_version, value, "X-Model-Version")
        elif kind == wire.ASKED_MODEL:
            head.asked_model = _only(head.asked_model, value, "X-Model")
        elif kind == wire.CLAIMED_TENANT:
            head.claimed_tenant = _only(head.claimed_tenant, value, "X-Tenant")
        elif kind == wire.TRANSFER_ENCODING:
            if self._is_chunked or not is_chunked_alone(value):
                raise HeadError("Transfer-Encoding is not exactly chunked")
            self._is_chunked = True
        elif kind == wire.UPGRADE:
            head.upgrade += b", " + value if head.upgrade else value
        elif kind == wire.TRAILER:
            head.trailer += b", " + value if head.trailer else value
        elif kind == wire.TE:
            head.takes_trailers |= b"trailers" in wire.tokens(value)
        return kind <= wire.LAST_PASSED

    def finish(self) -> None:
        """Judge what only the whole head tells."""
        head = self._head
        if self._is_chunked:
            if self._has_length:
                raise HeadError("Content-Length stands beside Transfer-Encoding")
            if head.is_http10:
                raise HeadError("HTTP/1.0 has no Transfer-Encoding")
            head.framing = CHUNKED
        else:
            head.trailer = b""
        if self._connection or head.is_http10 or head.upgrade or head.takes_trailers:
            self._judge_connection()
        host = head.host
        if host not in _hosts and (self._has_host or not head.is_http10):
            _judge_host(host, has_host=self._has_host)
        if head.target[0] != _SLASH or head.method == b"CONNECT":
            _judge_target(head)

    def _judge_connection(self) -> None:
        head = self._head
        names = wire.options(self._connection)
        head.keeps_alive = b"keep-alive" in names if head.is_http10 else b"close" not in names
        if head.is_http10 or b"upgrade" not in names:
            head.upgrade = b""  # RFC 9110 section 7.8
        if b"te" not in names:
            head.takes_trailers = False  # section 10.1.4
        wire.drop_nominated(head.fields, self._connection)


def _only(first: bytes | None, value: bytes, name: str) -> bytes:
    if first is not None:
        raise HeadError(f"{name} is repeated")
    return value


def is_request_id(value: bytes) -> bool:
    """Return whether an id from a client is kept: visible ASCII, 128 bytes at most."""
    return _REQUEST_ID.fullmatch(value) is not None


def _judge_host(host: bytes, *, has_host: bool) -> None:
    if not host:
        raise HeadError("Host is empty" if has_host else "Host is missing")
    if not _HOST.fullmatch(host):
        raise HeadError("Host is not a host and a port")
    if len(host) <= MAX_HOST_BYTES:
        remember(_hosts, host, True, MAX_HOSTS)  # noqa: FBT003 -- a set that `remember` knows


def _judge_target(head: RequestHead) -> None:
    """Judge a target that is no path (RFC 9112 section 3.2), and CONNECT with any."""
    target = head.target
    if head.method == b"CONNECT":  # what follows it would be a tunnel, whatever its framing says
        raise HeadError("CONNECT is not supported", Code.NOT_IMPLEMENTED)
    if target == b"*":
        if head.method != b"OPTIONS":  # section 3.2.4
            raise HeadError("the target * is for OPTIONS alone")
        return
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise HeadError("the target is neither a path nor an absolute URI")
    authority = absolute[1]
    if b"@" in authority or not _HOST.fullmatch(authority):
        raise HeadError("the target's authority is not a host and a port")
    if not head.host:
        head.host = authority  # of HTTP/1.0
        head.fields.insert(0, b"Host: %b\r\n" % authority)
    elif head.host.lower() != authority.lower():
        raise HeadError("Host disagrees with the target")
