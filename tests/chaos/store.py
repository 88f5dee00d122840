"""The faults of a store: none of them fails a request; each shows, and heals in a stated time."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from tests.chaos.load import serve
from tests.support.link import link_to
from tests.support.servers import server, until
from tests.support.sidecar import editor, flags, sidecar
from tests.support.upstream import scripted_upstream as upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support.link import Link
    from tests.support.servers import Server
    from tests.support.sidecar import Sidecar

SHOWN_S: Final = 8.0  # five to notice a hang, and the poll of the metrics; most take milliseconds
HEALED_S: Final = 8.0
REQUESTS: Final = 100  # under each fault, and after it
HUGE: Final = b"x" * 10_000_000


class Traffic(Protocol):
    """Requests that go on all the time."""

    async def more(self, number: int) -> None:
        """Wait for so many more requests to end."""


class StoreStage(NamedTuple):
    """A sidecar that has `v1` of model `m` in force, over a link to a store."""

    running: Sidecar
    store: Server
    link: Link
    document: dict[str, object]

    async def serve(self, version: str) -> None:
        """Write a policy whose default is `version`, and see that it comes into force in time."""
        async with asyncio.timeout(HEALED_S):
            async with editor(self.store.url) as plain:
                await plain.put({**self.document, "default": version})
            await until(lambda: self._serves(version))

    async def shows(self, metric: str, value: float) -> None:
        """See that a metric comes to say `value`."""

        async def does() -> bool:
            return await self.running.counted(metric) == value

        async with asyncio.timeout(SHOWN_S if value else HEALED_S):
            await until(does)

    async def _serves(self, version: str) -> bool:
        return (await self.running.ask()).get(b"X-Model-Version") == version.encode()


class StoreFault(NamedTuple):
    """A row of the table: `act` is done to the stage while `Traffic` goes on."""

    name: str
    act: Callable[[StoreStage, Traffic], Awaitable[None]]


@asynccontextmanager
async def store_stage() -> AsyncIterator[StoreStage]:
    """Run a store that keeps nothing on disk, a link to it, and a sidecar that uses it."""
    async with (
        upstream(serve) as up,
        server() as store,
        link_to(store.port) as link,
        sidecar("--redis", link.url, *flags(v1=up.url, v2=up.url)) as running,
    ):
        async with editor(store.url) as plain:
            document = await plain.document()
        for name in ("revision", "actor", "comment"):
            document.pop(name, None)
        yield StoreStage(running, store, link, document)
        link.is_silent = False


async def kill(on: StoreStage, traffic: Traffic) -> None:
    """It is killed, and comes back without its data."""
    await on.store.kill()
    await on.shows("rmv_policies_stale", 1)
    await traffic.more(REQUESTS)
    await on.store.start()
    await on.shows("rmv_policies_lost", 1)
    await traffic.more(REQUESTS)
    await on.serve("v2")
    await on.shows("rmv_policies_stale", 0)


async def hang(on: StoreStage, traffic: Traffic) -> None:
    """It is stopped (SIGSTOP), and goes on."""
    on.store.signal(signal.SIGSTOP)
    await on.shows("rmv_policies_stale", 1)
    await traffic.more(REQUESTS)
    on.store.signal(signal.SIGCONT)
    await on.shows("rmv_policies_stale", 0)
    await on.serve("v2")


async def flush(on: StoreStage, traffic: Traffic) -> None:
    """It is flushed, and the policy is written again."""
    await on.store.client.flushall()
    await on.shows("rmv_policies_lost", 1)
    await on.shows("rmv_policies_stale", 1)
    await traffic.more(REQUESTS)
    await on.serve("v2")
    await on.shows("rmv_policies_stale", 0)


async def cut(on: StoreStage, traffic: Traffic) -> None:
    """All its connections are killed, again and again."""
    for version in ("v2", "v1", "v2"):
        await on.store.client.client_kill_filter(_type="normal", skipme=True)
        await traffic.more(REQUESTS // 4)
        await on.serve(version)
    await on.shows("rmv_policies_stale", 0)


async def promote_an_older_replica(on: StoreStage, traffic: Traffic) -> None:
    """A replica that has missed the last edit takes its place; then somebody edits that."""
    async with server() as replica:
        await replica.client.replicaof("127.0.0.1", str(on.store.port))
        await until(lambda: _is_in_step(replica))
        await replica.client.replicaof("NO", "ONE")
        await on.serve("v2")
        await until(lambda: _is_adopted(on.store))  # before that it has no revision to go back from

        on.link.target = replica.port
        await on.store.client.client_kill_filter(_type="normal", skipme=True)

        await on.shows("rmv_policies_behind", 1)
        await traffic.more(REQUESTS)
        assert (await on.running.ask()).get(b"X-Model-Version") == b"v2"
        assert "store went back" in on.running.said()
        await on._replace(store=replica).serve("v1")
        await on.shows("rmv_policies_behind", 0)
        on.link.target = on.store.port


async def slow(on: StoreStage, traffic: Traffic) -> None:
    """The link to it is slow."""
    on.link.delay_s = 0.2
    await traffic.more(REQUESTS)
    await on.serve("v2")
    await on.shows("rmv_policies_stale", 0)
    on.link.delay_s = 0.0


async def black_hole(on: StoreStage, traffic: Traffic) -> None:
    """The link to it loses everything, and closes nothing."""
    on.link.is_silent = True
    await on.shows("rmv_policies_stale", 1)
    await traffic.more(REQUESTS)
    on.link.is_silent = False
    await on.shows("rmv_policies_stale", 0)
    await on.serve("v2")


async def lose_reports(on: StoreStage, traffic: Traffic) -> None:
    """The link to it passes everything but the reports of changes."""
    on.link.is_deaf = True
    await on.serve("v2")  # found by a connection that replaces the deaf one
    await traffic.more(REQUESTS)
    on.link.is_deaf = False
    await on.serve("v1")
    await on.shows("rmv_policies_stale", 0)


async def corrupt(on: StoreStage, traffic: Traffic) -> None:
    """Its document is broken, then of another type, then far too large; then it is mended."""
    key = "rmv:policy:m"
    await on.store.client.set(key, b'{"model": "m"')
    await on.shows("rmv_policy_faults", 1)
    await on.store.client.set(key, HUGE)
    await on.store.client.set("rmv:policy:other", HUGE)
    await on.shows("rmv_policy_faults", 2)
    await traffic.more(REQUESTS)
    await on.store.client.delete("rmv:policy:other")
    await on.serve("v2")
    await on.shows("rmv_policy_faults", 0)


async def _is_adopted(store: Server) -> bool:
    """Return whether every worker decides by the document as its adoption committed it."""
    stored = msgspec.json.decode(await store.client.get("rmv:policy:m") or b"{}")
    if not stored.get("revision"):
        return False
    keys = [key async for key in store.client.scan_iter("rmv:fleet:*")]
    told = [await store.client.hget(key, "revision:m") for key in keys]
    return bool(told) and set(told) == {b"%d" % stored["revision"]}


async def _is_in_step(replica: Server) -> bool:
    told = await replica.client.info("replication")
    return bool(told.get("master_link_status") == "up")


STORE_FAULTS: Final = (
    StoreFault("store killed, back empty", kill),
    StoreFault("store hangs (SIGSTOP)", hang),
    StoreFault("store flushed", flush),
    StoreFault("store cuts connections", cut),
    StoreFault("older replica promoted", promote_an_older_replica),
    StoreFault("slow link to the store", slow),
    StoreFault("link to the store silent", black_hole),
    StoreFault("link to the store deaf", lose_reports),
    StoreFault("documents corrupt, 10 MB", corrupt),
)
