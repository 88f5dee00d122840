"""An upgraded connection: bytes both ways, as they come (RFC 9110 section 7.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar.dataplane.flow import UPSTREAM_FULL
from sidecar.upstream.contract import ResponseSink

if TYPE_CHECKING:
    from sidecar.dataplane.client import Client
    from sidecar.runtime.transport import Transport
    from sidecar.upstream.connection import UpstreamConnection
    from sidecar.upstream.contract import Response
    from sidecar.wire.pieces import Pieces


class Upgraded(Protocol):
    """The exchange that became a tunnel."""

    request_bytes: int
    response_bytes: int

    def on_tunnel_end(self) -> None:
        """Learn that one side has left."""
        ...

    def on_fault(self) -> None:
        """Learn of a fault of the sidecar."""
        ...


class Tunnel(ResponseSink):
    """Joins a client and an upstream. Either side may close its half before the other.

    Only where both are plain sockets: an end of TLS is the end of both halves.
    """

    def __init__(
        self, client: Client, upstream: UpstreamConnection, upgraded: Upgraded, idle_s: float
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._upgraded = upgraded
        self._idle_s = idle_s
        self._is_half_closed = False

    def on_client_data(self, data: bytes) -> None:
        """Pass bytes on to the upstream."""
        client = self._client
        self._upgraded.request_bytes += len(data)
        client.deadline_s = client.read_s + self._idle_s
        self._upstream.send(data)

    def on_client_half_close(self) -> bool:
        """Close the half towards the upstream; return whether the tunnel is kept."""
        return self._close_half(self._upstream.transport, self._client.transport)

    def on_response_data(self, pieces: Pieces, body_bytes: int) -> None:
        """Pass bytes on to the client."""
        client = self._client
        self._upgraded.response_bytes += body_bytes
        client.deadline_s = self._upstream.read_s + self._idle_s
        client.transport.writelines(pieces)

    def on_half_close(self) -> bool:
        """Close the half towards the client; return whether the tunnel is kept."""
        return self._close_half(self._client.transport, self._upstream.transport)

    def _close_half(self, other: Transport, ended: Transport) -> bool:
        """Tell the other side that `ended` sends no more, unless both are at their end with it."""
        if self._is_half_closed or other.is_closing():
            return False
        if not (other.can_write_eof() and ended.can_write_eof()):
            return False
        self._is_half_closed = True
        other.write_eof()
        return True

    def on_response_end(self) -> None:
        """Be done: the upstream has left."""
        self._upgraded.on_tunnel_end()

    def on_response_lost(self, reason: str, *, is_unanswered: bool) -> None:
        """Be done: the upstream is lost."""
        self._upgraded.on_tunnel_end()

    def on_fault(self) -> None:
        """Be done, with the client's connection as well."""
        self._upgraded.on_fault()

    def on_upstream_full(self) -> None:
        """Hold the client back."""
        self._client.reading.hold(UPSTREAM_FULL)

    def on_upstream_drained(self) -> None:
        """Let the client go on."""
        self._client.reading.release(UPSTREAM_FULL)

    def on_interim_head(self, response: Response, out: Pieces) -> None:
        """Not called: nothing is parsed any more."""

    def on_response_head(self, response: Response, out: Pieces) -> None:
        """Not called: nothing is parsed any more."""

    def on_upgrade(self, response: Response, out: Pieces) -> ResponseSink | None:
        """Not called: nothing is parsed any more."""
        return None
