"""Which connection a request gets, and what becomes of it afterwards."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.model.policy import Version
from sidecar.upstream.ejection import MAX_FAILURES
from sidecar.upstream.pool import PoolSettings, Upstreams
from tests.support.files import no_files_left
from tests.support.upstream import eventually, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sidecar.upstream.connection import UpstreamConnection
    from sidecar.upstream.pool import Pool
    from tests.support.upstream import ScriptedUpstream

A, B, C = (f"http://127.0.0.1:{port}" for port in (9001, 9002, 9003))


async def connect(pool: Pool) -> UpstreamConnection:
    """Open a connection; raises ConnectionError."""
    made: asyncio.Future[UpstreamConnection] = asyncio.get_running_loop().create_future()
    pool.connect(made.set_result, lambda error: made.set_exception(ConnectionError(str(error))))
    return await made


@asynccontextmanager
async def upstreams(
    settings: PoolSettings | None = None,
) -> AsyncIterator[tuple[Upstreams, ScriptedUpstream, Pool]]:
    async with scripted_upstream() as server:
        all_pools = Upstreams(settings or PoolSettings(), time.monotonic)
        try:
            yield all_pools, server, all_pools.group([server.url]).pick()
        finally:
            all_pools.close()
            await asyncio.sleep(0)  # a turn of the loop, in which the sockets close


async def test_the_connection_used_last_is_used_next() -> None:
    async with upstreams() as (_, server, pool):
        first, second = await connect(pool), await connect(pool)
        first.give_back()
        second.give_back()

        assert [pool.acquire(), pool.acquire(), pool.acquire()] == [second, first, None]
        first.give_back()
        second.give_back()
        assert server.connections == 2


async def test_no_more_than_so_many_are_kept() -> None:
    async with upstreams(PoolSettings(max_idle=1)) as (_, server, pool):
        first, second = await connect(pool), await connect(pool)
        first.give_back()
        second.give_back()

        await eventually(lambda: server.lost == 1)
        assert second.transport.is_closing()
        assert pool.acquire() is first
        first.give_back()


async def test_one_that_the_server_ended_is_not_handed_out() -> None:
    async with upstreams() as (_, server, pool):
        connection = await connect(pool)
        connection.give_back()
        await server.stop()
        await eventually(connection.transport.is_closing)

        assert pool.acquire() is None


async def test_idle_ones_are_closed_after_their_time() -> None:
    async with upstreams(PoolSettings(idle_timeout_s=30.0)) as (all_pools, server, pool):
        (await connect(pool)).give_back()

        all_pools.sweep(100.0)
        all_pools.sweep(129.9)
        assert server.lost == 0
        all_pools.sweep(130.0)
        await eventually(lambda: server.lost == 1)


async def test_a_use_in_between_starts_the_time_anew() -> None:
    async with upstreams(PoolSettings(idle_timeout_s=30.0)) as (all_pools, _, pool):
        connection = await connect(pool)
        connection.give_back()
        all_pools.sweep(100.0)
        taken = pool.acquire()
        assert taken is connection
        taken.idle_since_s = 0.0  # as `start` does
        taken.give_back()

        all_pools.sweep(135.0)

        assert not connection.transport.is_closing()


async def test_a_pool_that_no_policy_names_is_closed_with_what_comes_back_to_it() -> None:
    async with upstreams() as (all_pools, server, pool):
        idle, used = await connect(pool), await connect(pool)
        idle.give_back()

        all_pools.retain([A])
        await eventually(lambda: server.lost == 1)
        used.give_back()
        await eventually(lambda: server.lost == 2)

        assert all_pools.group([server.url]).pick() is not pool


async def test_a_server_that_refuses_is_told_with_a_reason() -> None:
    async with upstreams() as (_, server, pool):
        await server.stop()

        with pytest.raises(ConnectionError, match="cannot connect"):
            await connect(pool)


async def test_no_endpoint_is_blamed_for_a_want_of_file_descriptors() -> None:
    async with upstreams() as (all_pools, server, pool):
        group = all_pools.group_of("m", "v1", Version(endpoints=(server.url, A)))
        with no_files_left():
            for _ in range(MAX_FAILURES):
                with pytest.raises(ConnectionError, match="no file descriptor left"):
                    await connect(pool)

        (await connect(pool)).give_back()
        assert pool in group.pools
        assert not pool.is_ejected


async def test_versions_share_the_pool_of_an_endpoint() -> None:
    async with upstreams() as (all_pools, server, pool):
        assert all_pools.group([server.url, A]).pick() is not None
        assert all_pools.group([server.url]).pick() is pool


def test_after_the_only_endpoint_comes_itself() -> None:
    assert Upstreams(PoolSettings(), time.monotonic).group([A]).after(A).url == A
