"""What dies is started again, and takes nothing with it that was not its own."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tests.support.messages import read_answer
from tests.support.sidecar import WORKER_DIGITS, flags, is_running, sidecar, spell
from tests.support.upstream import ANSWER, eventually, scripted_upstream

if TYPE_CHECKING:
    from tests.support.messages import Answer
    from tests.support.upstream import Received

CONNECTIONS = 16  # enough for the kernel to give each of two workers some


class Held:
    """A connection, the worker that has it, and a slow request on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.worker = b""

    async def begin(self) -> None:
        """Learn who is at the other end, then ask for what takes long."""
        self._writer.write(spell(path="/quick"))
        answer = await read_answer(self._reader)
        self.worker = (answer.get(b"X-Request-Id") or b"")[:WORKER_DIGITS]
        self._writer.write(spell(path="/slow"))

    async def outcome(self) -> Answer | None:
        """Return the slow answer, None when the connection was lost."""
        try:
            return await read_answer(self._reader)
        except (OSError, asyncio.IncompleteReadError):
            return None


async def test_a_killed_worker_costs_its_own_requests_alone_and_is_back() -> None:
    release = asyncio.Event()

    async def slow(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target == b"/slow":
            await release.wait()
        writer.write(ANSWER)

    async with (
        scripted_upstream(slow) as up,
        sidecar("--workers", "2", *flags(v1=up.url)) as running,
        AsyncExitStack() as stack,
    ):
        held: list[Held] = []
        while len({one.worker for one in held}) < 2 or len(held) < CONNECTIONS:
            reader, writer = await asyncio.open_connection(*running.listen)
            stack.callback(writer.transport.abort)
            held.append(Held(reader, writer))
            await held[-1].begin()
        await up.until(2 * len(held))
        victim, *others = running.workers()

        os.kill(victim, signal.SIGKILL)
        await running.says("worker died")
        release.set()
        outcomes = {one: await one.outcome() for one in held}

        lost = {one.worker for one, answer in outcomes.items() if answer is None}
        kept = {one.worker for one, answer in outcomes.items() if answer is not None}
        assert len(lost) == len(kept) == 1
        assert lost != kept
        assert all(answer.status == 200 for answer in outcomes.values() if answer)

        await running.until(running.is_ready, "ready again")
        assert len(running.workers()) == 2
        assert set(others) < set(running.workers())
        assert {answer.status for answer in await running.ask_workers(2)} == {200}
        assert await running.counted("rmv_workers_up") == 2


async def test_a_worker_that_hangs_is_replaced_by_one_that_serves_who_waited() -> None:
    settings = "[timeouts]\nworker_hang_s = 0.1"
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url), settings=settings) as running,
    ):
        [worker] = running.workers()
        os.kill(worker, signal.SIGSTOP)

        answer = await running.ask()

        assert answer.status == 200
        assert "worker killed: it does not answer" in running.said()
        assert not is_running(worker)


async def test_when_the_control_process_is_killed_all_others_end_by_themselves() -> None:
    async with (
        scripted_upstream() as up,
        sidecar("--workers", "2", *flags(v1=up.url)) as running,
    ):
        processes = running.children()
        assert len(processes) == 3

        running.signal(signal.SIGKILL)

        await eventually(lambda: not any(map(is_running, processes)))
