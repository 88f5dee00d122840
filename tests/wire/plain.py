"""The grammar of RFC 9112 the plain and slow way: what the parser in use must agree with."""

from __future__ import annotations

import re
from typing import NamedTuple

CHUNKED = "chunked"
UNTIL_CLOSE = "until close"
_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
_FIELDS = rb"((?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*)"
_REQUEST = re.compile(
    rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e\x80-\xff]+) HTTP/1\.([01])\r\n" + _FIELDS
)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: (" + _VALUE + rb"))?\r\n" + _FIELDS)
_AUTHORITY = rb"(?:\[[0-9A-Fa-f:.]+\]|[-A-Za-z0-9._~!$&'()*+,;=%]+)(?::\d{0,5})?"
_ABSOLUTE = re.compile(rb"[A-Za-z][-A-Za-z0-9+.]*://(" + _AUTHORITY + rb")(?:[/?].*)?")
_ONCE = (b"host", b"content-length", b"authorization", b"transfer-encoding")
_ONCE_ASKED = (b"x-model", b"x-model-version", b"x-tenant")
_HOP_BY_HOP = b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade"
_ENDS_HERE = frozenset(
    _HOP_BY_HOP.split()
    + b"http2-settings proxy-authorization x-request-id x-model-version x-tenant".split()
    + b"x-model-decision x-shadow x-forwarded-for x-forwarded-proto x-forwarded-host".split()
)
_ENDS_HERE_BACK = frozenset(
    [*_HOP_BY_HOP.split(), b"x-request-id", b"x-model-version", b"x-model-decision"]
)
_READ = frozenset(
    (*_ENDS_HERE, b"host", b"content-length", b"authorization", b"expect", b"x-model")
)
_READ_BACK = frozenset((*_ENDS_HERE_BACK, b"content-length"))
_UNNOMINABLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"authorization"))
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILERS = re.compile(_FIELDS + rb"\r\n")

Field = tuple[bytes, bytes]


class Plain(NamedTuple):
    """A head: its first line's two parts that matter, what is passed on, the framing, trailers.

    `announced` are the lower-case names in `Trailer`.
    """

    start: tuple[bytes, bytes]
    fields: list[Field]
    framing: int | str
    announced: frozenset[bytes] = frozenset()


def read_request(block: bytes) -> Plain | None:
    """Return what a request's head says, or None where it is to be refused."""
    found = _REQUEST.fullmatch(block)
    if found is None or found[1] == b"CONNECT":
        return None
    method, target, minor, lines = found.groups()
    fields = _split(lines)
    names = [name.lower() for name, _ in fields]
    is_http10 = minor == b"0"
    hosts = [value for name, value in fields if name.lower() == b"host"]
    framing = _framing(fields, 0, is_http10=is_http10)
    if (
        any(names.count(name) > 1 for name in (*_ONCE, *_ONCE_ASKED))
        or not (hosts or is_http10)
        or not all(re.fullmatch(_AUTHORITY, host) for host in hosts)
        or framing is None
    ):
        return None
    passed = _passed(fields, _READ, _ENDS_HERE)
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        is_fine = target.startswith(b"/") or (method, target) == (b"OPTIONS", b"*")
        return Plain((method, target), passed, framing) if is_fine else None
    if not hosts:
        passed.insert(0, (b"Host", absolute[1]))
    elif hosts[0].lower() != absolute[1].lower():
        return None
    return Plain((method, target), passed, framing)


def read_response(block: bytes) -> Plain | None:
    """Return what a response's head says, or None where it is to be refused."""
    found = _RESPONSE.fullmatch(block)
    if found is None:
        return None
    minor, status, reason, lines = found.groups()
    fields = _split(lines)
    framing = _framing(fields, UNTIL_CLOSE, is_http10=minor == b"0")
    if framing is None:
        return None
    is_lengthless = status == b"204" or status < b"200"  # RFC 9110 section 8.6
    ends = _ENDS_HERE_BACK | ({b"content-length"} if is_lengthless else set())
    passed = _passed(fields, _READ_BACK, ends)
    return Plain((status, reason or b""), passed, framing, _listed(fields, b"trailer"))


def decode(coded: bytes) -> tuple[bytes, int] | None:
    """Return the body at the beginning of `coded` and its coded size, None if it is not whole."""
    found = decode_with_trailers(coded)
    return None if found is None else (found[0], found[2])


def decode_with_trailers(coded: bytes) -> tuple[bytes, list[Field], int] | None:
    """Return as `decode`, and between the two all trailers."""
    body, pos = b"", 0
    while (line := _CHUNK_LINE.match(coded, pos)) is not None:
        size, pos = int(line[1], 16), line.end()
        if not size:
            end = _TRAILERS.match(coded, pos)
            return None if end is None else (body, _split(end[1]), end.end())
        if coded[pos + size : pos + size + 2] != b"\r\n":
            return None
        body += coded[pos : pos + size]
        pos += size + 2
    return None


def decoded_so_far(coded: bytes) -> bytes:
    """Return the data of all chunks at the beginning of `coded`, the last one whole or not."""
    body, pos = b"", 0
    while (line := _CHUNK_LINE.match(coded, pos)) is not None:
        size, pos = int(line[1], 16), line.end()
        body += coded[pos : pos + size]
        if not size or coded[pos + size : pos + size + 2] != b"\r\n":
            break
        pos += size + 2
    return body


def _split(lines: bytes) -> list[Field]:
    parted = (line.partition(b":") for line in lines.split(b"\r\n")[:-1])
    return [(name, value.strip(b" \t")) for name, _, value in parted]


def _framing(fields: list[Field], default: int | str, *, is_http10: bool) -> int | str | None:
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1 or (codings and is_http10):
        return None
    if codings:
        return CHUNKED if codings[0].lower() == b"chunked" else None
    if lengths:
        return int(lengths[0]) if re.fullmatch(rb"[0-9]{1,18}", lengths[0]) else None
    return default


def _passed(fields: list[Field], read: frozenset[bytes], ends: frozenset[bytes]) -> list[Field]:
    nominated = _listed(fields, b"connection") - _UNNOMINABLE
    return [
        (name, value)
        for name, value in fields
        if name.lower() not in ends | nominated
        and (name.lower() in read or re.sub(rb"[^0-9a-z]", b"-", name.lower()) not in read)
    ]


def _listed(fields: list[Field], list_name: bytes) -> frozenset[bytes]:
    return frozenset(
        token.strip(b" \t").lower()
        for name, value in fields
        if name.lower() == list_name
        for token in value.split(b",")
    )
