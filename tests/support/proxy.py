"""The real data plane in this process, in front of whatever a test names."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from sidecar.dataplane.listener import Listener
from sidecar.dataplane.mirror import Mirror
from sidecar.dataplane.plane import Plane
from sidecar.decide import ClaimedTenants, Decider
from sidecar.model.context import ContextSettings
from sidecar.model.limits import Limits, Timeouts
from sidecar.policy.route import RouteTable
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.ids import RequestIds
from sidecar.runtime.sockets import bind
from sidecar.store.live import Contents, LivePolicies
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recorder import Recorder
from sidecar.telemetry.sampler import Sampler
from sidecar.upstream.pool import PoolSettings, Upstreams
from tests.support.messages import NEXT_REQUEST, PATIENCE_S, Feed, feed, read_answer
from tests.support.upstream import ANSWER, eventually, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from sidecar.dataplane.trial import Judge
    from sidecar.identity.cache import IdentityCache
    from sidecar.identity.callers import Callers
    from sidecar.model.identity import JSON
    from sidecar.runtime.clock import Clock
    from sidecar.runtime.tls import ServerTls
    from tests.support.messages import Answer
    from tests.support.upstream import Script, ScriptedUpstream


class Client:
    """A raw connection: a test says every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes, how: Feed = Feed.WHOLE) -> None:
        """Send bytes; what trails them, if told so, is `NEXT_REQUEST`."""
        await feed(self.writer, data, how, NEXT_REQUEST)

    async def head(self) -> bytes:
        """Read a head, without the empty line that ends it."""
        async with asyncio.timeout(PATIENCE_S):
            return (await self.reader.readuntil(b"\r\n\r\n"))[:-4]

    async def until(self, end: bytes) -> bytes:
        """Read up to and with `end`."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(end)

    async def exactly(self, size: int) -> bytes:
        """Read so many bytes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readexactly(size)

    async def answer(self, method: bytes = b"GET") -> Answer:
        """Read one response to `method`."""
        return await read_answer(self.reader, method)

    async def ask(self, request: bytes, how: Feed = Feed.WHOLE) -> Answer:
        """Send one request and read its response."""
        await self.send(request, how)
        return await self.answer(request.split(b" ", 1)[0])

    async def some(self) -> bytes:
        """Read what has come, at least a byte; nothing at the end of the connection."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read(65_536)

    async def rest(self) -> bytes:
        """Read to the end of the connection."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def reset(self) -> bool:
        """Read to the end of the connection; return whether that was a reset."""
        try:
            await self.rest()
        except ConnectionResetError:
            return True
        return False

    def close(self) -> None:
        """Close in good order."""
        self.writer.close()


class Proxy:
    """A listener on a free port, and what a test wants to look at."""

    def __init__(self, listener: Listener, live: LivePolicies, metrics: Metrics, log: Path) -> None:
        self.listener = listener
        self.live = live
        self.metrics = metrics
        self.port = 0
        self._log = log

    def records(self) -> list[dict[str, JSON]]:
        """Return the exchange log so far."""
        self.listener.plane.recorder.flush()
        return [msgspec.json.decode(line) for line in self._log.read_bytes().splitlines()]

    def counted(self, name: str, **labels: str) -> int:
        """Return the sum of the counters of this name that have these labels."""
        self.listener.plane.recorder.flush()
        self.listener.plane.mirror.measure()
        wanted = set(labels.items())
        return sum(
            number
            for key, number in self.metrics.events.items()
            if key[0] == name and wanted <= set(zip(key[1::2], key[2::2], strict=True))
        )

    async def swept(self) -> None:
        """Wait until the timeouts of all clients have been looked at."""
        gauges = self.metrics.gauges
        for _ in range(2):  # the first sweep may be half way through
            gauges.pop("rmv_connections", None)
            await eventually(lambda: "rmv_connections" in gauges)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        client = Client(reader, writer)
        try:
            yield client
        finally:
            client.close()

    async def ask(self, request: bytes, how: Feed = Feed.WHOLE) -> Answer:
        """Send one request on a connection of its own and read its response."""
        async with self.client() as client:
            return await client.ask(request, how)

    async def recorded(self, number: int = 1) -> list[dict[str, JSON]]:
        """Wait until so many exchanges have ended; return their records."""
        await eventually(lambda: len(self.records()) >= number)
        return self.records()


def policy(versions: Mapping[str, JSON], **members: JSON) -> bytes:
    """Return the document of model `m`: endpoint or whole version by name, default the first."""
    document: dict[str, JSON] = {
        "model": "m",
        "versions": {
            name: {"endpoints": [version]} if isinstance(version, str) else version
            for name, version in versions.items()
        },
        "default": next(iter(versions)),
        **members,
    }
    return msgspec.json.encode(document)


@asynccontextmanager
async def proxy(  # noqa: PLR0913 -- a test names those it means
    document: bytes,
    log: Path,
    *,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    identities: IdentityCache | None = None,
    clock: Clock | None = None,
    tls: ServerTls | None = None,
    reads_proxy_header: bool = False,
    callers: Callers | None = None,
    shows_lineage: bool = False,
    judge: Judge | None = None,
) -> AsyncIterator[Proxy]:
    """Run the data plane for model `m`; `log` is a file for its exchange log."""
    metrics, clock = Metrics(), clock or SystemClock()
    live = LivePolicies(on_change=lambda model: plane.on_policy_change(model))  # noqa: PLW0108 -- not there yet
    timeouts = timeouts or Timeouts(drain_idle_s=0.05)  # a test that leaves has nothing on its way
    limits = limits or Limits()
    settings = PoolSettings(
        timeouts.connect_s,
        timeouts.upstream_idle_s,
        limits.idle_upstreams,
        hides_decisions=True,
        queue_timeout_s=timeouts.queue_s,
    )
    log_fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    mirror = Mirror(
        live=live,
        upstreams=Upstreams(replace(settings, traffic="copies"), clock.monotonic_s, metrics),
        metrics=metrics,
        limits=limits,
        timeouts=timeouts,
        monotonic_s=clock.monotonic_s,
        judge=judge,
    )
    known = ClaimedTenants() if identities is None else identities
    plane = Plane(
        decider=Decider(live, RouteTable((), "m"), known),
        live=live,
        upstreams=Upstreams(settings, clock.monotonic_s, metrics),
        mirror=mirror,
        recorder=Recorder(metrics, log_fd),
        sampler=Sampler(ContextSettings().per_second, random.random, "test"),
        metrics=metrics,
        ids=RequestIds(bytes(10)),
        clock=clock,
        timeouts=timeouts,
        limits=limits,
        shows_decisions=True,
        shows_lineage=shows_lineage,
        callers=callers,
    )
    live.replace(Contents(policies={"m": document}))
    assert not live.faults
    live.is_stale = False
    listener = Listener(plane, tls, reads_proxy_header=reads_proxy_header)
    listening = bind("127.0.0.1:0")
    running = Proxy(listener, live, metrics, log)
    running.port = listening.getsockname()[1]
    await listener.start(listening)
    try:
        yield running
    finally:
        await listener.drain()
        mirror.close()
        plane.upstreams.close()
        os.close(log_fd)


@asynccontextmanager
async def chain(  # noqa: PLR0913 -- as `proxy`
    log: Path,
    script: Script = ANSWER,
    *,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    clock: Clock | None = None,
    tls: ServerTls | None = None,
    reads_proxy_header: bool = False,
    **members: JSON,
) -> AsyncIterator[tuple[Proxy, ScriptedUpstream]]:
    """Run a proxy before one upstream, version `v1`; `members` are of its policy."""
    async with scripted_upstream(script) as upstream:
        document = policy({"v1": upstream.url}, **members)
        async with proxy(
            document,
            log,
            timeouts=timeouts,
            limits=limits,
            clock=clock,
            tls=tls,
            reads_proxy_header=reads_proxy_header,
        ) as running:
            yield running, upstream
