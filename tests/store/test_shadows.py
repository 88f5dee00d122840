"""Counts of shadow tests add up whatever happens to workers, calls and the store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from sidecar.errors import StoreUnavailableError, WrongTypeError
from sidecar.model.shadow import (
    Difference,
    Evidence,
    Histogram,
    Ledger,
    Pairs,
    Share,
    Tally,
)
from sidecar.store.keys import BadNameError, Keys
from sidecar.store.redis import RedisStore
from sidecar.store.shadows import MAX_TALLY_BYTES
from tests.store.test_acl import load_users, url_of
from tests.support.servers import cluster

if TYPE_CHECKING:
    from sidecar.store.base import Store
    from tests.support.valkey import Valkey

KEY = "rmv:shadow:fraud:v2:0123456789ab"
DAY = "2026-11-23"


def tally(eligible: int, *, model: str = "fraud", version: str = "v2", since_s: float = 5) -> Tally:
    return Tally(
        model,
        version,
        "0123456789ab",
        since_s=since_s,
        until_s=since_s + eligible,
        ledger=Ledger(eligible=eligible, mirrored=eligible, skipped={"size": eligible}),
        pairs={"v1": Pairs(number=eligible, agreed=eligible // 2)},
    )


def spoiled(**changed: object) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(tally(1), **changed))


def pair(number: int) -> Evidence:
    return Evidence(
        at_s=1000.5,
        model="fraud",
        version="v2",
        primary="v1",
        test="0123456789ab",
        request_id=f"r{number}",
        shadow_request_id=f"s{number}",
        tenant="acme",
        kind="json",
        fields=("/score",),
        differences=(Difference("/score", "value", "1", "2", 1.0),),
        primary_status=200,
        shadow_status=200,
        primary_s=0.25,
        shadow_s=0.5,
    )


async def eligible(store: Store, model: str | None = None) -> int:
    return sum(one.ledger.eligible for one in (await store.tallies(model)).tallies)


async def test_what_a_worker_says_takes_the_place_of_what_it_said(store: Store) -> None:
    await store.put_tally(tally(3), "host/a")
    await store.put_tally(tally(5), "host/a")
    await store.put_tally(tally(7), "host/b")

    told = await store.tallies("fraud")

    assert sorted(one.ledger.eligible for one in told.tallies) == [5, 7]
    assert told.faults == ()
    assert tally(5) in told.tallies


async def test_tests_of_one_model_are_read_alone(store: Store) -> None:
    await store.put_tally(tally(3), "host/a")
    await store.put_tally(tally(4, model="churn"), "host/a")
    await store.put_tally(tally(5, version="v3"), "host/a")

    assert await eligible(store, "fraud") == 8
    assert await eligible(store, "fra") == 0
    assert await eligible(store) == 12


async def test_workers_that_ended_become_one_and_count_once(store: Store) -> None:
    for number, worker in enumerate(("host/a", "host/b", "host/c"), 1):
        await store.put_tally(tally(number), worker)

    for _ in range(2):  # an answer that got lost is asked for again
        await store.settle_tally(tally(1), "host/a")
        await store.settle_tally(tally(2), "host/b")

    told = (await store.tallies("fraud")).tallies
    assert sorted(one.ledger.eligible for one in told) == [3, 3]
    assert sorted(one.workers for one in told) == [1, 2]
    ended = max(told, key=lambda one: one.workers)
    assert ended.pairs["v1"] == Pairs(number=3, agreed=1)
    assert ended.ledger.skipped == {"size": 3}


async def test_workers_that_end_at_once_count_once_each(store: Store) -> None:
    workers = [f"host/{number}" for number in range(8)]
    for worker in workers:
        await store.put_tally(tally(5), worker)

    await asyncio.gather(*(store.settle_tally(tally(5), worker) for worker in workers))

    [ended] = (await store.tallies("fraud")).tallies
    assert (ended.workers, ended.ledger.eligible, ended.pairs["v1"].number) == (8, 40, 40)


async def test_a_reset_has_every_worker_begin_anew(store: Store) -> None:
    reset = await store.put_tally(tally(3), "host/a")
    await store.put_tally(tally(4), "host/b", reset)
    await store.add_evidence("fraud", "v2", [pair(1)], 10)

    assert await store.reset_shadow("fraud", "v2") == 1
    now = await store.put_tally(tally(9), "host/a", reset)
    await store.settle_tally(tally(9), "host/a")

    assert now != reset
    assert await eligible(store) == 0
    assert [one async for one in store.evidence("fraud", "v2")] == []
    assert await store.put_tally(tally(1), "host/a", now) == now  # counted anew
    assert await store.put_tally(tally(2), "host/c") == now  # a worker that began after it
    assert await eligible(store) == 3


async def test_the_last_reset_of_a_test_can_be_asked_for(store: Store) -> None:
    await store.put_tally(tally(3), "host/a")
    assert await store.last_reset("fraud", "v2", tally(3).test) == ""

    await store.reset_shadow("fraud", "v2")

    reset = await store.last_reset("fraud", "v2", tally(3).test)
    assert reset == await store.put_tally(tally(1), "host/a", reset) != ""
    assert await store.last_reset("fraud", "v3", tally(3).test) == ""


async def test_a_reset_touches_no_other_shadow(store: Store) -> None:
    await store.put_tally(tally(3), "host/a")
    await store.put_tally(tally(4, version="v3"), "host/a")
    await store.spend("fraud", "v2", DAY, "host/a", 2.5)

    await store.reset_shadow("fraud", "v2")

    assert await eligible(store) == 4
    assert await store.reset_shadow("fraud", "v4") == 0
    assert await store.spend("fraud", "v2", DAY, "host/b", 0.5) == 3.0


async def test_spending_of_a_day_adds_up_over_workers(store: Store) -> None:
    assert await store.spend("fraud", "v2", DAY, "host/a", 1.5) == 1.5
    assert await store.spend("fraud", "v2", DAY, "host/b", 0.25) == 1.75
    assert await store.spend("fraud", "v2", DAY, "host/a", 2.0) == 2.25
    assert await store.spend("fraud", "v2", "2026-11-24", "host/a", 1.0) == 1.0
    assert await store.spend("fraud", "v3", DAY, "host/a", 1.0) == 1.0


async def test_pairs_come_back_as_they_were_the_last_added_first(store: Store) -> None:
    await store.add_evidence("fraud", "v2", [pair(1), pair(2)], 10)
    await store.add_evidence("fraud", "v2", [pair(3)], 10)

    found = [one async for one in store.evidence("fraud", "v2")]

    assert found == [pair(3), pair(2), pair(1)]
    assert [one async for one in store.evidence("fraud", "v3")] == []


async def test_a_name_that_cannot_stand_in_a_key_is_refused(store: Store) -> None:
    with pytest.raises(BadNameError):
        await store.put_tally(tally(1, version="a:b"), "host/a")
    with pytest.raises(BadNameError):
        await store.add_evidence("fraud", "", [pair(1)], 10)
    with pytest.raises(BadNameError):
        await store.spend("fraud", "v2", "to-day/", "host/a", 1)


async def test_all_of_it_ends_by_itself(redis_store: RedisStore, valkey: Valkey) -> None:
    await redis_store.put_tally(tally(1), "host/a")
    await redis_store.add_evidence("fraud", "v2", [pair(1)], 10)
    await redis_store.spend("fraud", "v2", DAY, "host/a", 1)
    [seconds, _] = await valkey.client.time()
    await valkey.client.zadd("rmv:shadow", {"fraud:v1:000000000000": seconds - 31 * 86_400})

    await redis_store.put_tally(tally(1), "host/a")

    assert 29 * 86_400 < await valkey.client.ttl(KEY) <= 30 * 86_400
    assert 29 * 86_400 < await valkey.client.ttl("rmv:evidence:fraud:v2") <= 30 * 86_400
    assert 2 * 86_400 < await valkey.client.ttl(f"rmv:spent:fraud:v2:{DAY}") <= 3 * 86_400
    assert await valkey.client.zrange("rmv:shadow", 0, -1) == [b"fraud:v2:0123456789ab"]
    await redis_store.reset_shadow("fraud", "v2")
    assert 29 * 86_400 < await valkey.client.ttl(KEY) <= 30 * 86_400


async def test_pairs_are_bounded_in_number(redis_store: RedisStore, valkey: Valkey) -> None:
    for start in range(0, 1000, 100):
        pairs = [pair(start + number) for number in range(100)]
        await redis_store.add_evidence("fraud", "v2", pairs, 50)

    found = [one async for one in redis_store.evidence("fraud", "v2")]

    assert found[:50] == [pair(number) for number in range(999, 949, -1)]
    assert len(found) <= 150  # a block of the server more


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"{", "is no tally"),
        (b"\xff\xfe", "is no tally"),
        (b"[" * 100_000, "is no tally"),
        (msgspec.json.encode(tally(1, version="v3")), "of another test"),
        (msgspec.json.encode(tally(-1)), "ledger.eligible is -1"),
        (msgspec.json.encode(tally(10**18)), "ledger.eligible is 1000000000000000000"),
        (
            msgspec.json.encode(tally(7)).replace(b'"eligible":7', b'"eligible":1' + b"0" * 400),
            "ledger.eligible is 1000",
        ),
        (spoiled(ledger=Ledger(sizes={-4: Share()})), "ledger.sizes has -4"),
        (spoiled(ledger=Ledger(sizes={64: Share()})), "ledger.sizes has 64"),
        (spoiled(pairs={"v1": Pairs(timeline={10**18: Share()})}), "timeline has 1000"),
        (spoiled(pairs={"v1": Pairs(number=1, agreed=2)}), "agreed has 2 of 1"),
        (
            spoiled(pairs={"v1": Pairs(shadow_latency=Histogram(buckets={10**9: 1}))}),
            "pairs.v1.shadow_latency.buckets has 1000000000",
        ),
        (msgspec.json.encode(tally(1)).replace(b'"since_s":5', b'"since_s":1e999'), ""),
        (b'"' + b"x" * MAX_TALLY_BYTES + b'"', "more bytes"),
    ],
)
async def test_what_is_no_tally_is_told_with_its_place_and_counts_nothing(
    redis_store: RedisStore, valkey: Valkey, raw: bytes, why: str
) -> None:
    await redis_store.put_tally(tally(3), "host/a")
    await valkey.client.hset(KEY, "host/b", raw)

    told = await redis_store.tallies("fraud")

    assert told.tallies == (tally(3),)
    [fault] = told.faults
    assert fault.startswith(f"{KEY} host/b: ")
    assert why in fault


async def test_a_worker_stays_by_itself_where_the_ended_cannot_be_read(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    await redis_store.put_tally(tally(3), "host/a")
    await valkey.client.hset(KEY, "ended", "mine")

    await redis_store.settle_tally(tally(3), "host/a")

    assert await eligible(redis_store) == 3
    assert await valkey.client.hget(KEY, "ended") == b"mine"


async def test_a_key_of_another_type_is_told_and_left_alone(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    await redis_store.put_tally(tally(3, version="v3"), "host/a")
    await redis_store.put_tally(tally(4), "host/a")
    await valkey.client.delete(KEY)
    for key in (KEY, "rmv:evidence:fraud:v2", f"rmv:spent:fraud:v2:{DAY}"):
        await valkey.client.set(key, "mine")

    told = await redis_store.tallies("fraud")

    assert [one.version for one in told.tallies] == ["v3"]
    assert [fault.split(" ")[0] for fault in told.faults] == [KEY]
    with pytest.raises(WrongTypeError, match=KEY):
        await redis_store.put_tally(tally(5), "host/a")
    with pytest.raises(WrongTypeError, match="rmv:evidence:fraud:v2"):
        await redis_store.add_evidence("fraud", "v2", [pair(1)], 10)
    with pytest.raises(WrongTypeError, match="rmv:evidence:fraud:v2"):
        [one async for one in redis_store.evidence("fraud", "v2")]
    with pytest.raises(WrongTypeError, match="rmv:spent:fraud:v2"):
        await redis_store.spend("fraud", "v2", DAY, "host/a", 1)
    assert await valkey.client.get(KEY) == b"mine"


async def test_an_index_of_another_type_or_with_other_names_is_no_end(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    await redis_store.put_tally(tally(3), "host/a")
    odd = (b"fraud", b"fraud:v2", b"fraud:v2:*", b"fraud:v2:a:b", b"::", b"\xff:v2:a")
    await valkey.client.zadd("rmv:shadow", dict.fromkeys(odd, 2e9))

    assert await eligible(redis_store) == await eligible(redis_store, "fraud") == 3

    await valkey.client.delete("rmv:shadow")
    await valkey.client.set("rmv:shadow", "mine")
    with pytest.raises(WrongTypeError, match="rmv:shadow "):
        await redis_store.tallies()


async def test_pairs_and_amounts_that_are_none_are_left_out(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    await redis_store.add_evidence("fraud", "v2", [pair(1)], 10)
    for raw in ("{", '{"at_s": "x"}', "[" * 100_000):
        await valkey.client.xadd("rmv:evidence:fraud:v2", {"evidence": raw})
    await valkey.client.xadd("rmv:evidence:fraud:v2", {"other": "x"})
    spent = f"rmv:spent:fraud:v2:{DAY}"
    for number, amount in enumerate((b"x", b"-5", b"nan", b"inf", b"\xff")):
        await valkey.client.hset(spent, f"host/{number}", amount)

    found = [one async for one in redis_store.evidence("fraud", "v2")]

    assert found == [None, None, None, None, pair(1)]
    assert await redis_store.spend("fraud", "v2", DAY, "host/a", 2) == 2


async def test_data_that_the_store_has_lost_are_written_anew(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    await redis_store.put_tally(tally(3), "host/a")
    await redis_store.reset_shadow("fraud", "v2")
    reset = await redis_store.put_tally(tally(1), "host/a")
    await valkey.client.flushall()

    assert await redis_store.put_tally(tally(4), "host/a", reset) == reset
    assert await redis_store.put_tally(tally(2), "host/b", reset) == reset
    assert await eligible(redis_store) == 6


async def test_a_store_that_is_away_is_told(redis_store: RedisStore, valkey: Valkey) -> None:
    await valkey.kill()

    with pytest.raises(StoreUnavailableError):
        await redis_store.put_tally(tally(3), "host/a")
    with pytest.raises(StoreUnavailableError):
        await redis_store.tallies()
    with pytest.raises(StoreUnavailableError):
        await redis_store.spend("fraud", "v2", DAY, "host/a", 2)


async def test_a_cluster_holds_tests_wherever_their_keys_lie() -> None:
    async with cluster() as nodes:
        store = RedisStore(f"redis+cluster://127.0.0.1:{nodes[0].port}")
        models = [f"model-{number}" for number in range(12)]
        for model in models:
            await store.put_tally(tally(2, model=model), "host/a")
            await store.put_tally(tally(3, model=model), "host/b")
            await store.settle_tally(tally(3, model=model), "host/b")
            await store.add_evidence(model, "v2", [pair(1)], 10)
            assert await store.spend(model, "v2", DAY, "host/a", 1) == 1

        assert await eligible(store) == 60
        assert [one async for one in store.evidence(models[3], "v2")] == [pair(1)]
        assert await store.reset_shadow(models[3], "v2") == 1
        assert await eligible(store) == 55
        await store.close()


def test_no_key_of_a_shadow_test_is_one_that_decisions_depend_on() -> None:
    keys = Keys()
    for key in (
        keys.shadows,
        keys.shadow("fraud", "v2", "0123456789ab"),
        keys.evidence("fraud", "v2"),
        keys.spent("fraud", "v2", DAY),
    ):
        assert keys.parse(key.encode()) is None
        assert not key.startswith(keys.watched)


async def test_a_sidecar_cannot_read_pairs(valkey: Valkey) -> None:
    # What they say may be of anybody; only who looks into them has to read them.
    await load_users(valkey)
    sidecar = RedisStore(url_of(valkey, "rmv-sidecar"))
    operator = RedisStore(url_of(valkey, "rmv-operator"))
    reset = await sidecar.put_tally(tally(3), "host/a")
    await sidecar.settle_tally(tally(3), "host/a")
    await sidecar.add_evidence("fraud", "v2", [pair(1)], 10)
    assert await sidecar.spend("fraud", "v2", DAY, "host/a", 1) == 1

    assert await eligible(operator) == 3
    assert [one async for one in operator.evidence("fraud", "v2")] == [pair(1)]
    assert await operator.reset_shadow("fraud", "v2") == 1
    assert await sidecar.put_tally(tally(3), "host/a", reset) != reset
    denied = await valkey.client.execute_command("ACL", "LOG")  # type: ignore[no-untyped-call]
    assert denied == []
    with pytest.raises(StoreUnavailableError, match="permission"):
        [one async for one in sidecar.evidence("fraud", "v2")]
    with pytest.raises(StoreUnavailableError, match="permission"):
        await operator.spend("fraud", "v2", DAY, "host/a", 0)
    await sidecar.close()
    await operator.close()
