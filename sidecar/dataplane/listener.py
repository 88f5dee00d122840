"""Sockets, the client connections on them, the sweep that enforces timeouts, and the drain."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final

from sidecar.dataplane.connection import ClientConnection
from sidecar.runtime.tasks import spawn

if TYPE_CHECKING:
    from sidecar.dataplane.mirror import Mirror
    from sidecar.dataplane.plane import Plane

SWEEP_S: Final = 0.25  # how late a timeout may be; a timer for each request would cost more
BACKLOG: Final = 4096
_log = logging.getLogger("sidecar.dataplane")


class Listener:
    """Accepts clients for one plane."""

    def __init__(self, plane: Plane, mirror: Mirror) -> None:
        self.plane = plane
        self._mirror = mirror
        self._connections: set[ClientConnection] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._emptied = asyncio.Event()  # set once nobody is left after the drain began

    async def start(self, listening: socket.socket) -> None:
        """Accept clients on a bound socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ClientConnection(self), sock=listening, backlog=BACKLOG
        )
        self._sweeper = spawn(self._sweep(), name="sweep")

    async def drain(self) -> int:
        """Accept no more, finish what is in hand, and return how many had to be cut short.

        Idle clients are closed at once; others after their answer. Ends within `drain_s`.
        """
        plane = self.plane
        plane.is_draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            if connection.is_idle:
                connection.transport.close()
        if not self._connections:
            self._emptied.set()
        try:
            async with asyncio.timeout(plane.timeouts.drain_s):
                await self._emptied.wait()
        except TimeoutError:
            _log.warning("drain time is over", extra={"cut": len(self._connections)})
        left = list(self._connections)
        for connection in left:
            connection.transport.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return len(left)

    # --- what connections use -----------------------------------------------------------------

    def admit(self, connection: ClientConnection) -> bool:
        """Count a connection in; return whether it is within the limit."""
        self._connections.add(connection)
        self.plane.metrics.count("rmv_connections_total")
        if len(self._connections) <= self.plane.limits.connections:
            return True
        self.plane.metrics.count("rmv_limits_hit_total", "limit", "connections")
        return False

    def leave(self, connection: ClientConnection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        if self.plane.is_draining and not self._connections:
            self._emptied.set()

    # --- inside -------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        plane = self.plane
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = plane.monotonic_s()
            late = [c for c in self._connections if c.deadline_s < now_s]
            for connection in late:
                connection.on_deadline()
            self._mirror.sweep(now_s)
            plane.services.upstreams.sweep(now_s)
            plane.services.recorder.flush()
            plane.metrics.gauges["rmv_connections"] = len(self._connections)


def bind(address: str, *, shares_port: bool = False) -> socket.socket:
    """Return a bound TCP socket for `host:port`, `:port` or `[v6]:port`; raises OSError.

    With `shares_port` several processes may bind the same address and the kernel divides new
    connections among them (SO_REUSEPORT).
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((host, int(port)))
    except OSError:
        listening.close()
        raise
    listening.settimeout(0)
    return listening
