"""An issuer's server: a real one, which tells what it was asked and misbehaves as a test says."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

JWKS_PATH = "/keys"


class KeyServer:
    """Serves `keys`, a JWK Set, at `jwks_url`, and `documents` by path; or by `answer`, if given.

    `asked` are the paths that were asked for.
    """

    def __init__(self, keys: bytes = b'{"keys": []}', answer: Answer | None = None) -> None:
        self.keys = keys
        self.answer = answer
        self.documents: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.url = ""

    @property
    def jwks_url(self) -> str:
        return self.url + JWKS_PATH

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        self.asked.append(request.path)
        if self.answer is not None:
            return await self.answer(request)
        if request.path == JWKS_PATH:
            return web.Response(body=self.keys, content_type="application/json")
        if request.path in self.documents:
            return web.Response(body=self.documents[request.path])
        return web.Response(status=404)


@asynccontextmanager
async def key_server(
    keys: bytes = b'{"keys": []}',
    answer: Answer | None = None,
    *,
    tls: tuple[Path, Path] | None = None,
    port: int = 0,
) -> AsyncIterator[KeyServer]:
    """Run one on a port of the loopback; with the files of a certificate and its key, with TLS."""
    serving = KeyServer(keys, answer)
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serving.respond)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
        await site.start()
        host, bound = runner.addresses[0][:2]
        serving.url = f"{'http' if context is None else 'https'}://{host}:{bound}"
        yield serving
    finally:
        await runner.cleanup()


async def hang(_request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def trickle(request: web.Request) -> web.StreamResponse:
    """Answer without end, a byte at a time."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.005)


async def flood(request: web.Request) -> web.StreamResponse:
    """Answer without end, as fast as it is read, and without saying how long."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)
