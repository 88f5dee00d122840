"""Whole messages in the bytes of a connection, the plain and slow way of `plain`."""

from __future__ import annotations

from typing import NamedTuple

from tests.wire import plain

_NEVER_TRAILERS = frozenset(
    b"authorization content-encoding content-length content-type host set-cookie".split()
    + b"connection trailer transfer-encoding x-model-version x-request-id".split()
)
_BODILESS = (b"204", b"304")


class Request(NamedTuple):
    """A request without what ends at a proxy; its body is None if that is malformed or cut."""

    start: tuple[bytes, bytes]
    fields: list[plain.Field]
    body: bytes | None


class Beginning(NamedTuple):
    """What heads are there of a response; `at` is where they end."""

    interim: list[plain.Plain]
    head: plain.Plain | None
    at: int


class Response(NamedTuple):
    """A final response and the interim ones before it; `size` is how many bytes they took.

    `framing` is by which the body ended: 0 too where the head tells of a body that is not there.
    """

    interim: list[plain.Plain]
    head: plain.Plain
    framing: int | str
    body: bytes
    trailers: list[plain.Field]
    size: int

    def may_have_body(self, method: bytes) -> bool:
        """Return whether a body may follow, be it an empty one, in answer to `method`."""
        return _may_have_body(self.head, method)

    def passable_trailers(self) -> list[plain.Field]:
        """Return the trailers that were announced and may be trailers."""
        names = self.head.announced - _NEVER_TRAILERS
        return [field for field in self.trailers if field[0].lower() in names]


def read_requests(sent: bytes) -> list[Request]:
    """Return the requests that `sent` begins with, up to one whose head or body is malformed."""
    found: list[Request] = []
    while (end := sent.find(b"\r\n\r\n")) >= 0:
        if sent.startswith(b"\r\n"):
            sent = sent[2:]
            continue
        head = plain.read_request(sent[: end + 2])
        rest = sent[end + 4 :]
        if head is None:
            break
        whole = _read_body(rest, head.framing)
        body, _, size = whole or (None, [], 0)
        found.append(Request(head.start, head.fields, body))
        if body is None:
            break
        sent = rest[size:]
    return found


def begin_response(sent: bytes) -> Beginning:
    """Return the heads that `sent` begins with, up to one that is malformed."""
    interim: list[plain.Plain] = []
    pos = 0
    while (end := sent.find(b"\r\n\r\n", pos)) >= 0:
        head = plain.read_response(sent[pos : end + 2])
        if head is None or head.start[0] == b"101":
            break
        pos = end + 4
        if head.start[0] >= b"200":
            return Beginning(interim, head, pos)
        interim.append(head)
    return Beginning(interim, None, pos)


def read_response(sent: bytes, method: bytes) -> Response | None:
    """Return the response to `method` that `sent`, all of a connection, begins with.

    None where there is none that is well-formed and whole.
    """
    interim, head, at = begin_response(sent)
    if head is None:
        return None
    framing = head.framing if _may_have_body(head, method) else 0
    found = _read_body(sent[at:], framing)
    if found is None:
        return None
    body, trailers, size = found
    return Response(interim, head, framing, body, trailers, at + size)


def body_so_far(sent: bytes) -> bytes:
    """Return what is there of the body of the response that `sent` begins with."""
    _, head, at = begin_response(sent)
    if head is None:
        return b""
    if head.framing == plain.CHUNKED:
        return plain.decoded_so_far(sent[at:])
    return sent[at : at + head.framing if isinstance(head.framing, int) else None]


def _may_have_body(head: plain.Plain, method: bytes) -> bool:
    return method != b"HEAD" and head.start[0] not in _BODILESS


def _read_body(rest: bytes, framing: int | str) -> tuple[bytes, list[plain.Field], int] | None:
    if framing == plain.CHUNKED:
        return plain.decode_with_trailers(rest)
    if isinstance(framing, int):
        return (rest[:framing], [], framing) if len(rest) >= framing else None
    return rest, [], len(rest)
