"""`/healthz`, `/livez`, `/readyz` and `/metrics` over aiohttp."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class AdminServer:
    """Serves two questions: is it ready, and what has it counted.

    `unready` returns why this process should get no traffic, or an empty text.
    """

    def __init__(
        self, unready: Callable[[], Awaitable[str]], metrics: Callable[[], Awaitable[str]]
    ) -> None:
        self._unready = unready
        self._metrics = metrics
        app = web.Application()
        app.router.add_get("/healthz", self._alive)
        app.router.add_get("/livez", self._alive)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._expose)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)

    async def start(self, listening: socket.socket) -> None:
        """Answer on a bound socket."""
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()

    async def stop(self) -> None:
        """Close the socket."""
        await self._runner.cleanup()

    async def _alive(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        why = await self._unready()
        return web.Response(text=f"{why or 'ready'}\n", status=503 if why else 200)

    async def _expose(self, _request: web.Request) -> web.Response:
        text = await self._metrics()
        return web.Response(body=text.encode(), headers={"Content-Type": METRICS_TYPE})
