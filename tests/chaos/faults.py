"""The faults: each is done to a sidecar of two workers under load, and says what it may cost."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.chaos.load import CLIENTS, load, serve
from tests.support.sidecar import flags, is_running, sidecar
from tests.support.upstream import ANSWER, ScriptedUpstream, eventually, never, reset
from tests.support.upstream import scripted_upstream as upstream

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.chaos.load import Load
    from tests.support.sidecar import Sidecar
    from tests.support.upstream import Received

WORKERS: Final = 2
EJECTED_AFTER: Final = 5  # failures in a row, of each worker
BEFORE: Final = 200  # requests before a fault, and after it
AFTER: Final = 600
SETTINGS: Final = "[timeouts]\nconnect_s = 0.3\nfirst_byte_s = 1.0\ndrain_s = 10.0\n"

# An endpoint that spoils answers costs each worker what it takes to eject it, and what was in
# flight to it by then.
UNTIL_EJECTED: Final = WORKERS * EJECTED_AFTER + CLIENTS


class Stage(NamedTuple):
    """A sidecar under load; version v1 has two endpoints, of which `bad` has the trouble."""

    running: Sidecar
    seen: Load
    bad: ScriptedUpstream


class Fault(NamedTuple):
    """A row of the table."""

    name: str
    allowed: int
    act: Callable[[Stage], Awaitable[None]]


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Run a sidecar before two upstreams, and a load on it."""
    async with (
        upstream(serve) as good,
        upstream(serve) as bad,
        sidecar("--workers", str(WORKERS), *flags(v1=good.url), settings=SETTINGS) as running,
    ):
        async with running.editor() as plain:
            document = await plain.document()
            document["versions"] = {"v1": {"endpoints": [good.url, bad.url]}}
            await plain.put(document)
        async with load(running.listen) as seen:
            await eventually(lambda: len(bad.received) > CLIENTS)  # the edit is in force
            await seen.more(BEFORE)
            yield Stage(running, seen, bad)


async def refuse(on: Stage) -> None:
    """One of two endpoints goes away."""
    await on.bad.stop()
    await on.seen.more(AFTER)


async def blackhole(on: Stage) -> None:
    """One of two endpoints answers no SYN any more: its queue is full."""
    port = int(on.bad.url.rpartition(":")[2])
    await on.bad.stop()
    with closing(socket.create_server(("127.0.0.1", port), backlog=0)):
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)  # noqa: FBT003 -- the name is Python's
            filler.connect_ex(("127.0.0.1", port))
        await on.seen.more(AFTER)
        for filler in fillers:
            filler.close()


async def reset_in_body(on: Stage) -> None:
    """One of two endpoints resets in the middle of each body."""

    async def half(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER[:-1])
        await writer.drain()
        reset(writer)

    on.bad.script = half
    await on.seen.more(AFTER)


async def stall(on: Stage) -> None:
    """One of two endpoints takes requests and does not answer."""
    on.bad.script = never
    await on.seen.more(AFTER)


async def restart(on: Stage) -> None:
    """One of two endpoints restarts on its port."""
    port = int(on.bad.url.rpartition(":")[2])
    await on.bad.stop()
    await on.seen.more(BEFORE)
    await on.bad.start(port)
    await on.seen.more(AFTER)


async def kill_worker(on: Stage) -> None:
    """A worker is killed; another one takes its place."""
    victim = on.running.workers()[0]
    os.kill(victim, signal.SIGKILL)
    await on.running.says("worker died")
    await eventually(lambda: len(on.running.workers()) == WORKERS)
    await on.running.until(on.running.is_ready, "readiness")
    await on.seen.more(AFTER)


async def hang_up(on: Stage) -> None:
    """Both workers are replaced."""
    former = on.running.workers()
    on.running.signal(signal.SIGHUP)
    await on.running.says("workers replaced")
    await eventually(lambda: not any(map(is_running, former)))
    await on.seen.more(AFTER)


async def kill_store(on: Stage) -> None:
    """The embedded store is killed, and started again."""
    victim = on.running.valkey()
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    await on.running.says("embedded server restarted")
    await on.seen.more(AFTER)


async def terminate(on: Stage) -> None:
    """The sidecar ends."""
    on.running.signal(signal.SIGTERM)
    await on.running.ended()


FAULTS: Final = (
    # A connect failure is retried at the other endpoint. What the dying one had in hand is lost:
    # at most one request of each client, as a request that was sent may have been acted on.
    Fault("endpoint refuses", CLIENTS, refuse),
    # As above; and each worker may be out of its budget of retries before it ejects.
    Fault("endpoint blackholes", UNTIL_EJECTED, blackhole),
    Fault("endpoint resets in bodies", UNTIL_EJECTED, reset_in_body),
    Fault("endpoint stalls", UNTIL_EJECTED, stall),
    Fault("endpoint restarts", CLIENTS, restart),
    Fault("worker killed", CLIENTS, kill_worker),  # what it had in hand, one of each client
    Fault("workers replaced (SIGHUP)", 0, hang_up),
    Fault("store killed", 0, kill_store),
    Fault("sidecar ends (SIGTERM)", 0, terminate),
)
