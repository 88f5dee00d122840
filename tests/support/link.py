"""A TCP link to a server that a test makes slow, silent or deaf."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

TLS_RECORD: Final = b"\x16"  # begins what clients of TLS say: a handshake (RFC 8446 section 5.1)

# What RESP3 client tracking sends: a null, or keys.
_REPORT = re.compile(
    rb">2\r\n\$10\r\ninvalidate\r\n(?:_\r\n|\*(?P<n>\d+)\r\n(?:\$\d+\r\n[^\r]*\r\n)+)"
)


class Link:
    """Passes bytes both ways between whoever connects to `port` and a server.

    `delay_s` is what each piece waits. While `is_silent` nothing passes and nothing is closed, as
    on a path that drops packets; while `is_deaf` reports of client tracking do not pass, while
    `is_mute` they alone do of what the server says.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.url = ""
        self.delay_s = 0.0
        self.is_silent = False
        self.is_deaf = False
        self.is_mute = False
        self.received_bytes = 0
        """What the server has sent."""
        self.target = target
        """The port of the server."""
        self.over_tls = 0
        """How many connections have spoken TLS, of a link that takes both."""

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # nobody is there, so nobody is here
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, back, is_answer=False))
                both.create_task(self._pump(there, writer, is_answer=True))
        finally:
            back.close()
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                await asyncio.sleep(self.delay_s)
                if self.is_silent:
                    continue
                if is_answer:
                    self.received_bytes += len(data)
                if is_answer and self.is_deaf:
                    data = _REPORT.sub(b"", data)
                if is_answer and self.is_mute:
                    data = b"".join(found[0] for found in _REPORT.finditer(data))
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def link_to(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Link]:
    """Run a link to a port of the loopback; `tls` is what its clients have to speak."""
    link = Link(port)
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        with suppress(asyncio.CancelledError):
            await link.pass_on(reader, writer)
        running.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    link.port = server.sockets[0].getsockname()[1]
    link.url = f"redis{'s' if tls else ''}://127.0.0.1:{link.port}"
    try:
        yield link
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@asynccontextmanager
async def link_of_both(port: int, tls: ssl.SSLContext) -> AsyncIterator[Link]:
    """Run a link to a port of the loopback whose clients speak TLS, or not, as each likes.

    Servers that know each other by such ports are to clients with TLS as if they spoke it.
    """
    link = Link(port)
    loop = asyncio.get_running_loop()

    async def serve(client: socket.socket) -> None:
        # One that does not trust the certificate hangs up.
        with suppress(OSError), ExitStack() as closing:
            closing.callback(client.close)
            is_tls = await _first_byte(client) == TLS_RECORD
            closing.pop_all()  # from here on it is the transport's
            link.over_tls += is_tls
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, client, ssl=tls if is_tls else None
            )
            await link.pass_on(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    async with AsyncExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.settimeout(0)
        link.port = listening.getsockname()[1]
        running: set[asyncio.Task[None]] = set()

        async def accept() -> None:
            while True:
                client, _ = await loop.sock_accept(listening)
                client.settimeout(0)
                running.add(asyncio.ensure_future(serve(client)))

        running.add(asyncio.ensure_future(accept()))
        try:
            yield link
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def _first_byte(client: socket.socket) -> bytes:
    """Wait for what a client says, and leave it there."""
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(client.fileno(), heard.set)
    try:
        await heard.wait()
    finally:
        loop.remove_reader(client.fileno())
    return client.recv(1, socket.MSG_PEEK)
