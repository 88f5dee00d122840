"""An upstream that does just what a test tells it: a real socket, no HTTP library."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.support.messages import PATIENCE_S, Feed, Fields, feed, read_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Script = bytes | Callable[["Received", asyncio.StreamWriter], Awaitable[None]]
    Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UNASKED = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked"
_LOST = (asyncio.IncompleteReadError, ConnectionError)


class Received:
    """One request as an upstream saw it; `connection` counts from 1."""

    def __init__(self, head: bytes, body: bytes, connection: int) -> None:
        self.head = head
        self.body = body
        self.connection = connection
        self.fields = Fields.parse(head)

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]

    @property
    def method(self) -> bytes:
        return self.line.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    def get(self, name: bytes) -> bytes | None:
        """Return the value of a field that must not repeat, or None."""
        return self.fields.get(name)


class ScriptedUpstream:
    """Answers every request by `script`: bytes to send, or a coroutine that does as it likes.

    A conversation instead of a script gets the bare connection.
    """

    def __init__(self, script: Script = ANSWER, conversation: Conversation | None = None) -> None:
        self.script = script
        self.received: list[Received] = []
        self.connections = 0
        self.lost = 0  # connections that the other side ended
        self.url = ""
        self._conversation = conversation
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> None:
        """Listen on a port, by default a free one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Refuse connections from now on, and reset those that are open."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await asyncio.sleep(0)  # a turn of the loop, in which the sockets close

    async def until(self, number: int) -> list[Received]:
        """Wait until `number` requests have come."""
        await eventually(lambda: len(self.received) >= number)
        return self.received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            if self._conversation is not None:
                await self._conversation(reader, writer)
            else:
                await self._answer(reader, writer, self.connections)
        except _LOST:
            self.lost += 1
        except asyncio.CancelledError:
            return  # by `stop`; Python 3.11 would log it as an error
        finally:
            self._serving.discard(task)
            if not writer.is_closing():
                writer.transport.abort()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> None:
        while not writer.is_closing():
            request = await receive(reader, connection)
            self.received.append(request)
            if isinstance(self.script, bytes):
                writer.write(self.script)
                await writer.drain()
            else:
                await self.script(request, writer)


async def receive(reader: asyncio.StreamReader, connection: int = 1) -> Received:
    """Read one request."""
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
    body, _ = await read_body(head, reader)
    return Received(head, body, connection)


def answering(
    response: bytes, how: Feed = Feed.WHOLE, *, closes: bool = False
) -> Callable[[Received, asyncio.StreamWriter], Awaitable[None]]:
    """Return a script that sends `response`, then closes if told so."""

    async def answer(_request: Received, writer: asyncio.StreamWriter) -> None:
        await feed(writer, response, how, UNASKED)
        if closes:
            writer.close()

    return answer


async def never(_request: Received, _writer: asyncio.StreamWriter) -> None:
    """Do not answer; a script."""
    await asyncio.Event().wait()


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until `holds` does."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.002)


@asynccontextmanager
async def scripted_upstream(
    script: Script = ANSWER, conversation: Conversation | None = None
) -> AsyncIterator[ScriptedUpstream]:
    """Run a `ScriptedUpstream` on a free port."""
    upstream = ScriptedUpstream(script, conversation)
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
