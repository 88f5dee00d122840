"""The stores under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sidecar.store.memory import MemoryStore
from sidecar.store.redis import RedisStore
from tests.support.valkey import running_valkey, valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sidecar.store.base import Store
    from tests.support.valkey import Valkey

__all__ = ["redis_store", "store", "valkey"]


@pytest.fixture
async def redis_store(valkey: Valkey) -> AsyncIterator[RedisStore]:
    store = RedisStore(valkey.url)
    yield store
    await store.close()


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Each store in turn: what a test claims of one holds for the other."""
    if request.param == "memory":
        memory = MemoryStore()
        yield memory
        await memory.close()
        return
    async with running_valkey() as server:
        redis = RedisStore(server.url)
        yield redis
        await redis.close()
