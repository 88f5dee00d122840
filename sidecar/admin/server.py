"""The admin listener: `/healthz`, `/livez`, `/readyz`, `/metrics` and the API, over aiohttp."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from aiohttp import web

from sidecar.admin.api import asked_by, guarding
from sidecar.errors import ConfigError
from sidecar.policy.codec import MAX_DOCUMENT_BYTES
from sidecar.runtime import faults
from sidecar.runtime.tls import ServerTls

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable

    from sidecar.admin.access import Access
    from sidecar.admin.api import AdminApi
    from sidecar.model.admin import AdminSettings
    from sidecar.model.tls import TlsSettings

STOP_S: Final = 2.0  # for calls under way when the sidecar stops
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_log = logging.getLogger("sidecar.admin")


class AdminServer:
    """Says whether this sidecar is ready and what it has counted, and takes calls of the API.

    `unready` returns why this process should get no traffic, or an empty text.
    """

    def __init__(
        self,
        unready: Callable[[], Awaitable[str]],
        metrics: Callable[[], Awaitable[str]],
        access: Access,
        api: AdminApi,
        settings: AdminSettings,
    ) -> None:
        self._unready = unready
        self._metrics = metrics
        self._access = access
        self._connections = settings.connections
        self._listening: asyncio.Server | None = None
        guard = guarding(settings.timeout_s)
        app = web.Application(middlewares=[guard], client_max_size=MAX_DOCUMENT_BYTES)
        app.router.add_get("/healthz", self._alive)
        app.router.add_get("/livez", self._alive)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._expose)
        api.add_to(app)
        # It is also how long a connection may take to its first request.
        self._timeout_s = settings.timeout_s
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=settings.timeout_s,
            shutdown_timeout=STOP_S,
            auto_decompress=False,  # what is small when packed need not be small
        )

    async def start(self, listening: socket.socket, tls: TlsSettings | None = None) -> None:
        """Answer on a bound socket; ConfigError for files of `tls` that cannot be used."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None, "setup makes it"  # noqa: S101

        def make() -> asyncio.Protocol:
            is_full = len(server.connections) >= self._connections
            return _Full() if is_full else server()

        context = None if tls is None else _renewing(ServerTls(tls))
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(
            make,
            sock=listening,
            ssl=context,
            ssl_handshake_timeout=None if context is None else self._timeout_s,
        )

    async def stop(self) -> None:
        """Close the socket."""
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()

    async def _alive(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        why = await self._unready()
        return web.Response(text=f"{why or 'ready'}\n", status=503 if why else 200)

    async def _expose(self, request: web.Request) -> web.Response:
        self._access.expect_metrics(asked_by(request))
        text = await self._metrics()
        return web.Response(body=text.encode(), headers={"Content-Type": METRICS_TYPE})


class _Full(asyncio.Protocol):
    """What a client meets that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _renewing(files: ServerTls) -> ssl.SSLContext:
    """Return a context that has each handshake served by the files as they are then.

    The callback comes with or without a name (SNI), once the client has said hello.
    """
    first = files.context

    def choose(handshake: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        try:
            files.reload()
        except ConfigError as error:
            _log.warning("admin TLS files refused: the former ones serve", extra={"reason": error})
        except Exception as error:  # noqa: BLE001 -- as much as of files that are no good
            faults.note("admin", error)
        handshake.context = files.context

    first.sni_callback = choose
    return first
