"""Background tasks: each has a name, is held until it ends, and never fails in silence."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sidecar.runtime import faults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

REST_S: Final = 1.0  # after a fault: what fails at once would fail all the time
_RECANCEL_S = 1.0
_running: set[asyncio.Task[None]] = set()


def spawn(work: Coroutine[object, object, None], *, name: str) -> asyncio.Task[None]:
    """Start `work` as a task and hold it until it ends; an error that ends it is a fault."""
    task = asyncio.create_task(work, name=name)  # noqa: TID251 -- the one permitted place
    _running.add(task)  # a loop refers to its tasks weakly: unheld, one may vanish half-way
    task.add_done_callback(_finish)
    return task


async def repeat(turn: Callable[[], Awaitable[None]], *, part: str) -> None:
    """Do `turn` again and again until cancelled; a fault of `part` costs one turn, and a rest."""
    while True:
        try:
            await turn()
        except Exception as error:  # noqa: BLE001 -- what it does must not end for good
            faults.note(part, error)
            await asyncio.sleep(REST_S)


async def stop(*tasks: asyncio.Task[None]) -> None:
    """Cancel `tasks` and wait until all have ended. Their errors were told when they happened."""
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
        faults.note("task", error, task=task.get_name())
