"""What `spawn` and `stop` promise."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from sidecar.runtime.tasks import spawn, stop

if TYPE_CHECKING:
    from collections import Counter

    import pytest


async def test_an_error_that_ends_a_task_is_a_fault_with_its_name(
    caplog: pytest.LogCaptureFixture, counted_faults: Counter[str]
) -> None:
    async def fail() -> None:
        raise RuntimeError("lost")

    with caplog.at_level(logging.ERROR, "sidecar.faults"):
        await asyncio.wait({spawn(fail(), name="doomed")})
        await asyncio.sleep(0)

    assert [vars(record)["task"] for record in caplog.records] == ["doomed"]
    assert counted_faults == {"task": 1}


async def test_stop_ends_tasks_that_wait_and_tasks_that_have_ended() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    async def end() -> None:
        return

    waiting, ended = spawn(wait(), name="waiting"), spawn(end(), name="ended")
    await asyncio.sleep(0)

    await stop(waiting, ended)

    assert waiting.cancelled()
    assert ended.done()


async def test_stop_ends_a_task_that_swallows_a_cancellation() -> None:
    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = spawn(stubborn(), name="stubborn")
    await asyncio.sleep(0)

    await stop(task)

    assert task.done()


async def test_stop_of_nothing_returns() -> None:
    await stop()
