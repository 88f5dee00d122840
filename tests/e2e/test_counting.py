"""Counters never go down, whatever becomes of the workers that counted."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.support.load import steady_load
from tests.support.sidecar import flags, is_running, sidecar
from tests.support.upstream import eventually, scripted_upstream

if TYPE_CHECKING:
    from tests.support.sidecar import Sidecar

NAMES = ("rmv_requests_total", "rmv_request_duration_seconds_count", "rmv_connections_total")
ASKED = 20


async def counted(running: Sidecar) -> list[float]:
    return [await running.counted(name) for name in NAMES]


async def test_counters_add_up_exactly_over_a_hangup_under_load() -> None:
    async with (
        scripted_upstream() as up,
        sidecar("--workers", "2", *flags(v1=up.url)) as running,
    ):
        former, seen = running.workers(), [0.0, 0.0, 0.0]

        async def is_replaced() -> bool:
            nonlocal seen
            now = await counted(running)
            assert all(one >= other for one, other in zip(now, seen, strict=True))
            seen = now
            return not any(map(is_running, former))

        async with steady_load(running.listen) as load:
            await load.more(50)
            running.signal(signal.SIGHUP)
            await running.until(is_replaced, "new workers")
            await load.more(50)

        assert {one.answer.status for one in load.samples} == {200}
        await running.until(lambda: all_counted(running, len(load.samples)), "counts")


async def all_counted(running: Sidecar, number: int) -> bool:
    return (await counted(running))[:2] == [number, number]


async def test_a_worker_that_ends_leaves_what_it_has_counted() -> None:
    async with scripted_upstream() as up, sidecar(*flags(v1=up.url)) as running:
        for number, how in enumerate((signal.SIGTERM, signal.SIGKILL), 1):
            for _ in range(ASKED):
                await running.ask()
            if how is signal.SIGKILL:  # it says no last word: what counts is what was read
                await running.until(lambda: all_counted(running, 2 * ASKED), "counts")
            [worker] = running.workers()

            os.kill(worker, how)
            await eventually(lambda pid=worker: not is_running(pid))  # type: ignore[misc]

            assert (await counted(running))[:2] == [number * ASKED, number * ASKED]
            await running.until(running.is_ready, "ready again")
            assert await counted(running) == [number * ASKED] * 3
