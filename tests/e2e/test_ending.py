"""A sidecar that is told to end finishes what it has in hand, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import fcntl
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.load import steady_load
from tests.support.sidecar import ask, flags, is_running, sidecar
from tests.support.upstream import ANSWER, eventually, never, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.messages import Answer
    from tests.support.sidecar import Sidecar
    from tests.support.upstream import Received, ScriptedUpstream

IN_HAND = 8
Pending = list["asyncio.Task[Answer]"]


@asynccontextmanager
async def in_hand(
    running: Sidecar, upstream: ScriptedUpstream, number: int = IN_HAND
) -> AsyncIterator[Pending]:
    """Send requests, and wait until the upstream has them all."""
    pending = [asyncio.ensure_future(ask(running.listen)) for _ in range(number)]
    try:
        await upstream.until(number)
        yield pending
    finally:
        for one in pending:
            one.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def nothing_is_left(pids: list[int]) -> None:
    await eventually(lambda: not any(map(is_running, pids)))


async def test_told_to_end_it_answers_what_it_has_in_hand_and_leaves_no_process() -> None:
    release = asyncio.Event()

    async def slow(_request: Received, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(ANSWER)

    async with (
        scripted_upstream(slow) as up,
        sidecar("--workers", "2", *flags(v1=up.url)) as running,
        in_hand(running, up) as pending,
    ):
        processes = running.children()
        assert len(processes) == 3  # two workers and the store

        running.signal(signal.SIGTERM)
        await running.until(lambda: is_refused(running), "closed port")
        assert await running.asked_admin("/readyz") == (503, "draining\n")
        assert not any(one.done() for one in pending)
        release.set()
        answers = await asyncio.gather(*pending)

        assert {answer.status for answer in answers} == {200}
        assert {answer.get(b"Connection") for answer in answers} == {b"close"}
        assert await running.ended() == 0
        await nothing_is_left(processes)
        assert len(running.records()) == IN_HAND


async def is_refused(running: Sidecar) -> bool:
    try:
        _, writer = await asyncio.open_connection(*running.listen)
    except ConnectionError:
        return True
    writer.transport.abort()
    return False


async def test_under_load_every_request_that_was_passed_on_is_answered() -> None:
    async with (
        scripted_upstream() as up,
        sidecar("--workers", "2", *flags(v1=up.url)) as running,
        steady_load(running.listen) as load,
    ):
        await load.more(50)

        running.signal(signal.SIGTERM)

        assert await running.ended() == 0
        await eventually(lambda: len(load.samples) == len(up.received))
        assert {one.answer.status for one in load.samples} == {200}
        assert len(running.records()) == len(up.received)


async def test_what_outlives_the_drain_time_is_told_so() -> None:
    async with (
        scripted_upstream(never) as up,
        sidecar(*flags(v1=up.url), settings="[timeouts]\ndrain_s = 0.2\n") as running,
        in_hand(running, up, 1) as [pending],
    ):
        running.signal(signal.SIGTERM)

        assert await running.ended() == 0
        assert (await pending).status == 503
        assert "drain time is over" in running.said()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_again_it_ends_at_once(number: signal.Signals) -> None:
    async with (
        scripted_upstream(never) as up,
        sidecar(*flags(v1=up.url)) as running,  # it would drain for 30 s
        in_hand(running, up, 1) as [pending],
    ):
        processes = running.children()
        running.signal(number)
        await running.says("msg=stopping kills_after_s=65.0")

        running.signal(number)

        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await pending
        assert await running.ended() == 0
        await nothing_is_left(processes)


async def test_told_to_end_before_it_serves_it_ends_well() -> None:
    async with sidecar(*flags(v1="http://127.0.0.1:9"), waits=False) as running:
        running.state_dir.mkdir(mode=0o700)
        with (running.state_dir / "valkey.lock").open("ab") as lock:
            # Whoever holds it is about to start the store, so the sidecar waits.
            fcntl.flock(lock, fcntl.LOCK_EX)
            await running.says("AUTH IS OFF")

            running.signal(signal.SIGTERM)

            assert await running.ended() == 0
        assert "Traceback" not in running.said()
