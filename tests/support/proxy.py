"""The real data plane in this process, in front of whatever a test names."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sidecar.dataplane.listener import Listener
from sidecar.dataplane.mirror import Mirror
from sidecar.dataplane.plane import Plane
from sidecar.decide import ClaimedTenants, Decider
from sidecar.model.limits import Limits, Timeouts
from sidecar.policy.route import RouteTable
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.ids import RequestIds
from sidecar.runtime.sockets import bind
from sidecar.store.live import LivePolicies
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recorder import Recorder
from sidecar.upstream.pool import PoolSettings, Upstreams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sidecar.identity.cache import IdentityCache
    from sidecar.model.identity import JSON


class Client:
    """A raw connection: a test says every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes, *, byte_by_byte: bool = False) -> None:
        for piece in [data[n : n + 1] for n in range(len(data))] if byte_by_byte else [data]:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def head(self) -> bytes:
        async with asyncio.timeout(10):
            return (await self.reader.readuntil(b"\r\n\r\n"))[:-4]

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readexactly(size)

    async def response(self) -> tuple[bytes, bytes]:
        """Read a response that has a Content-Length, or no body."""
        head = await self.head()
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                return head, await self.exactly(int(value))
        return head, b""

    async def rest(self) -> bytes:
        """Read to the end of the connection."""
        async with asyncio.timeout(10):
            return await self.reader.read()

    def close(self) -> None:
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
        wanted = set(labels.items())
        return sum(
            number
            for key, number in self.metrics.events.items()
            if key[0] == name and wanted <= set(zip(key[1::2], key[2::2], strict=True))
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        client = Client(reader, writer)
        try:
            yield client
        finally:
            client.close()

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Send one request on a connection of its own; return head and body of the answer."""
        async with self.client() as client:
            await client.send(request)
            return await client.response()


def policy(versions: Mapping[str, str], **members: JSON) -> bytes:
    """Return the document of model `m`: endpoints by version, default the first."""
    document: dict[str, JSON] = {
        "model": "m",
        "versions": {name: {"endpoints": [url]} for name, url in versions.items()},
        "default": next(iter(versions)),
        **members,
    }
    return msgspec.json.encode(document)


@asynccontextmanager
async def proxy(
    document: bytes,
    log: Path,
    *,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    identities: IdentityCache | None = None,
) -> AsyncIterator[Proxy]:
    """Run the data plane for model `m`; `log` is a file for its exchange log."""
    metrics, live, clock = Metrics(), LivePolicies(), SystemClock()
    assert live.put_policy("m", document), live.faults
    settings = PoolSettings(connect_timeout_s=(timeouts or Timeouts()).connect_s)
    log_fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    timeouts, limits = timeouts or Timeouts(), limits or Limits()
    mirror = Mirror(
        live=live,
        upstreams=Upstreams(settings, clock.monotonic_s),
        metrics=metrics,
        limits=limits,
        timeouts=timeouts,
        monotonic_s=clock.monotonic_s,
    )
    known = ClaimedTenants() if identities is None else identities
    plane = Plane(
        decide=Decider(live, RouteTable((), "m"), known).decide,
        live=live,
        upstreams=Upstreams(settings, clock.monotonic_s),
        mirror=mirror,
        recorder=Recorder(metrics, log_fd),
        metrics=metrics,
        ids=RequestIds(bytes(10)),
        clock=clock,
        timeouts=timeouts,
        limits=limits,
        shows_decisions=True,
    )
    listener = Listener(plane)
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
