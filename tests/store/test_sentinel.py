"""A store whose primary Sentinels name: found, followed through a failover, never two at a time."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.errors import StoreUnavailableError
from sidecar.store.redis import RedisStore
from sidecar.store.watch import WatchTiming
from tests.store.documents import default_of, eventually, pin_of, policy, watching
from tests.support.servers import SERVICE, free_port, sentinel, server, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.servers import Server


@asynccontextmanager
async def replicated() -> AsyncIterator[tuple[Server, Server, Server]]:
    """Run a primary, a replica that is in step with it, and a Sentinel that knows both."""
    async with server() as primary, server() as replica:
        await replica.client.replicaof("127.0.0.1", str(primary.port))

        async def is_in_step() -> bool:
            told = await replica.client.info("replication")
            return bool(told.get("master_link_status") == "up")

        await until(is_in_step)
        async with sentinel(primary) as watching_it:

            async def knows_both() -> bool:
                found = await watching_it.call("SENTINEL", "REPLICAS", SERVICE)
                return isinstance(found, list) and len(found) == 1

            await until(knows_both)
            yield primary, replica, watching_it


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

        with pytest.raises(StoreUnavailableError, match="another"):
            await store.models()
        await store.close()
