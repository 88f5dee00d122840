"""A steady load, and every way in which a request of it can fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from tests.support.messages import read_answer
from tests.support.upstream import ANSWER, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.upstream import Received

CLIENTS: Final = 8  # each has one request in flight at most
PAUSE_S: Final = 0.005
GET: Final = b"GET /infer HTTP/1.1\r\nHost: chaos\r\n\r\n"
LONG_EVERY: Final = 10  # requests


def _post(target: bytes, body: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: chaos\r\nContent-Length: %d\r\n\r\n"
    return head % (target, len(body)) + body


POST: Final = _post(b"/infer", b"x" * 1024)
LONG_POST: Final = _post(b"/long", b"x" * 2_000_000)  # long bodies pass by other code than short
LONG: Final = b"x" * 200_000
LONG_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LONG) + LONG


class Load:
    """What became of the requests so far; a refused connection is no request."""

    def __init__(self) -> None:
        self.ended = 0
        self.failures: Counter[str] = Counter()

    async def more(self, number: int) -> None:
        """Wait for so many more requests to end."""
        wanted = self.ended + number
        await eventually(lambda: self.ended >= wanted)


async def serve(request: Received, writer: asyncio.StreamWriter) -> None:
    """Answer what `load` sends; a script."""
    writer.write(LONG_ANSWER if request.target == b"/long" else ANSWER)
    await writer.drain()


@asynccontextmanager
async def load(address: tuple[str, int]) -> AsyncIterator[Load]:
    """Send GETs and POSTs from a few clients, on connections that they keep, until this ends."""
    seen, is_over = Load(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(_client(seen, is_over, address))
        try:
            yield seen
        finally:
            is_over.set()


async def _client(seen: Load, is_over: asyncio.Event, address: tuple[str, int]) -> None:
    while not is_over.is_set():
        try:
            async with asyncio.timeout(1.0):  # a listener that ends drops a SYN in silence
                reader, writer = await asyncio.open_connection(*address)
        except OSError:  # refused; TimeoutError is one
            await asyncio.sleep(PAUSE_S)
            continue
        try:
            await _converse(seen, is_over, reader, writer)
        except (OSError, asyncio.IncompleteReadError) as error:
            seen.ended += 1
            seen.failures[type(error).__name__] += 1
        finally:
            writer.transport.abort()


async def _converse(
    seen: Load,
    is_over: asyncio.Event,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Use one connection until it, or the load, is to end."""
    while not is_over.is_set():
        is_long = not seen.ended % LONG_EVERY
        writer.write(LONG_POST if is_long else POST if seen.ended % 2 else GET)
        answer = await read_answer(reader)
        seen.ended += 1
        if not 200 <= answer.status < 300:
            seen.failures[str(answer.status)] += 1
        elif answer.body != (LONG if is_long else b"ok"):
            seen.failures["other body"] += 1
        if answer.get(b"Connection") == b"close":
            return
        await asyncio.sleep(PAUSE_S)
