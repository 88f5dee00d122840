"""Contexts are kept in a bounded ring; a store that is away costs contexts and nothing else."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from sidecar.errors import StoreUnavailableError
from sidecar.model.context import Context, ContextSettings
from sidecar.model.decision import Decision
from sidecar.store.contexts import ContextWriter
from sidecar.store.keys import BadNameError
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.sampler import Sampler
from tests.policy.examples import caller, make_head, make_policy

if TYPE_CHECKING:
    from sidecar.store.base import Store
    from sidecar.store.redis import RedisStore
    from tests.support.valkey import Valkey

SETTINGS = ContextSettings()
KEY = "rmv:contexts:tumor"


def context(number: int, at_s: float = 1000.0) -> Context:
    return Context(
        request_id=f"r{number}",
        at_s=at_s,
        model="tumor",
        tenant="acme",
        version="v1",
        reason="SPLIT:canary",
        revision=3,
        duration_s=0.25,
        instance="here",
        attributes={"claim.seats": (3, 2.5, True, "x"), "header.x-beta": ()},
        asked_version="v1",
        rejected={"v2": "not-ready"},
        stands_for=2.5,
    )


async def ids(store: Store, model: str = "tumor") -> list[str]:
    return [one.request_id async for one in store.contexts(model) if one is not None]


def sampling(number: int, per_second: int = 10) -> Sampler:
    """Return a sampler that so many requests have passed."""
    sampler = Sampler(per_second, random.Random(1).random, "here")  # noqa: S311 -- no secret
    sampler.follow("tumor", make_policy())
    pass_by(sampler, "tumor", number)
    return sampler


def pass_by(sampler: Sampler, model: str, number: int = 1) -> None:
    tally = sampler.tally(model)
    assert tally is not None
    for _ in range(number):
        if tally.is_due():
            decision = Decision(model, "v1", "DEFAULT", 1)
            tally.take(caller(), make_head(), decision, 1000.0, 0.1)


async def test_contexts_come_back_as_they_were_the_last_added_first(store: Store) -> None:
    await store.add_contexts("tumor", (context(1), context(2)), SETTINGS)
    await store.add_contexts("tumor", (context(3),), SETTINGS)

    found = [one async for one in store.contexts("tumor")]

    assert found == [context(3), context(2), context(1)]
    assert await ids(store, "other") == []


async def test_more_than_a_page_comes_back_once_each(store: Store) -> None:
    wanted = [context(n) for n in range(1100)]

    await store.add_contexts("tumor", wanted, SETTINGS)

    assert await ids(store) == [f"r{n}" for n in reversed(range(1100))]


async def test_a_model_that_cannot_stand_in_a_key_is_refused(store: Store) -> None:
    with pytest.raises(BadNameError):
        await store.add_contexts("a:b", (context(1),), SETTINGS)


async def test_the_ring_is_bounded_in_length(redis_store: RedisStore, valkey: Valkey) -> None:
    settings = ContextSettings(per_model=300)
    for n in range(8):
        await redis_store.add_contexts("tumor", [context(n)] * 100, settings)

    assert 300 <= await valkey.client.xlen(KEY) <= 400  # whole blocks of the server go at once
    assert (await ids(redis_store))[:300] == ["r7"] * 100 + ["r6"] * 100 + ["r5"] * 100


async def test_the_ring_is_bounded_in_age(redis_store: RedisStore, valkey: Valkey) -> None:
    settings = ContextSettings(keep_s=60)
    [seconds, _] = await valkey.client.time()
    await valkey.client.xadd(KEY, {"context": "{}"}, id=f"{(seconds - 61) * 1000}-0")
    await valkey.client.xadd(KEY, {"context": "{}"}, id=f"{(seconds - 30) * 1000}-0")

    await redis_store.add_contexts("tumor", (context(1, at_s=seconds),), settings)

    assert await valkey.client.xlen(KEY) == 2
    assert 0 < await valkey.client.ttl(KEY) <= 60


async def test_a_key_of_another_type_is_told_and_left_alone(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    await valkey.client.set(KEY, "mine")

    with pytest.raises(StoreUnavailableError, match="WRONGTYPE"):
        await redis_store.add_contexts("tumor", (context(1),), SETTINGS)

    assert await valkey.client.get(KEY) == b"mine"


async def test_what_is_no_context_is_none(redis_store: RedisStore, valkey: Valkey) -> None:
    await redis_store.add_contexts("tumor", (context(1),), SETTINGS)
    await valkey.client.xadd(KEY, {"context": "{"})
    await valkey.client.xadd(KEY, {"context": '{"request_id": 3}'})
    await valkey.client.xadd(KEY, {"other": "x"})
    await valkey.client.xadd(KEY, {"context": '{"deep":' + "[" * 10_000 + "]" * 10_000 + "}"})

    found = [one async for one in redis_store.contexts("tumor")]
    assert found == [None, None, None, None, context(1)]


async def test_an_entry_is_plain_json_without_what_is_not_there(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    await redis_store.add_contexts("tumor", (context(1),), SETTINGS)

    entries = await valkey.client.xrange(KEY)
    assert entries
    fields = entries[0][1]
    assert fields is not None
    told = msgspec.json.decode(fields[b"context"])

    assert told["attributes"] == {"claim.seats": [3, 2.5, True, "x"], "header.x-beta": []}
    assert "code" not in told


async def test_what_was_taken_is_written_and_counted(redis_store: RedisStore) -> None:
    metrics = Metrics()
    writer = ContextWriter(redis_store, sampling(40), SETTINGS, metrics)

    await writer.flush()
    await writer.flush()

    found = [one async for one in redis_store.contexts("tumor") if one is not None]
    assert sum(one.stands_for for one in found) == pytest.approx(40)
    assert metrics.events == {("rmv_contexts_total", "outcome", "kept"): 10}


async def test_a_key_of_another_type_costs_the_contexts_of_its_model_alone(
    redis_store: RedisStore, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    sampler, metrics = sampling(40, 20), Metrics()
    writer = ContextWriter(redis_store, sampler, SETTINGS, metrics)
    sampler.follow("other", make_policy())
    pass_by(sampler, "other")
    await valkey.client.set(KEY, "mine")

    with caplog.at_level(logging.WARNING):
        await writer.flush()

    assert await ids(redis_store, "other") != []
    assert metrics.events["rmv_contexts_total", "outcome", "kept"] == 1
    assert ["WRONGTYPE" in str(vars(one)["reason"]) for one in caplog.records] == [True]


async def test_a_dead_store_loses_contexts_and_says_so_once(
    redis_store: RedisStore, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    sampler, metrics = sampling(40), Metrics()
    writer = ContextWriter(redis_store, sampler, SETTINGS, metrics)
    await valkey.kill()

    with caplog.at_level(logging.WARNING):
        await writer.flush()
        tally = sampler.tally("tumor")
        assert tally is not None
        while not tally.is_due():
            pass
        tally.take(caller(), make_head(), Decision("tumor", "v1", "DEFAULT", 1), 1000.0, 0.1)
        await writer.flush()

    assert metrics.events["rmv_contexts_total", "outcome", "lost"] == 11
    # asyncio has its own word on a child that was killed, now and then.
    said = [one.message for one in caplog.records if one.name == "sidecar.store"]
    assert said == ["contexts are lost"]

    await valkey.start()
    while not tally.is_due():
        pass
    tally.take(caller(), make_head(), Decision("tumor", "v1", "DEFAULT", 1), 1000.0, 0.1)
    await writer.flush()

    assert metrics.events["rmv_contexts_total", "outcome", "kept"] == 1
