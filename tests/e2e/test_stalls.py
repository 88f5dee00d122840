"""A worker that stands still is told of, with what it cost."""

from __future__ import annotations

import asyncio
import os
import signal

from tests.support.sidecar import flags, sidecar
from tests.support.upstream import scripted_upstream

STALL_S = 0.3


async def test_a_worker_that_stood_still_counts_it() -> None:
    async with scripted_upstream() as upstream, sidecar(*flags(v1=upstream.url)) as running:
        [worker] = running.workers()
        before = await running.counted("rmv_loop_stalls_total")
        os.kill(worker, signal.SIGSTOP)
        await asyncio.sleep(STALL_S)
        os.kill(worker, signal.SIGCONT)

        async def is_counted() -> bool:
            return await running.counted("rmv_loop_stalls_total") > before

        await running.until(is_counted, "a stall")
        assert await running.counted("rmv_loop_stall_seconds") > 0.1
        assert (await running.ask()).status == 200
