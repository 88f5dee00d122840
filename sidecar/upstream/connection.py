"""One connection to an endpoint: writes a request, parses its response, tells a sink.

llhttp holds the response to RFC 9112: whatever it refuses loses the connection, and the sink
decides what the client sees of that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

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
    from sidecar.upstream.pool import Pool

FIRST_FINAL_STATUS = 200
SWITCHING_PROTOCOLS = 101

_log = logging.getLogger("sidecar.upstream")
_KINDS = FieldKinds(RESPONSE_FIELDS)


class ResponseSink(Protocol):
    """Who asked. Called in order: interim*, head, data*, then end or lost; or lost alone."""

    def on_response_head(self, connection: UpstreamConnection) -> bytes:
        """Take a final head from the connection's fields; return what goes before its body."""
        ...

    def on_interim_head(self, connection: UpstreamConnection) -> bytes:
        """Take a 1xx head likewise."""
        ...

    def on_response_data(self, data: bytes, body_bytes: int) -> None:
        """Take what the bytes of one read amount to; `body_bytes` of it are body."""
        ...

    def on_response_end(self) -> None:
        """Learn that the response is whole; the connection is already back in its pool."""
        ...

    def on_response_lost(self, reason: str) -> None:
        """Learn that the connection failed before the response was whole."""
        ...

    def on_upstream_full(self) -> None:
        """Stop sending: the connection's write buffer is over its high-water mark."""
        ...

    def on_upstream_drained(self) -> None:
        """Send again."""
        ...


def _explain(refused: HttpParserError) -> str:
    """Say what llhttp, or a callback of ours, found wrong."""
    cause = refused.__context__
    if cause is not None and not isinstance(cause, ValueError):
        _log.error("response callback failed", exc_info=cause)  # a fault of ours, not the peer's
    return str(cause or refused)


class UpstreamConnection(asyncio.Protocol):
    """A connection that serves one request at a time and goes back to its pool in between."""

    __slots__ = (
        "_body_bytes",
        "_is_bad",
        "_is_done",
        "_is_keepable",
        "_nominated",
        "_out",
        "_parser",
        "fields",
        "framing",
        "idle_since_s",
        "is_reading",
        "is_sent",
        "method",
        "pool",
        "reason",
        "served",
        "sink",
        "status",
        "transport",
        "writes_chunks",
    )

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.sink: ResponseSink | None = None
        self.method = b""
        self.served = 0  # responses so far; 0 means a fresh connection
        self.idle_since_s = 0.0  # what Pool.sweep notes; 0 while in use
        self.is_reading = True
        self.is_sent = False  # the sink says so when the request is written whole
        self._parser = HttpResponseParser(self)
        self._is_done = self._is_keepable = self._is_bad = False
        self._out: list[bytes] = []
        self._body_bytes = 0
        self._begin()

    # --- what the sink does -------------------------------------------------------------------

    def start(self, sink: ResponseSink, method: bytes) -> None:
        """Take up a request of `method`; its bytes follow by `send`."""
        self.sink = sink
        self.method = method
        self.idle_since_s = 0.0
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

    def abandon(self) -> None:
        """Drop the request in hand and the connection with it; the sink hears no more."""
        self.sink = None
        self.transport.abort()

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Parse, and hand on in one piece what this read amounts to."""
        sink = self.sink
        if sink is None:
            # Bytes that nobody asked for: no response may ever be taken for another's.
            self._is_bad = True
            self.transport.abort()
            return
        error = ""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            error = "it switched protocols unasked"
        except HttpParserError as refused:
            error = _explain(refused)
        out = self._out
        if out:
            self._out = []
            body_bytes, self._body_bytes = self._body_bytes, 0
            sink.on_response_data(out[0] if len(out) == 1 else b"".join(out), body_bytes)
        if self.sink is not sink:
            return
        if self._is_done:
            self._is_bad |= bool(error)
            self._end(sink)
        elif error:
            self._lose(f"malformed response: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the pool, or tell the sink."""
        self.pool.forget(self)
        if self.sink is None:
            return
        if self.framing == UNTIL_CLOSE and exc is None:
            sink, self.sink = self.sink, None
            sink.on_response_end()
        else:
            self._lose("connection lost" if exc is None else f"connection lost: {exc}")

    def pause_writing(self) -> None:
        """Tell the sink to hold the request's body back."""
        if self.sink is not None:
            self.sink.on_upstream_full()

    def resume_writing(self) -> None:
        """Tell the sink to go on."""
        if self.sink is not None:
            self.sink.on_upstream_drained()

    # --- httptools callbacks ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Refuse a second response to one request."""
        if self._is_done:
            self._is_bad = True
        self._begin()

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase; it may come in pieces."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep an end-to-end field; note framing."""
        if self.status:  # a trailer: it must not touch the framing, and is not passed on
            return
        kind = _KINDS[name]
        if kind == wire.PASS:
            self.fields += (name, b": ", value, b"\r\n")
        elif kind == wire.CONTENT_LENGTH:
            self.framing = int(value)  # llhttp lets digits alone through
            self.fields += (name, b": ", value, b"\r\n")
        elif kind == wire.TRANSFER_ENCODING:
            if self.framing == CHUNKED or not is_chunked_alone(value):
                msg = "Transfer-Encoding is not exactly chunked"
                raise ValueError(msg)
            self.framing = CHUNKED
        elif kind == wire.CONNECTION:
            self._nominated = value
        elif kind != wire.DROP and not self.pool.hides_field(kind):
            self.fields += (name, b": ", value, b"\r\n")

    def on_headers_complete(self) -> None:
        """Give the sink the head."""
        status = self.status = self._parser.get_status_code()
        if self._is_done or self.sink is None:
            return
        if self._nominated:
            wire.drop_nominated(self.fields, self._nominated)
        if status < FIRST_FINAL_STATUS:
            if status != SWITCHING_PROTOCOLS:
                self._out.append(self.sink.on_interim_head(self))
            return
        self.writes_chunks = self.framing == CHUNKED
        if is_bodiless(self.method, status):
            self.framing = NO_BODY
        self._out.append(self.sink.on_response_head(self))
        if self.method == b"HEAD":
            # llhttp cannot be told that no body follows: its state is given up with this response.
            self._is_keepable = self._parser.should_keep_alive()
            self._is_done = True

    def on_body(self, data: bytes) -> None:
        """Collect body bytes, framed as the client will see them."""
        if self._is_done:
            self._is_bad = True
            return
        self._body_bytes += len(data)
        if self.writes_chunks:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)

    def on_message_complete(self) -> None:
        """Note the end; what is left of this read is nobody's."""
        if self.status < FIRST_FINAL_STATUS or self._is_done:
            return
        if self.framing == CHUNKED and self.writes_chunks:
            self._out.append(LAST_CHUNK)
        self._is_keepable = self._parser.should_keep_alive()  # known only inside this callback
        self._is_done = True

    # --- inside -------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.status = 0
        self.reason = b""
        self.fields: list[bytes] = []
        self.framing = UNTIL_CLOSE
        self.writes_chunks = False  # the sink may clear it: HTTP/1.0 knows no chunks
        self._nominated = b""

    def _end(self, sink: ResponseSink) -> None:
        self.sink = None
        self.served += 1
        if self.method == b"HEAD":
            self._parser = HttpResponseParser(self)
        self.resume()
        if self._is_keepable and self.is_sent and not self._is_bad:
            self.pool.release(self)
        else:
            self.transport.close()
        sink.on_response_end()

    def _lose(self, reason: str) -> None:
        sink, self.sink = self.sink, None
        self.transport.abort()
        if sink is not None:
            sink.on_response_lost(reason)
