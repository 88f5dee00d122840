"""A worker gives its place to another one, and no client notices."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.support.messages import read_answer
from tests.support.sidecar import ask, flags, is_running, sidecar, spell
from tests.support.upstream import eventually, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLIENTS = 4
NOWHERE = "http://127.0.0.1:9"


@asynccontextmanager
async def newcomers(address: tuple[str, int]) -> AsyncIterator[list[int]]:
    """Have clients that open a connection for each request; yield the statuses so far."""
    statuses: list[int] = []
    is_over = asyncio.Event()

    async def client() -> None:
        while not is_over.is_set():
            statuses.append((await ask(address)).status)
            await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as group:  # a client that fails ends the test
        for _ in range(CLIENTS):
            group.create_task(client())
        try:
            yield statuses
        finally:
            is_over.set()


async def test_a_hangup_replaces_every_worker_and_fails_no_request() -> None:
    async with (
        scripted_upstream() as up,
        sidecar("--workers", "2", *flags(v1=up.url)) as running,
    ):
        former = running.workers()
        async with newcomers(running.listen) as statuses:
            await eventually(lambda: len(statuses) > 20)

            running.signal(signal.SIGHUP)
            await running.says("workers replaced")
            await eventually(lambda: not any(map(is_running, former)))

            seen = len(statuses)
            await eventually(lambda: len(statuses) > seen + 20)

        assert set(statuses) == {200}
        assert len(running.workers()) == 2
        assert not set(former) & set(running.workers())
        assert await running.is_ready()
        assert await running.counted("rmv_workers_up") == 2


async def test_who_waits_for_a_worker_that_is_killed_is_served_by_the_next() -> None:
    async with (
        scripted_upstream() as up,
        sidecar("--workers", "1", *flags(v1=up.url)) as running,
    ):
        [worker] = running.workers()
        os.kill(worker, signal.SIGSTOP)
        reader, writer = await asyncio.open_connection(*running.listen)
        writer.write(spell())

        os.kill(worker, signal.SIGKILL)

        assert (await read_answer(reader)).status == 200
        writer.close()


async def test_a_worker_whose_successor_cannot_begin_stays() -> None:
    async with sidecar("--workers", "1", *flags(v1=NOWHERE)) as running:
        [worker] = running.workers()
        begun: set[int] = set()

        def has_successor() -> bool:
            begun.update(set(running.workers()) - {worker})  # it has no name while it is loaded
            return bool(begun)

        running.signal(signal.SIGHUP)
        await eventually(has_successor)
        [successor] = begun

        os.kill(successor, signal.SIGKILL)

        await running.says('msg="not every worker was replaced" replaced=0 workers=1')
        assert running.workers() == [worker]
        assert await running.is_ready()


async def test_a_worker_whose_successor_is_not_ready_in_time_stays() -> None:
    settings = "[timeouts]\nworker_start_s = 0.05"  # sooner than any interpreter is there
    async with (
        scripted_upstream() as up,
        sidecar("--workers", "1", *flags(v1=up.url), settings=settings) as running,
    ):
        former = running.workers()

        running.signal(signal.SIGHUP)

        await running.says('msg="worker not replaced" worker=0 ready=False')
        await eventually(lambda: running.workers() == former)
        assert (await running.ask()).status == 200
        assert await running.is_ready()


async def test_told_to_end_while_it_replaces_it_leaves_no_process() -> None:
    async with sidecar("--workers", "2", *flags(v1=NOWHERE)) as running:
        running.signal(signal.SIGHUP)
        await eventually(lambda: len(running.workers()) == 3)
        processes = running.children()

        running.signal(signal.SIGTERM)

        assert await running.ended() == 0
        await eventually(lambda: not any(map(is_running, processes)))
        assert "Traceback" not in running.said()
