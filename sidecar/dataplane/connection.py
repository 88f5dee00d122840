"""One client connection: parses requests, gives each an `Exchange`, answers in order."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final, cast

from sidecar.dataplane.client import Client
from sidecar.dataplane.exchange import Exchange
from sidecar.dataplane.flow import PIPELINED, UNCONNECTED, UPSTREAM_FULL, Reading
from sidecar.errors import Code
from sidecar.model.request import RequestHead
from sidecar.runtime import faults
from sidecar.runtime.inbox import LONG_BYTES, MAX_UNWRITTEN_BYTES, BufferedReads
from sidecar.runtime.tcp import Socket, has_failed, has_left, has_taken_all
from sidecar.wire import fields as wire
from sidecar.wire.chunks import ChunkedBody
from sidecar.wire.framing import CHUNKED
from sidecar.wire.head import HEAD_END, HeadError
from sidecar.wire.pieces import cut
from sidecar.wire.request import judge_beginning, read_request

if TYPE_CHECKING:
    from sidecar.dataplane.client import Clients, Taker
    from sidecar.dataplane.plane import Plane
    from sidecar.runtime.transport import Transport

CR: Final = 13  # as a byte: to look for bytes of length 1 takes longer
LINGER_S: Final = 2.0  # for a client that is still sending when its answer is out (RFC 9112 9.6)
MAX_REQUESTS: Final = 32  # begun in one turn of the loop
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST
_NOT_TUNNELED: Final = frozenset((b"h2c", b"h2"))  # requests in it would pass undecided


class ClientConnection(Client):
    """Bytes from a client to exchanges, one at a time; what comes meanwhile waits unparsed.

    An `asyncio.Protocol` by shape; see `UpstreamConnection` for why it does not inherit.
    """

    def __init__(self, plane: Plane, clients: Clients, peer: str | None = None) -> None:
        """Serve a client; `peer` is its address where the socket's is another's.

        Empty it is not known, and no network that is trusted has it.
        """
        self._plane = plane
        self._clients = clients
        self._max_head_bytes = plane.limits.head_bytes
        self._peer = peer
        self._current: Exchange | None = None
        self._pending = b""  # bytes that are not parsed: a part of a head, or pipelined requests
        self._judged = 0  # of those, how many may begin a head
        self._is_head_begun = False  # a part of a head is here, and its time runs
        self._is_tired = False  # what is left of a read waits for its turn
        self._is_parsing = False
        self._is_deaf = False  # nothing more is parsed: the last answer is on its way
        self._ends_s = 0.0  # until then it may take its last answer
        self._is_body_due = False  # of the exchange in hand
        self.left = 0  # bytes of a body with a length
        self._is_buffered = False  # reads come by `take_read`
        self._paced = 0  # bytes of a body since its deadline was put off
        self._chunks: ChunkedBody | None = None
        self._tunnel: Taker | None = None
        self.is_full = False
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
        self._is_body_due = False
        self.reading.release(UNCONNECTED | UPSTREAM_FULL)
        timeouts = self._plane.timeouts
        if not exchange.keeps_client:
            self._close(lingers=not exchange.is_request_done)
        elif self._pending:
            self.deadline_s = now_s + timeouts.body_idle_s  # should the client be full
            self._go_on(now_s)
        else:
            idle_s = timeouts.drain_idle_s if self._plane.is_draining else timeouts.idle_s
            self.deadline_s = now_s + idle_s

    def open_tunnel(self, taker: Taker) -> None:
        """Hand all bytes from here on to `taker`, those that are here already included."""
        self._tunnel = taker
        early, self._pending = self._pending, b""
        if early:
            taker.on_client_data(early)
        self.reading.release(PIPELINED)

    # --- what the listener uses ---------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether no request is in hand, not even the beginning of one."""
        return self._current is None and not self._is_head_begun

    @property
    def is_tunnel(self) -> bool:
        """Whether it speaks another protocol by now."""
        return self._tunnel is not None

    def notice_leaving(self) -> None:
        """Give up if the client has left while it was not read, so that nobody was told.

        Of a tunnel one half may have closed, and what it has sent be still to be passed on.
        """
        raw = self.transport.get_extra_info("socket")
        is_gone = has_left if self._tunnel is None else has_failed
        if raw is not None and is_gone(cast("Socket", raw)):
            self._is_deaf = True
            self.transport.abort()

    def on_deadline(self) -> None:
        """Enforce the timeout of whatever is being waited for."""
        self.deadline_s = float("inf")
        if self._current is not None:
            self._current.on_timeout()
        elif self._is_deaf or self.is_full:
            self._on_late()
        elif self._is_head_begun:
            self._plane.metrics.count("rmv_timeouts_total", "phase", "head")
            self._refuse(Code.REQUEST_TIMEOUT, "the request's head did not arrive in time")
        else:
            if not self._plane.is_draining:
                self._plane.metrics.count("rmv_timeouts_total", "phase", "idle")
            self._close(lingers=True)  # its next request may be on its way

    def on_drain_over(self) -> None:
        """End what is in hand: the sidecar stops, and waits no longer."""
        if self._current is not None and self._tunnel is None:
            self._current.fail(Code.DRAINED, "the sidecar stopped before the answer was whole")
        else:
            self._let_go()

    def on_fault(self) -> None:
        """End the connection after a fault; who has heard nothing of an answer is told of it."""
        self._is_deaf = True
        self._pending = b""
        current = self._current
        if current is not None and self._tunnel is None and not current.is_ended:
            try:
                current.keeps_client = False
                current.fail(Code.SIDECAR_FAULT, "an error that nobody foresaw")
            except Exception as error:  # noqa: BLE001 -- then without a word
                faults.note("client", error)
            if self._current is None:  # that has closed it
                return
        self._drop(current)
        self.transport.abort()

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: object) -> None:
        """Join the listener; over its limit the client is told so and left."""
        self.transport = cast("Transport", transport)
        try:
            self.reading = Reading(self.transport)
            address = _address(self.transport)
            callers = self._plane.callers
            if callers is not None:
                addresses = [address] if self._peer is None else [address, self._peer]
                self.caller = callers.of(self.transport.get_extra_info("peercert"), addresses)
            scheme = "http"
            if self.transport.get_extra_info("ssl_object") is not None:
                scheme = "https"
                self.transport.set_write_buffer_limits(MAX_UNWRITTEN_BYTES)
            self.forwarded_lines = (
                f"X-Forwarded-For: {self._peer or address}\r\n"
                f"X-Forwarded-Proto: {scheme}\r\nX-Forwarded-Host: "
            ).encode()
            self.deadline_s = self._plane.monotonic_s() + self._plane.timeouts.idle_s
            self._plane.metrics.count("rmv_connections_total")
            if not self._clients.admit(self):
                self._plane.metrics.count("rmv_limits_hit_total", "limit", "connections")
                self._refuse(Code.OVERLOADED, "too many connections")
        except Exception as error:  # noqa: BLE001 -- whatever it is, nothing may hang for it
            self._break(error)

    def data_received(self, data: bytes) -> None:
        """Parse, and hand each request on once for what this read amounts to."""
        if self._is_deaf:
            return
        try:
            self.read_s = self._plane.monotonic_s()
            if self._tunnel is not None:
                self._tunnel.on_client_data(data)
                return
            if self._pending:
                data = self._pending + data
                self._pending = b""
            self._parse(data)
        except Exception as error:  # noqa: BLE001 -- as above
            self._break(error)

    def eof_received(self) -> bool:
        """Take a client that sends no more for gone, as nginx and Envoy do.

        One that gave up looks the same as one that only closed its sending side, and is far more
        common; the upstream must not go on working for it. In a tunnel halves close apart.
        """
        try:
            if self._tunnel is not None:
                return self._tunnel.on_client_half_close()
        except Exception as error:  # noqa: BLE001 -- as above
            self._break(error)
        self._is_deaf = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything: nobody is left to answer."""
        self._is_deaf = True
        self._clients.leave(self)
        current, self._current = self._current, None
        self._pending = b""
        self._tunnel = None
        try:
            # What is no error of the network is one of a call that has no guard here.
            if current is not None and (exc is None or isinstance(exc, OSError)):
                current.on_client_gone()
                return
        except Exception as error:  # noqa: BLE001 -- as above
            faults.note("client", error)
        self._drop(current)

    def pause_writing(self) -> None:
        """Stop reading the upstream: the client does not keep up."""
        try:
            self.is_full = True
            if self._current is not None and self._current.upstream is not None:
                self._current.upstream.pause()
        except Exception as error:  # noqa: BLE001 -- as above
            self._break(error)

    def resume_writing(self) -> None:
        """Read the upstream again, or begin what waited for this."""
        try:
            self.is_full = False
            if self._current is None:
                self._go_on(self._plane.monotonic_s())
            elif self._current.upstream is not None:
                self._current.upstream.resume()
        except Exception as error:  # noqa: BLE001 -- as above
            self._break(error)

    # --- inside -------------------------------------------------------------------------------

    def _break(self, error: Exception) -> None:
        faults.note("client", error)
        self.on_fault()

    def _drop(self, current: Exchange | None) -> None:
        """Let go of what is in hand, whatever state a fault has left it in."""
        self._current = self._tunnel = None
        try:
            if current is not None:
                current.give_up()
        except Exception as error:  # noqa: BLE001 -- as above
            faults.note("client", error)

    def _parse(self, data: bytes) -> None:
        """Take requests from `data` until one has to be waited for, and keep the rest.

        A loop, for a request that is refused ends, and so comes here again, within `flush`.
        No request begins while the client does not take what it was sent: answers would pile up.
        """
        self._is_parsing = True
        pos, size, begun = 0, len(data), 0
        while not self._is_deaf and begun < MAX_REQUESTS:
            current = self._current
            if current is None:
                pos = _after_blank_lines(data, pos)
                end = -1 if self.is_full else data.find(HEAD_END, pos)
                if end < 0 or end + 4 - pos > self._max_head_bytes:
                    break
                current = self._begin(data[pos : end + 2])
                begun += 1
                pos = end + 4
            if self._is_body_due and pos < size:
                pos = self._take_body(current, data, pos)
            current.flush()
            if self._current is not None:
                break
        self._is_parsing = False
        if self._is_deaf or pos >= size:
            return
        if self._is_body_due or (self._current is None and begun >= MAX_REQUESTS):
            self._tire(data[pos:])
        else:
            self._rest(data[pos:])

    def _tire(self, rest: bytes) -> None:
        """Leave the rest for a turn of its own."""
        self._pending = rest
        self.reading.hold(PIPELINED)
        if not self._is_tired:
            self._is_tired = True
            self._plane.turns.ask(self)

    def on_turn(self) -> None:
        """Go on with what was too much for one turn of the loop."""
        self._is_tired = False
        if self._is_deaf or not self._pending or self._is_parsing:
            return
        now_s = self._plane.monotonic_s()
        if self._is_body_due:
            data, self._pending = self._pending, b""
            self.read_s = now_s
            self.reading.release(PIPELINED)
            self._parse(data)
        elif self._current is None:
            self._go_on(now_s)

    def _go_on(self, now_s: float) -> None:
        """Parse what has waited."""
        if self._is_parsing or not self._pending or self.is_full or self._is_head_begun:
            return
        data, self._pending = self._pending, b""
        self.read_s = now_s  # its time begins to count now, however long it has waited
        self.reading.release(PIPELINED)
        self._parse(data)

    def _begin(self, block: bytes) -> Exchange:
        """Give a request its exchange, which begins or is refused."""
        plane = self._plane
        self._is_head_begun = False
        self._judged = 0
        fault: tuple[Code, str] | None = None
        try:
            head = read_request(block, plane.limits.headers)
        except HeadError as error:
            self._is_deaf = True  # where the next request would begin is not known
            head = RequestHead(b"", b"", [])
            head.keeps_alive = False
            fault = error.code, str(error)
        if not head.request_id:
            head.request_id = plane.make_id()
        exchange = self._current = Exchange(self, plane, head)
        self.left = head.framing
        self._paced = 0
        self._chunks = None
        self._is_body_due = head.framing != 0
        if head.framing == CHUNKED:
            self._chunks = ChunkedBody(plane.limits.head_bytes)
        if fault is None and (head.upgrade or plane.max_body_bytes is not None):
            fault = self._find_fault(head)
        if fault is not None:
            exchange.keeps_client = False
            exchange.refuse(*fault)
        else:
            exchange.begin()
        if not self._is_body_due and not self._is_deaf:
            exchange.on_request_end([])
        return exchange

    def _find_fault(self, head: RequestHead) -> tuple[Code, str] | None:
        """Return what this listener has against a request that is well-formed."""
        limit = self._plane.max_body_bytes
        if limit is not None and head.framing > limit:
            return Code.BODY_TOO_LARGE, f"the body is over {limit} bytes"
        names = {token.partition(b"/")[0] for token in wire.tokens(head.upgrade)}
        if not names.isdisjoint(_NOT_TUNNELED):
            return Code.NOT_IMPLEMENTED, "HTTP/2 is not supported: speak HTTP/1.1"
        return None

    def _take_body(self, exchange: Exchange, data: bytes, pos: int) -> int:
        """Hand pieces of the body on; return how far they go."""
        size, chunks = len(data), self._chunks
        if chunks is None:
            end = min(size, pos + self.left)
            exchange.on_body(cut(data, pos, end))
            self.left -= end - pos
            is_whole = not self.left
        else:
            pieces: list[bytes] = []
            try:
                end = chunks.feed(data, pos, pieces)
            except HeadError as error:
                self._is_deaf = True
                exchange.fail(error.code, str(error))
                return size
            for piece in pieces:
                exchange.on_body(piece)
            is_whole = chunks.is_done
        if is_whole:
            self._is_body_due = False
            exchange.on_request_end([] if chunks is None else chunks.trailers)
        elif not exchange.is_ended:
            self._keep_pace(exchange, end - pos)
            self._hasten()
        return end

    def room(self) -> int:
        """Return what is left of the body, as long as nobody has to hold it in a copy.

        What comes after it is parsed, not passed on.
        """
        upstream = None if self._current is None else self._current.upstream
        return 0 if upstream is not None and upstream.is_tls else self.left

    def take_read(self, read: memoryview) -> None:
        """Hand on a part of the long body in hand, and what comes after it like all else."""
        exchange = self._current
        # Of a request that came with the end of the body before it, this may be chunks.
        if exchange is None or self._is_deaf or not self._is_body_due or self.left <= 0:
            self._is_buffered = False
            self.transport.set_protocol(self)
            self.data_received(bytes(read))
            return
        try:
            self.read_s = self._plane.monotonic_s()
            part = read[: self.left]
            exchange.on_body(part)
            self.left -= len(part)
            if not self.left:
                self._is_body_due = False
                exchange.on_request_end([])
            elif not exchange.is_ended:
                self._keep_pace(exchange, len(part))
            exchange.flush()
            if len(part) < len(read):
                self.data_received(bytes(read[len(part) :]))
        except Exception as error:  # noqa: BLE001 -- as above
            self._break(error)

    def _hasten(self) -> None:
        """Have the rest of a long body read where it is written from."""
        if self.left < LONG_BYTES or self._is_buffered:
            return
        if self.transport.get_extra_info("ssl_object") is None:
            self._is_buffered = True
            self.transport.set_protocol(BufferedReads(self, self._plane.turns.inbox))

    def _keep_pace(self, exchange: Exchange, got: int) -> None:
        """Put the deadline off once enough has come: a trickle is no sign of life."""
        self._paced += got
        if self._paced >= self._plane.limits.body_pace_bytes:
            self._paced = 0
            self.deadline_s = self.read_s + exchange.body_idle_s

    def _rest(self, part: bytes) -> None:
        """Keep what cannot be parsed yet; refuse the beginning of a head that can never be."""
        if not part:
            return
        if self._current is not None or self.is_full:
            self._pending = part
            self.reading.hold(PIPELINED)
            return
        limit = self._max_head_bytes
        if len(part) > limit:
            self._refuse(Code.HEAD_TOO_LARGE, f"the head is over {limit} bytes")
            return
        try:
            judge_beginning(part, self._judged)
        except HeadError as error:
            self._refuse(error.code, str(error))
            return
        self._pending = part
        self._judged = len(part)
        if not self._is_head_begun:
            self._is_head_begun = True
            self.deadline_s = self.read_s + self._plane.timeouts.head_s

    def _refuse(self, code: Code, detail: str) -> None:
        """Answer a request that has no whole head; hear nothing after it."""
        self._is_deaf = True
        self._is_head_begun = False
        head = RequestHead(b"", b"", [], request_id=self._plane.make_id())
        exchange = self._current = Exchange(self, self._plane, head)
        exchange.keeps_client = False
        exchange.refuse(code, detail)
        exchange.flush()

    def _close(self, *, lingers: bool) -> None:
        """Close when all is written; `lingers` while the client may still be sending.

        A socket closed with unread bytes resets, and the client may lose the answer
        (RFC 9112 section 9.6): so the rest is read and dropped for a while.
        """
        lingers |= bool(self._pending)
        self._is_deaf = True
        self._pending = b""
        if self.transport.is_closing():  # it was cut
            return
        now_s = self._plane.monotonic_s()
        self._ends_s = now_s + self._plane.timeouts.body_idle_s
        self.deadline_s = now_s + LINGER_S
        if not lingers or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.reading.release_all()

    def _on_late(self) -> None:
        """Go on waiting while the client may be taking its last answer; else close."""
        now_s = self._plane.monotonic_s()
        raw = self.transport.get_extra_info("socket")
        if now_s < self._ends_s and raw is not None and not has_taken_all(cast("Socket", raw)):
            self.deadline_s = min(now_s + LINGER_S, self._ends_s)
        else:
            self._let_go()

    def _let_go(self) -> None:
        """Close now, and not as if what is still to be written had been all."""
        if self.transport.get_write_buffer_size():
            self.cut()
        else:
            self.transport.abort()


def _after_blank_lines(data: bytes, pos: int) -> int:
    """Return where a head may begin (RFC 9112 section 2.2)."""
    while pos < len(data) and data[pos] == CR and data[pos + 1 : pos + 2] == b"\n":
        pos += 2
    return pos


def _address(transport: Transport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else "unix"
