"""One connection to an endpoint: writes a request, parses its response, tells a sink.

llhttp holds the response to RFC 9112: whatever it refuses loses the connection, and the sink
decides what the client sees of that.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from sidecar.upstream.contract import Response
from sidecar.wire import fields as wire
from sidecar.wire.fields import RESPONSE_FIELDS, FieldKinds
from sidecar.wire.framing import (
    CHUNKED,
    LAST_CHUNK,
    NO_BODY,
    UNTIL_CLOSE,
    is_bodiless,
    is_chunked_alone,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.runtime.transport import Transport
    from sidecar.upstream.contract import Keeper, ResponseSink

FIRST_STATUS: Final = 100
FIRST_FINAL_STATUS: Final = 200
SWITCHING_PROTOCOLS: Final = 101
MAX_HEAD_BYTES: Final = 64 * 1024  # of heads and trailers; Envoy's default is 60 KiB

_log = logging.getLogger("sidecar.upstream")
_KINDS: Final = FieldKinds(RESPONSE_FIELDS)


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
        self.idle_since_s = 0.0  # what its keeper notes; 0 while in use
        self.is_reading = True
        self.is_sent = False  # the sink says so when the request is written whole
        self._keeper = keeper
        self._monotonic_s = monotonic_s
        self._parser = HttpResponseParser(self)
        self._connection_field = b""
        self._is_done = self._is_keepable = self._is_bad = self._is_full = False
        self._out: list[bytes] = []
        self._body_bytes = 0
        self._framing_bytes = 0  # read since the last byte of a body

    # --- what the sink does -------------------------------------------------------------------

    def start(self, sink: ResponseSink, method: bytes) -> None:
        """Take up a request of `method`; its bytes follow by `send`."""
        self.sink = sink
        self.method = method
        self.idle_since_s = 0.0
        self._framing_bytes = 0
        self.is_sent = self._is_done = self._is_keepable = False

    def send(self, data: bytes) -> None:
        """Write request bytes."""
        self.transport.write(data)

    def pause(self) -> None:
        """Stop reading the response: whoever takes it is full."""
        if self.is_reading:
            self.is_reading = False
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self.is_reading:
            self.is_reading = True
            self.transport.resume_reading()

    def give_back(self) -> None:
        """Go back to the keeper unused."""
        self._keeper.release(self)

    def abandon(self) -> None:
        """Drop the request in hand and the connection with it; the sink hears no more."""
        self.sink = None
        self.transport.abort()

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: object) -> None:
        """Keep the transport."""
        self.transport = cast("Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse, and hand on in one piece what this read amounts to."""
        sink = self.sink
        if sink is None:
            # Bytes that nobody asked for: no response may ever be taken for another's.
            self._is_bad = True
            self.transport.abort()
            return
        self.read_s = self._monotonic_s()
        error = self._parse(data)
        out = self._out
        if out:
            self._out = []
            body_bytes, self._body_bytes = self._body_bytes, 0
            sink.on_response_data(out[0] if len(out) == 1 else b"".join(out), body_bytes)
            if self.sink is not sink:
                return
        if self._is_done:
            self._end(sink, is_clean=not error)
        elif error:
            self._lose(f"malformed response: {error}")

    def eof_received(self) -> bool:
        """Let the transport close; `connection_lost` follows."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the keeper, and tell the sink."""
        self._keeper.forget(self)
        sink = self.sink
        if sink is None:
            return
        is_final = self.status >= FIRST_FINAL_STATUS
        if self.framing == UNTIL_CLOSE and is_final and exc is None:
            self.sink = None
            sink.on_response_end()
        else:
            self._lose("connection lost" if exc is None else f"connection lost: {exc}")

    def pause_writing(self) -> None:
        """Tell the sink to hold the request's body back."""
        self._is_full = True
        if self.sink is not None:
            self.sink.on_upstream_full()

    def resume_writing(self) -> None:
        """Tell the sink to go on."""
        self._is_full = False
        if self.sink is not None:
            self.sink.on_upstream_drained()

    # --- httptools callbacks ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start on a head; a second response to one request spoils the connection."""
        if self._is_done:
            self._is_bad = True
        self.status = 0
        self.reason = b""
        self.fields = []
        self.framing = UNTIL_CLOSE
        self.writes_chunks = False
        self._connection_field = b""

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase; it may come in pieces."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep an end-to-end field; note framing."""
        if self.status:  # a trailer: it must not touch the framing, and is not passed on
            return
        kind = _KINDS.of(name)
        if kind == wire.CONTENT_LENGTH:
            self.framing = int(value)  # llhttp lets digits alone through
        elif kind and not self._is_passed(kind, value):
            return
        self.fields.extend((name, b": ", value, b"\r\n"))

    def _is_passed(self, kind: int, value: bytes) -> bool:
        if kind == wire.CONNECTION:
            self._connection_field += b"," + value if self._connection_field else value
            return False
        if kind == wire.TRANSFER_ENCODING:
            if self.framing == CHUNKED or not is_chunked_alone(value):
                msg = "Transfer-Encoding is not exactly chunked"
                raise ValueError(msg)
            self.framing = CHUNKED
            return False
        if kind == wire.DECISION:
            return not self._keeper.hides_decisions
        return kind not in {wire.DROP, wire.REQUEST_ID}

    def on_headers_complete(self) -> None:
        """Give the sink the head."""
        status = self.status = self._parser.get_status_code()
        if status < FIRST_STATUS:
            msg = "its status is below 100"
            raise ValueError(msg)
        sink = self.sink
        if self._is_done or sink is None:
            return
        if self._connection_field:
            wire.drop_nominated(self.fields, self._connection_field)
        if status < FIRST_FINAL_STATUS:
            if status != SWITCHING_PROTOCOLS:
                sink.on_interim_head(self, self._out)
            return
        self.writes_chunks = self.framing == CHUNKED
        if is_bodiless(self.method, status):
            self.framing = NO_BODY
            self.writes_chunks &= self.method == b"HEAD"  # where it tells what GET would get
        sink.on_response_head(self, self._out)
        if self.method == b"HEAD":
            # llhttp cannot be told that no body follows: its state is given up with this response.
            self._is_keepable = self._parser.should_keep_alive()
            self._is_done = True

    def on_body(self, data: bytes) -> None:
        """Collect body bytes, framed as the client will see them."""
        if self._is_done:
            self._is_bad = True
            return
        self._framing_bytes = 0
        self._body_bytes += len(data)
        if self.writes_chunks:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)

    def on_message_complete(self) -> None:
        """Note the end; what is left of this read is nobody's."""
        if self.status < FIRST_FINAL_STATUS or self._is_done:
            return
        if self.writes_chunks and self.framing == CHUNKED:
            self._out.append(LAST_CHUNK)
        self._is_keepable = self._parser.should_keep_alive()  # known only inside this callback
        self._is_done = True

    # --- inside -------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> str:
        """Feed the parser; return what is wrong with the response, if anything."""
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            return "it switched protocols unasked"
        except HttpParserError as refused:
            return _explain(refused)
        if self._framing_bytes > MAX_HEAD_BYTES:
            return f"a head, or trailers, over {MAX_HEAD_BYTES} bytes"
        return ""

    def _end(self, sink: ResponseSink, *, is_clean: bool) -> None:
        self.sink = None
        self.served += 1
        if self.method == b"HEAD":
            self._parser = HttpResponseParser(self)
        if not self.is_reading:
            self.resume()
        if self._is_full or not self.is_sent:
            self.transport.abort()  # it may never take the rest of the request
        elif self._is_keepable and is_clean and not self._is_bad:
            self._keeper.release(self)
        else:
            self.transport.close()
        sink.on_response_end()

    def _lose(self, reason: str) -> None:
        sink, self.sink = self.sink, None
        self.transport.abort()
        if sink is not None:
            sink.on_response_lost(reason)


def _explain(refused: HttpParserError) -> str:
    """Say what llhttp, or a callback of ours, found wrong."""
    cause = refused.__context__
    if cause is not None and not isinstance(cause, ValueError):
        _log.error("response callback failed", exc_info=cause)  # a fault of ours, not the peer's
    return str(cause or refused)
