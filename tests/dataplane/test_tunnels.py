"""Tunnels hold back whoever is faster than the other side, and begin after a whole request."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.memory import bounded
from tests.support.messages import PATIENCE_S, Feed
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import eventually, reset, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.proxy import Client, Proxy
    from tests.support.upstream import Received

UPGRADE = b"Connection: Upgrade\r\nUpgrade: echo/1\r\n"
ASK = b"GET / HTTP/1.1\r\nHost: h\r\n" + UPGRADE + b"\r\n"
AGREED = b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"\r\n"
PIECE = bytes(64 * 1024)
TOTAL = 64 * 1024 * 1024
SOME = 6 * 1024 * 1024  # more than is on the way to who does not read
HELD_AT_MOST = TOTAL * 3 // 4  # kernels' buffers, and the sidecar's


class End:
    """One end of a tunnel, which reads and sends as a test tells it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sent = 0
        self._reader = reader
        self._writer = writer
        bounded(writer)

    async def pour(self, total: int = TOTAL) -> None:
        """Send so many bytes."""
        while self.sent < total:
            self._writer.write(PIECE)
            await self._writer.drain()
            self.sent += len(PIECE)

    async def take(self, total: int = TOTAL) -> None:
        """Read so many bytes."""
        taken = 0
        while taken < total:
            data = await self._reader.read(len(PIECE))
            assert data, f"it ended after {taken} bytes"
            taken += len(data)

    async def end(self) -> None:
        """Send no more, and read to the end."""
        self._writer.write_eof()
        assert await self._reader.read() == b""

    async def stalled(self) -> int:
        """Wait until it cannot send on; return how much it has sent."""
        seen = -1
        while seen != self.sent or not seen:
            seen = self.sent
            await asyncio.sleep(0.2)
        return seen


@asynccontextmanager
async def tunnel(log: Path) -> AsyncIterator[tuple[Proxy, Client, End, End]]:
    """Yield a tunnel: the client, its end, and the upstream's."""
    ends: list[End] = []
    is_over = asyncio.Event()

    async def agree(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(AGREED)
        ends.append(End(reader, writer))
        await is_over.wait()

    async with (
        scripted_upstream(conversation=agree) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        await client.send(ASK)
        await client.head()
        await eventually(lambda: bool(ends))
        yield running, client, End(client.reader, client.writer), ends[0]
        is_over.set()


@pytest.mark.parametrize("fast", ["the client", "the upstream"])
async def test_who_is_faster_than_the_other_side_has_to_wait(log: Path, fast: str) -> None:
    async with tunnel(log) as (_, _, near, far), asyncio.timeout(3 * PATIENCE_S):
        source, sink = (near, far) if fast == "the client" else (far, near)
        pouring = asyncio.ensure_future(source.pour())
        held = await source.stalled()
        await sink.take()
        await pouring

    assert held < HELD_AT_MOST


async def test_a_client_that_leaves_while_its_upstream_takes_nothing_ends_the_tunnel(
    log: Path,
) -> None:
    async with tunnel(log) as (running, client, near, _), asyncio.timeout(PATIENCE_S):
        pouring = asyncio.ensure_future(near.pour())
        await near.stalled()
        pouring.cancel()
        reset(client.writer)

        assert (await running.recorded())[0]["status"] == 101


async def test_who_sends_no_more_has_all_passed_on_however_slow_the_other_side_is(
    log: Path,
) -> None:
    async with tunnel(log) as (running, _, near, far), asyncio.timeout(3 * PATIENCE_S):
        await near.pour(SOME)
        ending = asyncio.ensure_future(near.end())
        await running.swept()  # which looks for clients that have left
        await far.take(SOME)
        await far.end()
        await ending

        assert (await running.recorded())[0]["request_bytes"] == SOME


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize(
    ("framed", "body"),
    [
        (b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    ],
    ids=["by length", "chunked"],
)
async def test_a_tunnel_begins_after_the_body_of_its_request(
    log: Path, framed: bytes, body: bytes, how: Feed
) -> None:
    async def agree(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(AGREED + b"welcome")

    async with chain(log, agree) as (running, upstream), running.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\n" + UPGRADE + framed, how)
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        assert await client.exactly(7) == b"welcome"
        assert upstream.received[0].body == body
