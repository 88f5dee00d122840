"""An upstream that does just what a test tells it: a real socket, no HTTP library."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Received:
    """One request as an upstream saw it."""

    def __init__(self, head: bytes, body: bytes, connection: int) -> None:
        self.head = head
        self.body = body
        self.connection = connection

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        lines = self.head.split(b"\r\n")[1:]
        return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]

    def get(self, name: bytes) -> bytes | None:
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(found) < 2, f"{name!r} came {len(found)} times"
        return found[0] if found else None


class ScriptedUpstream:
    """Answers every request by `script`: bytes to send, or a coroutine that does as it likes."""

    def __init__(self, script: bytes | Callable[[Received, asyncio.StreamWriter], Awaitable[None]]):
        self.script = script
        self.received: list[Received] = []
        self.connections = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.url = "http://127.0.0.1:%d" % self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def until(self, number: int) -> list[Received]:
        """Wait until `number` requests have come."""
        async with asyncio.timeout(10):
            while len(self.received) < number:
                await asyncio.sleep(0.005)
        return self.received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
                body = await read_body(head, reader)
                request = Received(head, body, number)
                self.received.append(request)
                if isinstance(self.script, bytes):
                    writer.write(self.script)
                    await writer.drain()
                else:
                    await self.script(request, writer)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()


async def read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """Read a request's body the plain way."""
    if re.search(rb"(?im)^transfer-encoding: *chunked\r?$", head):
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
        return body
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    return await reader.readexactly(int(length[1])) if length else b""


@asynccontextmanager
async def scripted_upstream(
    script: bytes | Callable[[Received, asyncio.StreamWriter], Awaitable[None]] = ANSWER,
) -> AsyncIterator[ScriptedUpstream]:
    """Run a `ScriptedUpstream` on a free port."""
    upstream = ScriptedUpstream(script)
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()
