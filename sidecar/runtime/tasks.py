"""Background tasks: each has a name, is held until it ends, and never fails in silence."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine

_log = logging.getLogger("sidecar.tasks")
_RECANCEL_S = 1.0
_running: set[asyncio.Task[None]] = set()


def spawn(work: Coroutine[object, object, None], *, name: str) -> asyncio.Task[None]:
    """Start `work` as a task and hold it until it ends; an error that ends it is logged."""
    task = asyncio.create_task(work, name=name)  # noqa: TID251 -- the one permitted place
    _running.add(task)  # a loop refers to its tasks weakly: unheld, one may vanish half-way
    task.add_done_callback(_finish)
    return task


async def stop(*tasks: asyncio.Task[None]) -> None:
    """Cancel `tasks` and wait until all have ended. Their errors were logged when they happened."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        # Again and again: `asyncio.wait_for` may swallow a cancellation before Python 3.12.
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_RECANCEL_S)


def _finish(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        _log.error("task failed", extra={"task": task.get_name()}, exc_info=error)
