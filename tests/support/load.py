"""A steady load of requests, and what became of each."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from tests.support.messages import read_answer
from tests.support.sidecar import spell
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.messages import Answer

CLIENTS = 4
PAUSE_S = 0.01  # of a client between two requests: the machine has others to serve
MAX_REQUESTS = 3000  # of one client; far more than any test takes


class Sample(NamedTuple):
    """One answered request; `duration_s` is what its client waited."""

    answer: Answer
    duration_s: float


class Load:
    """What became of the requests so far. A connection that fails is opened anew."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.failures: list[str] = []

    def unserved(self) -> list[str]:
        """Return what went wrong: connections that failed, answers that are not 200."""
        refused = [str(one.answer.line) for one in self.samples if one.answer.status != 200]
        return self.failures + refused

    def p50_s(self, since: int = 0) -> float:
        """Return the median of the durations from the sample number `since` on."""
        return median(one.duration_s for one in self.samples[since:])

    async def more(self, number: int) -> None:
        """Wait for so many more requests to end."""
        wanted = len(self.samples) + len(self.failures) + number
        await eventually(lambda: len(self.samples) + len(self.failures) >= wanted)


@asynccontextmanager
async def steady_load(address: tuple[str, int], tenant: str = "") -> AsyncIterator[Load]:
    """Send requests from a few clients, each on a connection that it keeps, until this ends."""
    load, is_over = Load(), asyncio.Event()
    clients = [_client(load, is_over, address, spell(tenant)) for _ in range(CLIENTS)]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client)
        try:
            yield load
        finally:
            is_over.set()


async def _client(
    load: Load, is_over: asyncio.Event, address: tuple[str, int], request: bytes
) -> None:
    left = MAX_REQUESTS
    while left and not is_over.is_set():
        try:
            reader, writer = await asyncio.open_connection(*address)
        except OSError as error:
            load.failures.append(repr(error))
            await asyncio.sleep(PAUSE_S)
            left -= 1
            continue
        try:
            while left and not is_over.is_set():
                left -= 1
                began_s = asyncio.get_running_loop().time()
                writer.write(request)
                answer = await read_answer(reader)
                took_s = asyncio.get_running_loop().time() - began_s
                load.samples.append(Sample(answer, took_s))
                await asyncio.sleep(PAUSE_S)
                if answer.get(b"Connection") == b"close":  # RFC 9112 section 9.6: the last one
                    break
        except (OSError, asyncio.IncompleteReadError) as error:
            load.failures.append(repr(error))
        finally:
            writer.transport.abort()
