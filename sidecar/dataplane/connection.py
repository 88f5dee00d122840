"""One client connection: parses requests, gives each an `Exchange`, answers in order."""

from __future__ import annotations

import logging
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from sidecar.dataplane.client import Client
from sidecar.dataplane.exchange import Exchange
from sidecar.dataplane.flow import PIPELINED, UNCONNECTED, UPSTREAM_FULL, Reading
from sidecar.errors import Code
from sidecar.model.request import RequestHead
from sidecar.runtime.ids import acceptable
from sidecar.wire import fields as wire
from sidecar.wire.fields import REQUEST_FIELDS, FieldKinds
from sidecar.wire.framing import is_chunked_alone

if TYPE_CHECKING:
    from sidecar.dataplane.client import Clients
    from sidecar.dataplane.plane import Plane
    from sidecar.runtime.transport import Transport

LINGER_S: Final = 2.0  # for a client that is still sending when its answer is out (RFC 9112 9.6)
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST
FRAGMENT: Final = 35  # "#"; as a byte: to look for bytes of length 1 takes 20 times as long
_VERSIONS: Final = frozenset(("1.1", "1.0"))  # llhttp lets 0.9 and 2.0 through as well
_KINDS: Final = FieldKinds(REQUEST_FIELDS)
_log = logging.getLogger("sidecar.dataplane")


class ClientConnection(Client):
    """Bytes from a client to exchanges, one at a time; pipelined requests wait their turn.

    An `asyncio.Protocol` by shape; see `UpstreamConnection` for why it does not inherit.
    """

    def __init__(self, plane: Plane, clients: Clients, peer: str | None = None) -> None:
        """Serve `peer`; None is for who is at the other end of the socket."""
        self._plane = plane
        self._peer = peer
        self._clients = clients
        self._parser = HttpRequestParser(self)
        self._current: Exchange | None = None  # being answered
        self._parsed: Exchange | None = None  # whose body is being parsed
        self._waiting: deque[Exchange] = deque()
        self._is_beginning = False  # of what waits, one after the other
        self._is_deaf = False  # nothing more is parsed: the last answer is on its way
        self.is_full = False
        self._read_bytes = 0  # of the read in hand
        # The head in hand: None before its first byte and from its last on.
        self._head: RequestHead | None = None
        self._head_bytes = 0  # of it, in earlier reads
        self._left_out_bytes = 0  # of it, in fields that are not passed on
        self._is_head_new = False  # whether it began in the read in hand
        self._connection_field = b""
        self._is_odd = self._is_chunked = self._has_body = self._has_host = False
        self._fault: tuple[Code, str] | None = None
        self._framing_bytes = 0  # of a body, since its last byte of content
        self.read_s = 0.0  # monotonic time of the read in hand
        self.deadline_s = float("inf")
        self.forwarded_lines = b""

    # --- what exchanges use -------------------------------------------------------------------

    def cut(self) -> None:
        """End the connection so that the client sees a failure and not the end of a body."""
        raw = self.transport.get_extra_info("socket")
        if hasattr(raw, "setsockopt"):  # uvloop's is not a `socket.socket`
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._is_deaf = True
        self.transport.abort()

    def on_exchange_end(self, now_s: float) -> None:
        """Go on with the next request, or close; the one in hand ended at `now_s`."""
        exchange, self._current = self._current, None
        if exchange is None:
            return
        self.reading.release(UNCONNECTED | UPSTREAM_FULL)
        if not exchange.keeps_client:
            self._close(lingers=not exchange.is_request_done)
        elif self._waiting:
            self.deadline_s = now_s + self._plane.timeouts.body_idle_s  # should the client be full
            self._begin_waiting(now_s)
        else:
            timeouts = self._plane.timeouts
            idle_s = timeouts.drain_idle_s if self._plane.is_draining else timeouts.idle_s
            self.deadline_s = now_s + (idle_s if self._head is None else timeouts.head_s)

    # --- what the listener uses ---------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether no request is in hand, not even the beginning of one."""
        return self._current is None and self._head is None

    def on_deadline(self) -> None:
        """Enforce the timeout of whatever is being waited for."""
        self.deadline_s = float("inf")
        if self._current is not None:
            self._plane.metrics.count("rmv_timeouts_total", "phase", "exchange")
            self._current.on_timeout()
        elif self._is_deaf or self.is_full:
            self.transport.abort()  # it does not take what it was sent
        elif self._head is not None:
            self._plane.metrics.count("rmv_timeouts_total", "phase", "head")
            self._refuse(Code.REQUEST_TIMEOUT, "the request's head did not arrive in time")
        else:
            self._close(lingers=True)  # its next request may be on its way

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: object) -> None:
        """Join the listener; over its limit the client is told so and left."""
        self.transport = cast("Transport", transport)
        self.reading = Reading(self.transport)
        peer = self.transport.get_extra_info("peername")
        address = self._peer or (peer[0] if isinstance(peer, tuple) else "unix")
        scheme = "https" if self.transport.get_extra_info("ssl_object") else "http"
        self.forwarded_lines = (
            f"X-Forwarded-For: {address}\r\nX-Forwarded-Proto: {scheme}\r\n"
            "X-Forwarded-Host: "
        ).encode()
        self.deadline_s = self._plane.monotonic_s() + self._plane.timeouts.idle_s
        self._plane.metrics.count("rmv_connections_total")
        if not self._clients.admit(self):
            self._plane.metrics.count("rmv_limits_hit_total", "limit", "connections")
            self._refuse(Code.OVERLOADED, "too many connections")

    def data_received(self, data: bytes) -> None:
        """Parse, then flush once what this read amounts to."""
        if self._is_deaf:
            return
        self.read_s = self._plane.monotonic_s()
        self._read_bytes = len(data)
        if self._current is not None and not self._current.is_request_done:
            self.deadline_s = self.read_s + self._plane.timeouts.body_idle_s
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._is_deaf = True  # its exchange was refused in on_headers_complete
            last = self._waiting[-1] if self._waiting else self._current
            if last is not None:
                last.is_request_done = False  # whatever follows is not parsed
        except HttpParserError as error:
            self._on_malformed(error)
        if self._head is not None or self._parsed is not None:
            self._measure(self._head)
        current = self._current
        if current is not None:
            current.flush()

    def eof_received(self) -> bool:
        """Take a client that sends no more for gone, as nginx and Envoy do.

        One that gave up looks the same as one that only closed its sending side, and is far more
        common; the upstream must not go on working for it.
        """
        self._is_deaf = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything: nobody is left to answer."""
        self._is_deaf = True
        self._clients.leave(self)
        current, self._current = self._current, None
        self._waiting.clear()
        if current is not None:
            current.on_client_gone()

    def pause_writing(self) -> None:
        """Stop reading the upstream: the client does not keep up."""
        self.is_full = True
        if self._current is not None and self._current.upstream is not None:
            self._current.upstream.pause()

    def resume_writing(self) -> None:
        """Read the upstream again, or begin what waited for this."""
        self.is_full = False
        if self._current is None:
            self._begin_waiting(self._plane.monotonic_s())
        elif self._current.upstream is not None:
            self._current.upstream.resume()

    # --- httptools callbacks ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start on a head."""
        self._head = RequestHead(b"", b"", [])
        self._head_bytes = self._left_out_bytes = 0
        self._is_head_new = True
        self._connection_field = b""
        self._is_odd = self._is_chunked = self._has_body = self._has_host = False
        self._fault = None
        if self._current is None:
            self.deadline_s = self.read_s + self._plane.timeouts.head_s

    def on_url(self, url: bytes) -> None:
        """Collect the target; it may come in pieces."""
        if self._head is not None:
            self._head.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep an end-to-end field, and what the sidecar itself reads."""
        head = self._head
        if head is None:  # a trailer: it is not passed on, and decides nothing
            return
        kind = _KINDS.of(name)
        if kind:
            if kind == wire.AUTHORIZATION and head.authorization is None:
                head.authorization = value
            elif kind == wire.CONTENT_LENGTH:
                self._has_body = True  # llhttp holds it to digits, once, never beside chunked
                limit = self._plane.max_body_bytes
                if limit is not None and int(value) > limit:
                    self._fault = Code.BODY_TOO_LARGE, f"the body is over {limit} bytes"
            elif kind == wire.HOST and not self._has_host:
                self._has_host = True
                head.host = value.rstrip()
            elif not self._is_passed(head, kind, value):
                self._left_out_bytes += len(name) + len(value) + 4
                return
        head.fields.extend((name, b": ", value, b"\r\n"))

    def _is_passed(self, head: RequestHead, kind: int, value: bytes) -> bool:  # noqa: C901, PLR0912 -- a table
        """Look at a field that is rarer; return whether it is passed on."""
        value = value.rstrip()  # llhttp leaves the space after a value in it
        if kind == wire.REQUEST_ID:
            head.request_id = value if acceptable(value) else b""
        elif kind == wire.ASKED_VERSION:
            self._refuse_second(head.asked_version, "X-Model-Version")
            head.asked_version = value
        elif kind == wire.ASKED_MODEL:
            self._refuse_second(head.asked_model, "X-Model")
            head.asked_model = value
        elif kind == wire.CLAIMED_TENANT:
            self._refuse_second(head.claimed_tenant, "X-Tenant")
            head.claimed_tenant = value
        elif kind == wire.CONNECTION:
            self._connection_field += b"," + value if self._connection_field else value
        elif kind == wire.TRANSFER_ENCODING:
            if self._is_chunked or not is_chunked_alone(value):
                self._fault = Code.MALFORMED_REQUEST, "Transfer-Encoding is not exactly chunked"
            self._is_chunked = self._has_body = True
        elif kind == wire.UPGRADE:
            self._is_odd = True
        elif kind == wire.TRAILER:
            self._fault = Code.NOT_IMPLEMENTED, "request trailers are not supported yet"
        elif kind == wire.HOST:
            self._fault = Code.MALFORMED_REQUEST, "Host is repeated"
        elif kind == wire.AUTHORIZATION:  # a container may believe the other one
            self._fault = Code.MALFORMED_REQUEST, "Authorization is repeated"
        return kind <= wire.LAST_PASSED

    def _refuse_second(self, first: bytes | None, name: str) -> None:
        if first is not None:
            self._fault = Code.MALFORMED_REQUEST, f"{name} is repeated"

    def on_headers_complete(self) -> None:
        """Give the request an exchange; begin it if none is in hand."""
        head, parser, plane = self._head, self._parser, self._plane
        self._head = None
        if head is None or self._is_deaf:  # deaf: the last answer was given within this read
            return
        head.method = parser.get_method()
        if not head.request_id:
            head.request_id = plane.make_id()
        exchange = self._parsed = Exchange(self, plane, head)
        exchange.has_body = self._has_body
        exchange.is_chunked = self._is_chunked
        keeps = parser.should_keep_alive()
        if self._connection_field or not keeps:
            exchange.keeps_client = keeps
            version = parser.get_http_version()
            exchange.is_http10 = version == "1.0"
            if version not in _VERSIONS:
                self._fault = Code.MALFORMED_REQUEST, "the version is neither HTTP/1.1 nor HTTP/1.0"
            wire.drop_nominated(head.fields, self._connection_field)
        fault = self._fault or self._find_fault(exchange)
        if fault is not None:
            exchange.keeps_client = False
            exchange.refuse(*fault)
        self._accept(exchange)

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body on."""
        self._framing_bytes = 0
        if self._parsed is not None:
            self._parsed.on_body(data)

    def on_message_complete(self) -> None:
        """End the request."""
        parsed, self._parsed = self._parsed, None
        if parsed is not None:
            parsed.on_request_end()

    # --- inside -------------------------------------------------------------------------------

    def _find_fault(self, exchange: Exchange) -> tuple[Code, str] | None:
        """Return what makes a parsed head unfit to be passed on; llhttp has seen to its syntax."""
        head, plane = exchange.head, self._plane
        if not head.host and (self._has_host or not exchange.is_http10):
            return Code.MALFORMED_REQUEST, "Host is missing"
        target = head.target
        if (
            head.method == b"CONNECT"
            or (target[:1] != b"/" and target != b"*")
            or FRAGMENT in target
        ):
            return _target_fault(head)
        if self._is_odd and self._parser.should_upgrade():
            return Code.NOT_IMPLEMENTED, "upgrades are not supported yet"
        if len(head.fields) > plane.max_field_parts:
            return Code.HEAD_TOO_LARGE, f"the head has over {plane.limits.headers} fields"
        limit = plane.limits.head_bytes
        if self._head_bytes + self._read_bytes > limit and self._size(head) > limit:
            return Code.HEAD_TOO_LARGE, self._head_limit()
        return None

    def _size(self, head: RequestHead) -> int:
        return len(head.target) + sum(map(len, head.fields)) + self._left_out_bytes

    def _measure(self, head: RequestHead | None) -> None:
        """Refuse an unfinished head, or framing of a body, that is too large already."""
        limit = self._plane.limits.head_bytes
        if head is None:
            if self._framing_bytes > limit:
                detail = f"trailers or an extension of a chunk are over {limit} bytes"
                self._spoil(Code.HEAD_TOO_LARGE, detail)
            return
        # What came before the head in its first read is not part of it.
        self._head_bytes += self._size(head) if self._is_head_new else self._read_bytes
        self._is_head_new = False
        if self._head_bytes > limit:
            self._refuse(Code.HEAD_TOO_LARGE, self._head_limit())

    def _head_limit(self) -> str:
        return f"the head is over {self._plane.limits.head_bytes} bytes"

    def _accept(self, exchange: Exchange) -> None:
        if self._current is not None or self.is_full:
            self._waiting.append(exchange)
            self.reading.hold(PIPELINED)
            return
        self._current = exchange
        if exchange.refusal is None:
            exchange.begin()

    def _begin_waiting(self, now_s: float) -> None:
        """Begin the next request, and those after it while each is answered at once.

        None begins while the client does not take what it was sent: answers would pile up.
        A loop, for a request that is refused ends, and so comes here again, within `flush`.
        """
        if self._is_beginning:
            return
        self._is_beginning = True
        while self._waiting and self._current is None and not self.is_full:
            exchange = self._current = self._waiting.popleft()
            self.read_s = now_s  # its time begins to count now, however long it has waited
            if not self._waiting:
                self.reading.release(PIPELINED)
            if exchange.refusal is None:
                exchange.begin()
            exchange.flush()
        self._is_beginning = False

    def _on_malformed(self, error: HttpParserError) -> None:
        """Refuse what llhttp refuses: the connection's framing is lost from here on."""
        cause = error.__context__
        if cause is not None:
            _log.error("request callback failed", exc_info=cause)  # a fault of ours
        if self._is_deaf:
            return
        if isinstance(error, HttpParserInvalidMethodError):
            self._spoil(Code.NOT_IMPLEMENTED, "the method is not known here")
        else:
            self._spoil(Code.MALFORMED_REQUEST, str(error))

    def _spoil(self, code: Code, detail: str) -> None:
        """Refuse the request whose head or body is being parsed; hear nothing after it."""
        parsed, self._parsed = self._parsed, None
        self._is_deaf = True
        if parsed is None:
            self._refuse(code, detail)
        elif parsed is self._current:
            parsed.fail(code, detail)
        else:
            parsed.refuse(code, detail)

    def _refuse(self, code: Code, detail: str) -> None:
        """Answer, in its turn, a request that has no whole head; hear nothing after it."""
        self._is_deaf = True
        self._head = None
        head = RequestHead(b"", b"", [], request_id=self._plane.make_id())
        exchange = Exchange(self, self._plane, head)
        exchange.keeps_client = False
        exchange.refuse(code, detail)
        self._accept(exchange)
        if self._current is exchange:
            exchange.flush()

    def _close(self, *, lingers: bool) -> None:
        """Close when all is written; `lingers` while the client may still be sending.

        A socket closed with unread bytes resets, and the client may lose the answer
        (RFC 9112 section 9.6): so the rest is read and dropped for a while.
        """
        self._is_deaf = True
        self._waiting.clear()
        if self.transport.is_closing():  # it was cut
            return
        now_s = self._plane.monotonic_s()
        if not lingers or not self.transport.can_write_eof():
            self.deadline_s = now_s + self._plane.timeouts.body_idle_s  # should it not read that
            self.transport.close()
            return
        self.transport.write_eof()
        self.reading.release_all()
        self.deadline_s = now_s + LINGER_S


def _target_fault(head: RequestHead) -> tuple[Code, str]:
    if head.method != b"CONNECT" and FRAGMENT in head.target:
        return Code.MALFORMED_REQUEST, "the target has a fragment"  # RFC 9112 section 3.2
    return Code.NOT_IMPLEMENTED, "CONNECT, or a target that does not start with /"
