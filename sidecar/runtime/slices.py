"""Long work beside a loop that serves: a slice at a time, and out of the collector's sight."""

from __future__ import annotations

import asyncio
import gc
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

SLICE_S: Final = 0.001  # a request that arrives meanwhile waits for no more; a round costs 20 us

T = TypeVar("T")


class Slice:
    """How much of the loop's time has been used; the first slice may be of another length."""

    def __init__(self, first_s: float | None = None) -> None:
        self._end_s = perf_counter() + (SLICE_S if first_s is None else first_s)

    def is_over(self) -> bool:
        """Return whether it is time to let the loop do other things; then the next one begins."""
        return perf_counter() >= self._end_s

    async def rest(self) -> None:
        """Let the loop do what has come up, and begin the next slice."""
        await asyncio.sleep(0)
        self._end_s = perf_counter() + SLICE_S


async def in_slices(steps: Generator[None, None, T]) -> T:
    """Do work in steps (`policy.steps`), and let the loop serve in between."""
    turn = Slice()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if turn.is_over():
            await turn.rest()


class _Collector:
    """Python's collector of circular garbage, and how many keep it from working."""

    held = 0


@contextmanager
def lasting() -> Iterator[None]:
    """Keep the collector from what is built within, until the process ends.

    It would look through all of it again and again, for tens of milliseconds if that is a large
    policy. What is built must have no circular references: counting them has to be what frees it.
    """
    _Collector.held += 1
    gc.disable()
    try:
        yield
    finally:
        _Collector.held -= 1
        if not _Collector.held:
            gc.freeze()
            gc.enable()
