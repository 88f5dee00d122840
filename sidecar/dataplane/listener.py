"""Sockets, the client connections on them, the sweep that enforces timeouts, and the drain."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, cast

from sidecar.dataplane.client import Clients
from sidecar.dataplane.connection import ClientConnection
from sidecar.runtime.tasks import spawn, stop

if TYPE_CHECKING:
    import socket

    from sidecar.dataplane.plane import Plane

SWEEP_S: Final = 0.25  # how late a timeout may be; a timer for each request would cost more
BACKLOG: Final = 4096
_log = logging.getLogger("sidecar.dataplane")


class Listener:
    """Accepts clients for one plane."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self._clients = Clients(plane.limits.connections)
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, listening: socket.socket) -> None:
        """Accept clients on a bound socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: cast("asyncio.Protocol", ClientConnection(self.plane, self._clients)),
            sock=listening,
            backlog=BACKLOG,
        )
        self._sweeper = spawn(self._sweep(), name="sweep")

    async def drain(self) -> int:
        """Accept no more, finish what is in hand, and return how many had to be cut short.

        Idle clients are closed at once; others after their answer. Ends within `drain_s`.
        """
        plane, clients = self.plane, self._clients
        plane.is_draining = True
        if self._server is not None:
            self._server.close()
        for client in clients:
            if client.is_idle:
                client.transport.close()
        try:
            async with asyncio.timeout(plane.timeouts.drain_s):
                await clients.emptied.wait()
        except TimeoutError:
            _log.warning("drain time is over", extra={"cut": len(clients)})
        left = len(clients)
        for client in clients:
            client.transport.abort()
        if self._sweeper is not None:
            await stop(self._sweeper)
        return left

    async def _sweep(self) -> None:
        plane = self.plane
        while True:
            await asyncio.sleep(SWEEP_S)
            plane.read_clock()
            now_s = plane.monotonic_s()
            for client in self._clients:
                if client.deadline_s < now_s:
                    client.on_deadline()
                elif client.reading.is_held:
                    client.notice_leaving()
            plane.mirror.sweep(now_s)
            plane.upstreams.sweep(now_s)
            plane.recorder.flush()
            plane.metrics.gauges["rmv_connections"] = len(self._clients)
