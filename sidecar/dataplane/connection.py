"""One client connection: parses requests, gives each an `Exchange`, answers in order."""

from __future__ import annotations

import asyncio
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

from sidecar.dataplane.exchange import Exchange
from sidecar.dataplane.flow import PIPELINED, Reading
from sidecar.errors import Code
from sidecar.model.request import RequestHead
from sidecar.runtime.ids import acceptable
from sidecar.wire import fields as wire
from sidecar.wire.fields import REQUEST_FIELDS, FieldKinds
from sidecar.wire.framing import is_chunked_alone

if TYPE_CHECKING:
    from sidecar.dataplane.listener import Listener

LINGER_S: Final = 2.0  # for a client that is still sending when its answer is out (RFC 9112 9.6)
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST
_KINDS = FieldKinds(REQUEST_FIELDS)
_log = logging.getLogger("sidecar.dataplane")


class ClientConnection(asyncio.Protocol):
    """Bytes from a client to exchanges, one at a time; pipelined requests wait their turn."""

    transport: asyncio.Transport
    reading: Reading

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._plane = listener.plane
        self._parser = HttpRequestParser(self)
        self._current: Exchange | None = None  # being answered
        self._parsed: Exchange | None = None  # whose body is being parsed
        self._waiting: deque[Exchange] = deque()
        self._is_deaf = False  # nothing more is parsed: the last answer is on its way
        self._is_client_full = False
        self._is_in_head = False
        self._read_bytes = 0  # of the read in hand
        self._head_bytes = 0  # of earlier reads that the head in hand began in
        self._target = b""
        self._fields: list[bytes] = []
        self._special: dict[int, bytes] = {}  # by kind, the last value
        self._repeated = 0  # kinds that came twice, as bits
        self._is_rare = False  # whether a field needs a closer look
        self.read_s = 0.0  # monotonic time of the read in hand
        self.deadline_s = float("inf")
        self.forwarded_lines = b""

    # --- what exchanges use -------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write response bytes."""
        self.transport.write(data)

    def cut(self) -> None:
        """End the connection so that the client sees a failure and not the end of a body."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._is_deaf = True
        self.transport.abort()

    def on_exchange_end(self, exchange: Exchange) -> None:
        """Go on with the next request, or close."""
        if exchange is not self._current:
            return
        self._current = None
        if not exchange.keeps_client:
            self._close(lingers=not exchange.is_request_done)
        elif self._waiting:
            self._begin_next()
        elif self._plane.is_draining:
            self.transport.close()
        else:
            self.deadline_s = self._plane.monotonic_s() + self._plane.timeouts.idle_s

    # --- what the listener uses ---------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether no request is in hand, not even the beginning of one."""
        return self._current is None and not self._is_in_head

    def on_deadline(self) -> None:
        """Enforce the timeout of whatever is being waited for."""
        self.deadline_s = float("inf")
        if self._current is not None:
            self._plane.metrics.count("rmv_timeouts_total", "phase", "exchange")
            self._current.on_timeout()
        elif self._is_in_head and not self._is_deaf:
            self._plane.metrics.count("rmv_timeouts_total", "phase", "head")
            self._refuse(Code.REQUEST_TIMEOUT, "the request's head did not arrive in time")
            self._after_read()
        else:
            self.transport.abort() if self._is_deaf else self.transport.close()

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the listener; over its limit the client is told so and left."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.reading = Reading(self.transport)
        peer = transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else "unix"
        self.forwarded_lines = (
            f"X-Forwarded-For: {address}\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: ".encode()
        )
        self.deadline_s = self._plane.monotonic_s() + self._plane.timeouts.idle_s
        if not self._listener.admit(self):
            self._refuse(Code.OVERLOADED, "too many connections")
            self._after_read()

    def data_received(self, data: bytes) -> None:
        """Parse, then flush once what this read amounts to."""
        if self._is_deaf:
            return
        self.read_s = self._plane.monotonic_s()
        self._read_bytes = len(data)
        if self._current is not None and not self._current.is_request_done:
            self.deadline_s = self.read_s + self._plane.timeouts.body_idle_s
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._is_deaf = True  # its exchange was refused in on_headers_complete
        except HttpParserError as error:
            self._on_malformed(error)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._plane.limits.head_bytes:
                self._refuse(Code.HEAD_TOO_LARGE, self._head_limit())
        self._after_read()

    def eof_received(self) -> bool:
        """Keep the write side open while an answer is owed to a client that half-closed."""
        self._is_deaf = True
        last = self._waiting[-1] if self._waiting else self._current
        if last is None or not last.is_request_done:
            return False
        last.keeps_client = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything: nobody is left to answer."""
        self._is_deaf = True
        self._listener.leave(self)
        current, self._current = self._current, None
        self._waiting.clear()
        if current is not None:
            current.on_client_gone()

    def pause_writing(self) -> None:
        """Stop reading the upstream: the client does not keep up."""
        self._is_client_full = True
        if self._current is not None and self._current.upstream is not None:
            self._current.upstream.pause()

    def resume_writing(self) -> None:
        """Read the upstream again."""
        self._is_client_full = False
        if self._current is not None and self._current.upstream is not None:
            self._current.upstream.resume()

    # --- httptools callbacks ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start on a head."""
        self._is_in_head = True
        self._head_bytes = 0
        self._target = b""
        self._fields = []
        self._special = {}
        self._repeated = 0
        self._is_rare = False
        if self._current is None:
            self.deadline_s = self.read_s + self._plane.timeouts.head_s

    def on_url(self, url: bytes) -> None:
        """Collect the target; it may come in pieces."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep an end-to-end field, and what the sidecar itself reads."""
        if not self._is_in_head:  # a trailer: it is not passed on, and decides nothing
            return
        kind = _KINDS[name]
        if kind:
            special = self._special
            if kind in special:
                self._repeated |= 1 << kind
                self._is_rare = True
                if kind == wire.CONNECTION:
                    value = special[kind] + b"," + value
            special[kind] = value
            if kind > wire.LAST_PASSED:
                self._is_rare |= kind >= wire.FIRST_RARE
                return
        self._fields += (name, b": ", value, b"\r\n")

    def on_headers_complete(self) -> None:
        """Give the request an exchange; begin it if none is in hand."""
        self._is_in_head = False
        look = self._special.get
        request_id = look(wire.REQUEST_ID)
        if request_id is None or not acceptable(request_id):
            request_id = self._plane.make_id()
        head = RequestHead(
            self._parser.get_method(),
            self._target,
            self._fields,
            look(wire.HOST, b""),
            look(wire.AUTHORIZATION),
            request_id,
            look(wire.ASKED_MODEL),
            look(wire.ASKED_VERSION),
            look(wire.CLAIMED_TENANT),
        )
        exchange = self._parsed = Exchange(self, self._plane, head)
        connection = look(wire.CONNECTION)
        keeps = self._parser.should_keep_alive()
        if connection is not None or not keeps:
            exchange.keeps_client = keeps
            exchange.is_http10 = self._parser.get_http_version() != "1.1"
            if connection is not None:
                wire.drop_nominated(self._fields, connection)
        if wire.CONTENT_LENGTH in self._special:
            exchange.has_body = True
        elif wire.TRANSFER_ENCODING in self._special:
            exchange.has_body = exchange.is_chunked = True
        self._accept(exchange, self._find_fault(exchange))

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body on."""
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
        head, limits = exchange.head, self._plane.limits
        if not head.host and not exchange.is_http10:
            return Code.MALFORMED_REQUEST, "Host is missing"
        if head.target[:1] != b"/" and head.target != b"*":
            return Code.NOT_IMPLEMENTED, "only targets that start with / are supported"
        if len(head.fields) > 4 * limits.headers:
            return Code.HEAD_TOO_LARGE, f"the head has over {limits.headers} fields"
        if self._head_bytes + self._read_bytes > limits.head_bytes:  # else it cannot be
            head_bytes = len(head.target) + sum(map(len, head.fields))
            if head_bytes > limits.head_bytes:
                return Code.HEAD_TOO_LARGE, self._head_limit()
        return self._find_rare_fault() if self._is_rare else None

    def _find_rare_fault(self) -> tuple[Code, str] | None:
        special = self._special
        if self._repeated & 1 << wire.HOST:
            return Code.MALFORMED_REQUEST, "Host is repeated"
        coding = special.get(wire.TRANSFER_ENCODING)
        if coding is not None and (
            self._repeated & 1 << wire.TRANSFER_ENCODING or not is_chunked_alone(coding)
        ):
            return Code.MALFORMED_REQUEST, "Transfer-Encoding is not exactly chunked"
        if wire.UPGRADE in special and self._parser.should_upgrade():
            return Code.NOT_IMPLEMENTED, "upgrades are not supported yet"
        if wire.TRAILER in special:
            return Code.NOT_IMPLEMENTED, "request trailers are not supported yet"
        return None

    def _head_limit(self) -> str:
        return f"the head is over {self._plane.limits.head_bytes} bytes"

    def _accept(self, exchange: Exchange, fault: tuple[Code, str] | None) -> None:
        if fault is not None:
            exchange.keeps_client = False
            exchange.refuse(*fault)
        if self._current is not None:
            self._waiting.append(exchange)
            self.reading.hold(PIPELINED)
            return
        self._current = exchange
        if fault is None:
            exchange.begin()

    def _begin_next(self) -> None:
        exchange = self._current = self._waiting.popleft()
        if not self._waiting:
            self.reading.release(PIPELINED)
        if exchange.refusal is None:
            exchange.begin()
        exchange.flush()

    def _after_read(self) -> None:
        current = self._current
        if current is not None:
            current.flush()

    def _on_malformed(self, error: HttpParserError) -> None:
        """Refuse what llhttp refuses: the connection's framing is lost from here on."""
        cause = error.__context__
        if cause is not None:
            _log.error("request callback failed", exc_info=cause)  # a fault of ours
        if self._is_deaf:
            return
        parsed, self._parsed = self._parsed, None
        if isinstance(error, HttpParserInvalidMethodError):
            self._refuse(Code.NOT_IMPLEMENTED, "the method is not known here")
        elif parsed is None:
            self._refuse(Code.MALFORMED_REQUEST, str(error))
        else:
            self._is_deaf = True
            if parsed is self._current:
                parsed.fail(Code.MALFORMED_REQUEST, str(error))
            else:
                parsed.refuse(Code.MALFORMED_REQUEST, str(error))

    def _refuse(self, code: Code, detail: str) -> None:
        """Answer, in its turn, a request that has no whole head; hear nothing after it."""
        self._is_deaf = True
        self._is_in_head = False
        head = RequestHead(b"", b"", [], request_id=self._plane.make_id())
        exchange = Exchange(self, self._plane, head)
        self._accept(exchange, (code, detail))

    def _close(self, *, lingers: bool) -> None:
        """Close when all is written; `lingers` while the client may still be sending.

        A socket closed with unread bytes resets, and the client may lose the answer
        (RFC 9112 section 9.6): so the rest is read and dropped for a while.
        """
        self._is_deaf = True
        if not lingers or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.reading.release_all()
        self.deadline_s = self._plane.monotonic_s() + LINGER_S
