"""Connections are taken, or turned away, whatever the process has run out of."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from contextlib import closing
from typing import TYPE_CHECKING

from sidecar.dataplane.acceptor import Acceptor
from sidecar.runtime.sockets import bind
from sidecar.telemetry.metrics import Metrics
from tests.support.messages import PATIENCE_S
from tests.support.sidecar import flags, sidecar
from tests.support.upstream import ANSWER, eventually, scripted_upstream

if TYPE_CHECKING:
    import pytest

RESTS_S = 0.1  # at least, while six attempts are made: to spin takes a millisecond
REFUSAL = b"HTTP/1.1 503 Overloaded\r\nConnection: close\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


async def refused(address: tuple[str, int]) -> bytes:
    """Return all that one client hears; it sends a request first."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(GET)
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    finally:
        writer.close()


class Poor(socket.socket):
    """A listening socket in a process that can run out of file descriptors."""

    attempts = 0
    spares: list[int]  # one entry for each accept that succeeds all the same

    def accept(self) -> tuple[socket.socket, object]:
        self.attempts += 1
        if self.spares and not self.spares.pop():
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def poor(spares: list[int]) -> Poor:
    listening = Poor(fileno=bind("127.0.0.1:0").detach())
    listening.spares = spares
    return listening


async def test_a_client_without_a_file_for_it_is_told_and_the_next_is_served() -> None:
    metrics, taken = Metrics(), list[socket.socket]()
    listening = poor([1, 0])  # the first accept fails, the one with the reserve does not
    acceptor = Acceptor(listening, taken.append, metrics, REFUSAL)
    acceptor.start()
    address = listening.getsockname()

    assert await refused(address) == REFUSAL
    assert metrics.events["rmv_limits_hit_total", "limit", "files"] == 1
    assert not taken
    _, writer = await asyncio.open_connection(*address)
    await eventually(lambda: len(taken) == 1)
    writer.close()
    acceptor.close()
    taken[0].close()


async def test_a_queue_that_cannot_be_served_is_not_spun_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics, taken = Metrics(), list[socket.socket]()
    listening = poor([0] * 1000)  # not even the reserve helps
    acceptor = Acceptor(listening, taken.append, metrics, REFUSAL)
    began_s = asyncio.get_running_loop().time()
    acceptor.start()
    with closing(socket.create_connection(listening.getsockname())):
        await eventually(lambda: listening.attempts >= 6)
        took_s = asyncio.get_running_loop().time() - began_s

        assert took_s > RESTS_S  # two attempts in each pause, and none between
        assert len(caplog.records) == 1
        listening.spares.clear()
        await eventually(lambda: len(taken) == 1)
    acceptor.close()
    taken[0].close()


async def test_a_sidecar_short_of_files_answers_503_and_recovers() -> None:
    async with scripted_upstream(ANSWER) as upstream, sidecar(*flags(v1=upstream.url)) as running:
        (worker,) = running.workers()
        numbers = [int(name) for name in os.listdir(f"/proc/{worker}/fd")]
        before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (max(numbers) + 1, before[1]))
        holes = max(numbers) + 1 - len(numbers)
        idle = [await asyncio.open_connection(*running.listen) for _ in range(holes + 1)]
        heard = await refused(running.listen)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
        for _, writer in idle:
            writer.close()

        assert heard.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1\r\n" in heard
        assert b"no file descriptor left" in heard
        assert (await running.ask()).status == 200
        assert await running.counted("rmv_limits_hit_total", limit="files") >= 1
