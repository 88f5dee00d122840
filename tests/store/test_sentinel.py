"""A store whose primary Sentinels name: found, followed through a failover, never two at a time."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.errors import StoreUnavailableError
from sidecar.store.redis import RedisStore
from sidecar.store.watch import WatchTiming
from tests.store.documents import default_of, eventually, pin_of, policy, watching
from tests.support.certificates import server_tls
from tests.support.link import link_of_both
from tests.support.servers import SERVICE, free_port, sentinel, server, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.servers import Server


@asynccontextmanager
async def replicated() -> AsyncIterator[tuple[Server, Server, Server]]:
    """Run a primary, a replica that is in step with it, and a Sentinel that knows both."""
    async with server() as primary, server() as replica:
        await replica.client.replicaof("127.0.0.1", str(primary.port))

        await until(lambda: is_in_step(replica))
        async with sentinel(primary) as watching_it:
            await until(lambda: knows_a_replica(watching_it))
            yield primary, replica, watching_it


async def is_in_step(replica: Server) -> bool:
    told = await replica.client.info("replication")
    return bool(told.get("master_link_status") == "up")


async def knows_a_replica(watcher: Server) -> bool:
    found = await watcher.call("SENTINEL", "REPLICAS", SERVICE)
    return isinstance(found, list) and len(found) == 1


def url_of(*sentinels: int) -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels)
    return f"redis+sentinel://{hosts}/{SERVICE}"


async def test_a_failover_is_followed_and_edits_flow() -> None:
    async with replicated() as (primary, replica, watcher):
        store = RedisStore(url_of(free_port(), watcher.port))  # the first of them is gone
        await store.commit(policy(), expected=None, actor="ann", comment="")
        await primary.client.wait(1, 5_000)
        async with watching(store) as live:
            assert default_of(live) == "v1"

            primary.signal(signal.SIGKILL)

            await eventually(lambda: live.is_stale)
            assert default_of(live) == "v1"
            await eventually(lambda: not live.is_stale)
            await replica.client.set("rmv:pin:fraud:acme", "v2")
            await eventually(lambda: pin_of(live, "acme") == "v2")
            raw = await store.get_document("fraud")
            await store.commit(policy(default="v2"), expected=raw, actor="ann", comment="")
            await eventually(lambda: default_of(live) == "v2")
        await store.close()


async def test_sentinels_and_servers_are_spoken_to_over_tls_before_and_after_a_failover(
    tmp_path: Path,
) -> None:
    tls, certificate = server_tls(tmp_path)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        primary, replica = await enter(server()), await enter(server())
        ends = [await enter(link_of_both(one.port, tls)) for one in (primary, replica)]
        for one, end in zip((primary, replica), ends, strict=True):
            await one.client.config_set("replica-announce-port", end.port)
        await replica.client.replicaof("127.0.0.1", str(ends[0].port))
        await until(lambda: is_in_step(replica))
        watcher = await enter(sentinel(ends[0]))
        await until(lambda: knows_a_replica(watcher))
        asked = await enter(link_of_both(watcher.port, tls))
        address = f"rediss+sentinel://127.0.0.1:{asked.port}/{SERVICE}"
        store = RedisStore(f"{address}?ssl_ca_certs={certificate}")
        await store.commit(policy(), expected=None, actor="ann", comment="")
        await primary.client.wait(1, 5_000)
        assert [one.over_tls > 0 for one in (asked, *ends)] == [True, True, False]
        async with watching(store) as live:
            primary.signal(signal.SIGKILL)
            await eventually(lambda: live.is_stale)
            await eventually(lambda: not live.is_stale)
            await store.set_pin("fraud", "acme", "v2")
            await eventually(lambda: pin_of(live, "acme") == "v2")
        assert ends[1].over_tls > 0
        await store.close()

        strict = RedisStore(address)  # of the system's authorities none vouches for them
        with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
            await strict.models()
        await strict.close()


async def test_a_primary_that_was_demoted_is_noticed() -> None:
    async with server() as primary, server() as other:
        store = RedisStore(primary.url, timing=WatchTiming(ping_every_s=0.05))
        async with watching(store) as live:
            await primary.client.replicaof("127.0.0.1", str(other.port))

            await eventually(lambda: live.is_stale)
        await store.close()


async def test_a_service_that_no_sentinel_knows_is_told() -> None:
    async with server() as primary, sentinel(primary) as watcher:
        store = RedisStore(f"redis+sentinel://127.0.0.1:{watcher.port}/another")

        with pytest.raises(
            StoreUnavailableError, match=r"no Sentinel names a primary of .another.$"
        ):
            await store.models()
        await store.close()
