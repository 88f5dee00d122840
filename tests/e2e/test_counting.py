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

# None is closed while its client, on a busy machine, comes late with its next request.
PATIENT = "[timeouts]\ndrain_idle_s = 30.0\n"
NAMES = ("rmv_requests_total", "rmv_request_duration_seconds_count", "rmv_connections_total")
ASKED = 20


async def counted(running: Sidecar) -> list[float]:
    return [await running.counted(name) for name in NAMES]


async def test_counters_add_up_exactly_over_a_hangup_under_load() -> None:
    async with (
        scripted_upstream() as up,
        sidecar("--workers", "2", *flags(v1=up.url), settings=PATIENT) as running,
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

        assert load.unserved() == []
        await all_counted(running, len(load.samples))


async def all_counted(running: Sidecar, number: int) -> None:
    """Wait until every request that was answered is counted, and none besides."""
    seen = [0.0, 0.0]

    async def is_counted() -> bool:
        seen[:] = (await counted(running))[:2]
        return seen == [number, number]

    try:
        await running.until(is_counted, "counts")
    except AssertionError as error:
        raise AssertionError(f"{seen} are counted of {number} that were answered") from error


async def test_a_worker_that_ends_leaves_what_it_has_counted() -> None:
    async with scripted_upstream() as up, sidecar(*flags(v1=up.url)) as running:
        for number, how in enumerate((signal.SIGTERM, signal.SIGKILL), 1):
            for _ in range(ASKED):
                await running.ask()
            if how is signal.SIGKILL:  # it says no last word: what counts is what was read
                await all_counted(running, 2 * ASKED)
            [worker] = running.workers()

            os.kill(worker, how)
            await eventually(lambda pid=worker: not is_running(pid))  # type: ignore[misc]

            assert (await counted(running))[:2] == [number * ASKED, number * ASKED]
            await running.until(running.is_ready, "ready again")
            assert await counted(running) == [number * ASKED] * 3
