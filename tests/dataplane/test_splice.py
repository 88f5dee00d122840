"""Bytes pass from socket to socket within the kernel, all of them, and nothing stays open."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sidecar.runtime.splice import MAX_SPLICES, Splicer
from sidecar.runtime.tasks import spawn
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sidecar.runtime.splice import Splice

BODY = random.Random(11).randbytes(9_000_000)  # noqa: S311 -- bytes that differ, no secrets
PIECE = 65_536

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="splice(2) is Linux's")


class Way:
    """A source that a client writes to, a sink that a server reads from, and what was told."""

    def __init__(self) -> None:
        self.splicer = Splicer()
        self.told: list[str] = []
        self.spliced = 0
        self.client, self.source = _pair()
        self.sink, self.server = _pair()

    def start(self, size: int) -> Splice | None:
        return self.splicer.start(self.source, self.sink, size, self)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.client, data)

    async def receive(self, size: int) -> bytes:
        """Read so many bytes, or up to the end."""
        got = bytearray()
        loop = asyncio.get_running_loop()
        while len(got) < size and (data := await loop.sock_recv(self.server, PIECE)):
            got += data
        return bytes(got)

    def close(self) -> None:
        for one in (self.client, self.source, self.sink, self.server):
            one.close()

    def on_spliced(self, size: int) -> None:
        self.spliced += size

    def on_splice_full(self) -> None:
        self.told.append("full")

    def on_splice_drained(self) -> None:
        self.told.append("drained")

    def on_splice_end(self) -> None:
        self.told.append("end")

    def on_source_lost(self) -> None:
        self.told.append("source lost")

    def on_sink_lost(self) -> None:
        self.told.append("sink lost")


def _pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
    near.settimeout(0)
    far.settimeout(0)
    return near, far


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class _File:
    """A descriptor that says that it is a socket's."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def getsockopt(self, _level: int, _option: int, _size: int, /) -> bytes:
        raise OSError


def _highest_file() -> int:
    return max(int(file.name) for file in Path("/proc/self/fd").iterdir())


@pytest.fixture
async def way() -> AsyncIterator[Way]:
    """Two connections to join; whatever a test does, it leaves no descriptor."""
    await asyncio.sleep(0)
    before = _open_files()
    way = Way()
    yield way
    way.close()
    assert _open_files() == before
    assert not way.splicer.under_way


@contextmanager
def files_at_most(limit: int) -> Iterator[None]:
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)


async def test_every_byte_passes_though_the_sink_is_slow(way: Way) -> None:
    way.start(len(BODY))
    sending = spawn(way.send(BODY), name="send")
    await eventually(lambda: "full" in way.told)
    assert await way.receive(len(BODY)) == BODY
    await sending
    assert way.told[-1] == "end"
    assert way.told.count("full") == way.told.count("drained")
    assert way.spliced == len(BODY)


async def test_bytes_pass_as_they_come(way: Way) -> None:
    way.start(4)
    for byte in (b"a", b"b", b"c", b"d"):
        await way.send(byte)
        assert await way.receive(1) == byte
    assert way.told == ["end"]


async def test_what_follows_the_body_stays_in_the_source(way: Way) -> None:
    way.start(5)
    await way.send(b"whole, and the next")
    assert await way.receive(5) == b"whole"
    await eventually(lambda: way.told == ["end"])
    loop = asyncio.get_running_loop()
    assert await loop.sock_recv(way.source, 100) == b", and the next"


async def test_a_source_that_ends_too_soon_is_told_after_what_it_sent(way: Way) -> None:
    way.start(len(BODY))
    await way.send(b"half")
    assert await way.receive(4) == b"half"
    way.client.close()
    await eventually(lambda: way.told == ["source lost"])


async def test_a_source_that_resets_is_told(way: Way) -> None:
    way.start(len(BODY))
    way.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    way.client.close()
    await eventually(lambda: way.told == ["source lost"])


async def test_a_sink_that_resets_is_told_while_it_is_waited_for(way: Way) -> None:
    way.start(len(BODY))
    sending = spawn(way.send(BODY), name="send")
    await eventually(lambda: "full" in way.told)
    way.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    way.server.close()
    await eventually(lambda: way.told[-1] == "sink lost")
    sending.cancel()


async def test_one_that_is_stopped_tells_nobody(way: Way) -> None:
    splice = way.start(len(BODY))
    assert splice is not None
    await way.send(b"begun")
    assert await way.receive(5) == b"begun"
    splice.stop()
    splice.stop()
    await way.send(b"not read")
    way.sink.close()
    assert await way.receive(1) == b""
    assert not way.told


async def test_there_are_only_so_many_at_once(way: Way) -> None:
    splices = [way.start(1) for _ in range(MAX_SPLICES)]
    assert way.start(1) is None
    for splice in splices:
        assert splice is not None
        splice.stop()
    another = way.start(1)
    assert another is not None
    another.stop()


@pytest.mark.parametrize("spare", range(4))
async def test_without_descriptors_none_begins_and_none_is_kept(way: Way, spare: int) -> None:
    held = [os.dup(0) for _ in range(_highest_file())]  # no number below is free
    try:
        with files_at_most(max(held) + 1 + spare):
            assert way.start(1) is None
    finally:
        for file in held:
            os.close(file)


async def test_where_the_kernel_refuses_nothing_is_lost_and_none_begins_again(way: Way) -> None:
    counter = os.eventfd(7, os.EFD_NONBLOCK)  # readable, and no source for splice(2)
    try:
        assert way.splicer.start(_File(counter), way.sink, 100, way) is not None
        await eventually(lambda: way.told == ["source lost"])
        assert os.eventfd_read(counter) == 7
        assert way.start(1) is None
    finally:
        os.close(counter)
