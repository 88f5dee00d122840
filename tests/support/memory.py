"""Bodies of any size through a real sidecar, and what the memory of its worker does meanwhile."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.messages import read_answer
from tests.support.sidecar import PATIENCE_S, flags, sidecar
from tests.support.upstream import ANSWER, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MIB = 1024 * 1024

_PIECE = bytes(256 * 1024)
_CHUNK = b"%x\r\n" % len(_PIECE) + _PIECE + b"\r\n"
_END = b"\r\n0\r\n\r\n"  # the content is zeros, so it is found nowhere else
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_WARMING = 4 * MIB
_TAKERS_BUFFER = MIB // 2
_SAMPLE_S = 0.02
_STILL_S = 0.1
_SETTINGS = "workers = 1\n[timeouts]\nbody_idle_s = 600.0\n"


class BigBody:
    """A body: how much of it one end has sent and the other has taken.

    It is told by its length, or `chunked`. The taker stops `stops` times on its way, until the
    sender cannot go on.
    """

    def __init__(self, size: int, stops: int = 0, *, chunked: bool = True) -> None:
        self.size = size
        self.head = _CHUNKED if chunked else b"Content-Length: %d\r\n\r\n" % size
        self.sent = 0
        self.taken = 0
        self.most_held = 0  # at a stop, between the two ends
        self._piece, self._end = (_CHUNK, _END) if chunked else (_PIECE, b"")
        self._stops = [size * number // (stops + 1) for number in range(1, stops + 1)]

    @property
    def held_back(self) -> bool:
        """Whether the sender had to wait for the taker.

        How soon is the kernel's affair: buffers grow with the speed of who reads, up to
        `net.ipv4.tcp_rmem`, 32 MiB by default. Those of takers do not (`bounded`), so that only
        the sidecar's do: of 64 MiB up to 41 were seen to be under way.
        """
        return 0 < self.most_held < self.size * 3 // 4

    async def send(self, writer: asyncio.StreamWriter) -> None:
        """Send it all."""
        while self.sent < self.size:
            writer.write(self._piece)
            await writer.drain()
            self.sent += len(_PIECE)
        writer.write(self._end[2:])
        await writer.drain()

    async def take(self, reader: asyncio.StreamReader) -> None:
        """Read to its end."""
        tail = b""
        while self.taken < self.size or not tail.endswith(self._end):
            data = await reader.read(MIB)
            assert data, f"it ended after {self.taken} bytes"
            self.taken += len(data)
            tail = (tail + data[-len(_END) :])[-len(_END) :]
            if self._stops and self.taken > self._stops[0]:
                self._stops.pop(0)
                await self.stalled()

    async def stalled(self) -> None:
        """Wait until the sender is ahead and cannot go on."""
        async with asyncio.timeout(PATIENCE_S):
            seen = -1
            while seen != self.sent or self.sent <= self.taken:
                seen = self.sent
                await asyncio.sleep(_STILL_S)
        self.most_held = max(self.most_held, self.sent - self.taken)


class Growth:
    """How far the resident memory of a process rises above `most`, which it has had before.

    Not above what it has at first: the allocator keeps 2 MiB of what was freed, or has just given
    them back, and that is no growth.
    """

    def __init__(self, pid: int, most: int) -> None:
        self.most = most
        self._pid = pid
        self._before = most

    async def follow(self) -> None:
        """Look again and again."""
        while True:
            self.look()
            await asyncio.sleep(_SAMPLE_S)

    def look(self) -> None:
        """Look once."""
        self.most = max(self.most, resident_bytes(self._pid))

    @property
    def bytes(self) -> int:
        """How far it has risen."""
        return self.most - self._before


class Passage:
    """A way through a sidecar to an upstream that takes or sends the body in hand."""

    def __init__(self) -> None:
        self.address = ("", 0)
        self.worker = 0  # its pid
        self.body = BigBody(0)
        self._most = 0  # bytes that the worker has had

    async def upload(self, body: BigBody) -> int:
        """Send a body up; return by how many bytes the worker grew."""
        self.body = body
        reader, writer = await asyncio.open_connection(*self.address)
        async with self._watched() as growth:
            writer.write(b"POST / HTTP/1.1\r\nHost: h\r\n" + body.head)
            await body.send(writer)
            answer = await read_answer(reader)
        writer.close()
        assert answer.status == 200
        assert body.taken >= body.size
        return growth.bytes

    async def download(self, body: BigBody) -> int:
        """Take a body that comes down; return by how many bytes the worker grew."""
        self.body = body
        reader, writer = await asyncio.open_connection(*self.address)
        bounded(writer)
        async with self._watched() as growth:
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            await body.take(reader)
        writer.close()
        assert body.taken >= body.size
        return growth.bytes

    async def leave_unread(self, body: BigBody, for_s: float) -> int:
        """Ask for a body and take nothing of it; return by how many bytes the worker grew."""
        self.body = body
        _, writer = await asyncio.open_connection(*self.address, limit=1)
        bounded(writer)
        async with self._watched() as growth:
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await body.stalled()
            await asyncio.sleep(for_s)
        writer.transport.abort()
        return growth.bytes

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be the upstream."""
        bounded(writer)
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST"):
                await self.body.take(reader)
                writer.write(ANSWER)
            else:
                writer.write(b"HTTP/1.1 200 OK\r\n" + self.body.head)
                await self.body.send(writer)

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[Growth]:
        growth = Growth(self.worker, self._most or resident_bytes(self.worker))
        following = asyncio.ensure_future(growth.follow())
        try:
            yield growth
        finally:
            following.cancel()
            growth.look()
            self._most = growth.most


@asynccontextmanager
async def passage(*, shadow_hangs: bool) -> AsyncIterator[Passage]:
    """Run a sidecar of one worker, warm; if told so, with a shadow that takes and says nothing."""
    way = Passage()
    async with (
        scripted_upstream(conversation=way.answer) as primary,
        scripted_upstream(conversation=_hang) as shadow,
        sidecar(
            *flags(v1=primary.url, v2=shadow.url),
            *(("--shadow", "v2") if shadow_hangs else ()),
            settings=_SETTINGS,
        ) as running,
    ):
        way.address = running.listen
        (way.worker,) = running.workers()
        for chunked in (True, False):  # what is made once is no growth
            await way.upload(BigBody(_WARMING, chunked=chunked))
            await way.download(BigBody(_WARMING, chunked=chunked))
        yield way


def bounded(writer: asyncio.StreamWriter) -> None:
    """Keep the kernel from taking more and more for who reads a connection."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _TAKERS_BUFFER)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, exactly: `status` is late by some pages."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Rss:\s+(\d+) kB$", rollup, re.MULTILINE)
    assert found is not None, rollup
    return int(found[1]) * 1024


async def _hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()
