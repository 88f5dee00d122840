"""One connection to an endpoint: writes a request, parses its response, tells a sink.

The response is held to RFC 9112: whatever `wire` refuses loses the connection, and the sink
decides what the client sees of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from sidecar.runtime import faults
from sidecar.runtime.inbox import MAX_UNWRITTEN_BYTES, BufferedReads
from sidecar.runtime.tcp import Socket, bytes_acked, readable
from sidecar.upstream.contract import Response
from sidecar.wire.chunks import ChunkedBody
from sidecar.wire.fields import passable_trailers
from sidecar.wire.framing import (
    CHUNKED,
    FIRST_FINAL_STATUS,
    LAST_CHUNK,
    NO_BODY,
    UNTIL_CLOSE,
    is_bodiless,
)
from sidecar.wire.head import HEAD_END, HeadError, is_lost
from sidecar.wire.pieces import MIN_APART_BYTES, Pieces, cut
from sidecar.wire.response import KINDS, ResponseHead, read_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.runtime.transport import Transport
    from sidecar.upstream.contract import Keeper, ResponseSink

SWITCHING_PROTOCOLS: Final = 101
MAX_HEAD_BYTES: Final = 64 * 1024  # of heads and trailers; Envoy's default is 60 KiB
LARGE_BYTES: Final = 32 * 1024  # of a body that is not worth copying out of the loop's buffer
FEW_HEAD_BYTES: Final = 2 * 1024  # of a large read that are looked through for a head
MAX_SMALL: Final = 8  # responses in a row, and the next may as well be copied
MAX_LATE_BYTES: Final = 16 * 1024  # that wait for others' reads; of more, memory would be the price


class UpstreamConnection(Response):
    """A connection that serves one request at a time and goes back to its keeper in between.

    An `asyncio.Protocol` by shape. It does not inherit from it: the compiled form could not be a
    native class then, which halves its speed.
    """

    transport: Transport

    def __init__(self, keeper: Keeper, monotonic_s: Callable[[], float]) -> None:
        super().__init__()
        self.sink: ResponseSink | None = None
        self.method = b""
        self.served = 0  # responses so far; 0 means a fresh connection
        self.idle_since_s = -1.0  # what its keeper notes; 0 while in use
        self.is_reading = True
        self.is_sent = False  # the sink says so when the request is written whole
        self.is_tls = False  # so that it copies what it is sent
        self._fd = -1
        self._keeper = keeper
        self._outbox = keeper.turns.outbox
        self._monotonic_s = monotonic_s
        self._held = b""  # bytes that are not parsed: the beginning of a head, or too much for now
        self._judged = 0  # of those, how many may begin a head
        self._is_tired = False  # the rest waits for its turn
        self._is_begun = False  # a byte of the response is here
        self._has_head = False  # its final head is here
        self._is_bodiless = False  # it has no body, whatever its head says
        self._interim_bytes = 0  # of 1xx heads
        self._left = 0  # bytes of a body with a length
        self._chunks: ChunkedBody | None = None
        self._is_done = self._is_keepable = self._is_full = False
        self._out: Pieces = []
        self._body_bytes = 0
        self._unsent: bytes | memoryview | None = None  # what waits for `write_out`
        self._sent_bytes = 0  # ever, what is unsent included
        self._began_at = 0  # of them, those before the request in hand
        self._is_tunnel = False
        self._is_buffered = False  # reads come by `take_read`
        self._is_copied = False  # and are by the sink
        self._small = 0  # responses since one that was large
        self._has_closed = False  # the upstream: by a FIN, or where there is TLS by close_notify

    # --- what the sink does -------------------------------------------------------------------

    def start(self, sink: ResponseSink, method: bytes) -> None:
        """Take up a request of `method`; its bytes follow by `send`."""
        self.sink = sink
        self.method = method
        self._began_at = self._sent_bytes
        self.is_sent = self._is_done = self._is_keepable = False
        self._is_begun = self._has_head = False
        self._interim_bytes = 0

    def send(self, data: bytes | memoryview) -> None:
        """Write request bytes: at once, or a few when all that has arrived has been read.

        A write may wake an endpoint that sleeps, for some microseconds and an interrupt each time;
        the first of several in a row does that for all.
        """
        self._sent_bytes += len(data)
        if self._unsent is None and len(data) <= MAX_LATE_BYTES and not self._is_tunnel:
            self._unsent = data
            self._outbox.add(self)
            return
        if self._is_withheld([data]):
            return
        self.write_out()
        self.transport.write(data)

    def send_pieces(self, pieces: Pieces) -> None:
        """Write request bytes that are not worth joining, by one system call."""
        self._sent_bytes += sum(map(len, pieces))
        if self._is_withheld(pieces):
            return
        self.write_out()
        self.transport.writelines(pieces)

    def write_out(self) -> None:
        """Write what `send` has left for later."""
        data = self._unsent
        if data is not None and not self.transport.is_closing():
            self._unsent = None
            self.transport.write(data)

    def kept_fd(self) -> int:
        """Return what must have nothing to read before the request in hand is begun to be written.

        A connection that has served none may have: TLS sends tickets first of all.
        """
        if not self.served or not self._is_unwritten() or self.transport.is_closing():
            return -1
        return self._fd

    def withhold(self) -> None:
        """End the connection with nothing of the request written, so that it may be sent again."""
        self.transport.abort()

    def pause(self) -> None:
        """Stop reading the response: whoever takes it is full."""
        if self.is_reading:
            self.is_reading = False
            if not self._is_tired:
                self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self.is_reading:
            self.is_reading = True
            if not self._is_tired:
                self.transport.resume_reading()

    def give_back(self) -> None:
        """Go back to the keeper unused."""
        self._keeper.release(self)

    def abandon(self) -> None:
        """Drop the request in hand and the connection with it; the sink hears no more."""
        self.sink = None
        self.transport.abort()

    def is_unread(self) -> bool:
        """Return whether no byte of the request in hand can have reached the upstream's program.

        Known of plain TCP on Linux: the upstream closed, by a FIN that acknowledges nothing of the
        request. A reset alone says nothing: it may overtake an acknowledgement. Called from
        `on_response_lost`, while the socket is still open.
        """
        if self._is_unwritten():
            return True
        if not self._has_closed or self.transport.get_extra_info("ssl_object") is not None:
            return False  # records, not bytes of ours, are what is acknowledged
        acked = bytes_acked(cast("Socket", self.transport.get_extra_info("socket")))
        return acked is not None and acked <= self._began_at + 1

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: object) -> None:
        """Keep the transport."""
        self.transport = cast("Transport", transport)
        raw = self.transport.get_extra_info("socket")
        if raw is not None:
            self._fd = cast("Socket", raw).fileno()
        if self.transport.get_extra_info("ssl_object") is not None:
            self.is_tls = True
            self.transport.set_write_buffer_limits(MAX_UNWRITTEN_BYTES)

    def data_received(self, data: bytes) -> None:
        """Parse, and hand on in one piece what this read amounts to."""
        sink = self._asker()
        if sink is None:
            return
        try:
            self.read_s = self._monotonic_s()
            if self._is_tunnel:
                sink.on_response_data([data], len(data))
                return
            self._is_begun = True
            self._read(sink, data)
        except Exception as error:  # noqa: BLE001 -- whatever it is, nobody waits for what is lost
            self._break(sink, error)

    def room(self) -> int:
        """Return what is left of a body, as long as nobody has to hold it in a copy."""
        return 0 if self._is_copied else self._left

    def take_read(self, read: memoryview) -> None:
        """Take bytes that are worth leaving where they lie, if they are of a body."""
        is_counted = not self._has_head or self._left > 0  # or may be, for all that is known
        if len(read) < MIN_APART_BYTES or self._held or self._is_tunnel or not is_counted:
            self.data_received(bytes(read))
            return
        sink = self._asker()
        if sink is None:
            return
        try:
            self.read_s = self._monotonic_s()
            self._is_begun = True
            self._read(sink, b"", read)
        except Exception as error:  # noqa: BLE001 -- as above
            self._break(sink, error)

    def _asker(self) -> ResponseSink | None:
        """Return who waits for what is here; where nobody does, end the connection.

        No response may ever be taken for another's.
        """
        if self._unsent is not None and self._is_unwritten():
            self.transport.abort()
            return None
        if self.sink is None:
            self.transport.abort()
        return self.sink

    def _read(self, sink: ResponseSink, data: bytes, read: memoryview | None = None) -> None:
        """Read `data`, or else a large `read`."""
        try:
            if read is None:
                self._parse(sink, self._held + data if self._held else data)
            else:
                self._parse_large(sink, read)
        except HeadError as error:
            self._out = []
            self._lose(f"malformed response: {error}")
            return
        out = self._out
        if out:
            self._out = []
            body_bytes, self._body_bytes = self._body_bytes, 0
            current = self.sink
            if current is None:
                return
            current.on_response_data(out, body_bytes)
            if self.sink is not sink:
                return
        if self._is_done:
            self._end(sink)

    def on_turn(self) -> None:
        """Go on with what was too much for one turn of the loop."""
        self._is_tired = False
        self.read_s = self._monotonic_s()
        sink = self.sink
        if sink is not None and self._held:
            self._read(sink, b"")
        if self.is_reading and not self._is_tired and not self.transport.is_closing():
            self.transport.resume_reading()

    def on_fault(self) -> None:
        """End the connection after a fault, and tell whoever uses it."""
        self._end_faulty(self.sink)

    def eof_received(self) -> bool:
        """Let the transport close; `connection_lost` follows. A tunnel may be half-closed."""
        self._has_closed = True
        sink = self.sink
        try:
            return self._is_tunnel and sink is not None and sink.on_half_close()
        except Exception as error:  # noqa: BLE001 -- as above
            self._break(sink, error)
            return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the keeper, and tell the sink."""
        sink = self.sink
        try:
            self._keeper.forget(self)
            self._note_loss(sink, exc)
        except Exception as error:  # noqa: BLE001 -- as above
            self._break(sink, error)

    def pause_writing(self) -> None:
        """Tell the sink to hold the request's body back."""
        self._is_full = True
        sink = self.sink
        try:
            if sink is not None:
                sink.on_upstream_full()
        except Exception as error:  # noqa: BLE001 -- as above
            self._break(sink, error)

    def resume_writing(self) -> None:
        """Tell the sink to go on."""
        self._is_full = False
        sink = self.sink
        try:
            if sink is not None:
                sink.on_upstream_drained()
        except Exception as error:  # noqa: BLE001 -- as above
            self._break(sink, error)

    # --- inside -------------------------------------------------------------------------------

    def _break(self, sink: ResponseSink | None, error: Exception) -> None:
        """Note a fault that came up while `sink` was told something, and end both."""
        faults.note("upstream", error)
        self._end_faulty(sink)

    def _end_faulty(self, sink: ResponseSink | None) -> None:
        """End the connection, unless another sink has it by now; `sink` hears of it."""
        if self.sink is None or self.sink is sink:
            self.sink = None
            self.transport.abort()
        if sink is not None:
            sink.on_fault()

    def _note_loss(self, sink: ResponseSink | None, exc: Exception | None) -> None:
        self._has_closed |= isinstance(exc, BrokenPipeError)  # what a reset after a FIN becomes
        if sink is None:
            return
        # A FIN without close_notify is told as no error, and anybody can send one (RFC 9112 9.8).
        has_ended = self._has_closed and exc is None
        if self._is_tunnel or (self._has_head and self.framing == UNTIL_CLOSE and has_ended):
            self.sink = None
            sink.on_response_end()
        else:
            self._lose("connection lost" if exc is None else f"connection lost: {exc}")

    def _is_withheld(self, pieces: Pieces) -> bool:
        """Return whether the beginning of a request is not written, for something is here before.

        What is written late is looked after by the outbox.
        """
        late = 0 if self._unsent is None else len(self._unsent)
        size = sum(map(len, pieces))
        if not self.served or self._sent_bytes - late - size != self._began_at:
            return False
        if not readable([self._fd]):
            return False
        self._unsent = b"".join([self._unsent or b"", *pieces])
        self.withhold()
        return True

    def _is_unwritten(self) -> bool:
        """Return whether no byte of the request in hand has been written."""
        unsent = self._unsent
        return unsent is not None and self._sent_bytes - self._began_at == len(unsent)

    def _parse(self, sink: ResponseSink, data: bytes) -> None:
        """Read what is there of the response; raises HeadError when that is malformed."""
        self._held = b""
        pos = 0 if self._has_head else self._read_heads(sink, data)
        if self._has_head and not self._is_done:
            pos = self._take_body(data, pos)
        if not self._is_done and pos < len(data):
            self._tire(data[pos:])
        elif self._is_done and pos < len(data):
            if not self._is_bodiless:
                raise HeadError("bytes follow its end")
            self._is_keepable = False  # a body where none may be: nobody needs to hear of it

    def _parse_large(self, sink: ResponseSink, read: memoryview) -> None:
        """Read a body with a length, and the head before it, without a copy of the body."""
        pos = 0
        if not self._has_head:
            beginning = bytes(read[:FEW_HEAD_BYTES])
            pos = self._read_heads(sink, beginning)
            if self._is_tunnel:
                self._out.append(read[len(beginning) :])
                self._body_bytes += len(read) - len(beginning)
                return
            if self._left <= 0:
                self._parse(sink, self._held + beginning[pos:] + bytes(read[len(beginning) :]))
                return
        end = min(len(read), pos + self._left)
        self._out.append(read[pos:end])
        self._body_bytes += end - pos
        self._left -= end - pos
        self._is_done = not self._left
        if end < len(read):
            raise HeadError("bytes follow its end")

    def _tire(self, rest: bytes) -> None:
        """Leave the rest for a turn of its own."""
        self._held = rest
        if not self._is_tired:
            self._is_tired = True
            self._keeper.turns.ask(self)
            if self.is_reading:
                self.transport.pause_reading()

    def _read_heads(self, sink: ResponseSink, data: bytes) -> int:
        """Read interim heads and the final one, as far as they are here; return how far."""
        pos, size = 0, len(data)
        while not self._has_head:
            end = data.find(HEAD_END, pos)
            if end < 0 or end - pos > MAX_HEAD_BYTES:
                self._hold(data[pos:])
                return size
            head = read_response(data[pos : end + 2], hides_decisions=self._keeper.hides_decisions)
            if head.status < FIRST_FINAL_STATUS:
                self._interim_bytes += end - pos
            if self._interim_bytes > MAX_HEAD_BYTES:
                raise HeadError(f"interim heads over {MAX_HEAD_BYTES} bytes")
            pos = end + 4
            self._take_head(sink, head)
            if self._is_tunnel:
                if pos < size:
                    self._body_bytes += size - pos
                    self._out.append(data[pos:])
                return size
        self._choose_reads()
        return pos

    def _choose_reads(self) -> None:
        """Be read into the inbox from a large response on, and no more after many small ones."""
        sink = self.sink
        if self._left >= LARGE_BYTES and sink is not None:
            self._small = 0
            self._is_copied = sink.copies
            if not self._is_buffered and self.transport.get_extra_info("ssl_object") is None:
                self._is_buffered = True
                self.transport.set_protocol(BufferedReads(self, self._keeper.turns.inbox))
        elif self._is_buffered:
            self._small += 1
            if self._small > MAX_SMALL:
                self._is_buffered = False
                self.transport.set_protocol(self)

    def _hold(self, part: bytes) -> None:
        """Keep the beginning of a head."""
        if len(part) > MAX_HEAD_BYTES:
            raise HeadError(f"a head over {MAX_HEAD_BYTES} bytes")
        if is_lost(part, self._judged):
            raise HeadError("a control character, or a bare CR or LF, in its head")
        self._judged = len(part)
        self._held = part

    def _take_head(self, sink: ResponseSink, head: ResponseHead) -> None:
        self._judged = 0
        self.head = head
        status = head.status
        if status < FIRST_FINAL_STATUS:
            if status == SWITCHING_PROTOCOLS:
                self._switch(sink)
            else:
                sink.on_interim_head(self, self._out)
            return
        self._has_head = True
        framing = self.framing = head.framing
        self.writes_chunks = framing == CHUNKED
        self._is_bodiless = is_bodiless(self.method, status)
        # What HEAD and the like are told of is no body, but some servers send one all the same,
        # after a while: the next to use the connection would take it for his answer.
        self._is_keepable = head.keeps_alive and not (
            self._is_bodiless and (framing > NO_BODY or framing == CHUNKED)
        )
        if self._is_bodiless:
            framing = self.framing = NO_BODY
            self.writes_chunks &= self.method == b"HEAD"  # where it tells what GET would get
        if framing == CHUNKED:
            self._chunks = ChunkedBody(MAX_HEAD_BYTES)
        elif framing == NO_BODY:
            self._is_done = True
        else:
            self._left = framing
        sink.on_response_head(self, self._out)

    def _switch(self, sink: ResponseSink) -> None:
        taker = sink.on_upgrade(self, self._out)
        if taker is None:
            raise HeadError("it switched protocols unasked")
        self.sink = taker
        self._is_tunnel = True

    def _take_body(self, data: bytes, pos: int) -> int:
        """Collect body bytes, framed as the client will see them; return how far they go."""
        size, framing, out = len(data), self.framing, self._out
        if framing == CHUNKED:
            return self._take_chunks(data, pos)
        end = size if framing == UNTIL_CLOSE else min(size, pos + self._left)
        if end > pos:
            out.append(cut(data, pos, end))
            self._body_bytes += end - pos
        if framing != UNTIL_CLOSE:
            self._left -= end - pos
            self._is_done = not self._left
        return end

    def _take_chunks(self, data: bytes, pos: int) -> int:
        chunks, out = self._chunks, self._out
        if chunks is None:
            return pos
        pieces: list[bytes] = []
        pos = chunks.feed(data, pos, pieces)
        for piece in pieces:
            self._body_bytes += len(piece)
            if self.writes_chunks:
                out += (b"%x\r\n" % len(piece), piece, b"\r\n")
            else:
                out.append(piece)
        if chunks.is_done:
            self._is_done = True
            self._chunks = None
            if self.writes_chunks:
                out.append(LAST_CHUNK)
                out += passable_trailers(chunks.trailers, self.head.trailer, KINDS)
                out.append(b"\r\n")
        return pos

    def _end(self, sink: ResponseSink) -> None:
        self.sink = None
        self.served += 1
        if not self.is_reading:
            self.resume()
        if self._is_full or not self.is_sent:
            self.transport.abort()  # it may never take the rest of the request
        elif self._is_keepable and self.framing != UNTIL_CLOSE:
            self._keeper.release(self)
        else:
            self.transport.close()
        sink.on_response_end()

    def _lose(self, reason: str) -> None:
        sink = self.sink
        if sink is not None:
            sink.on_response_lost(reason, is_unanswered=not self._is_begun)
        self.sink = None
        self.transport.abort()
