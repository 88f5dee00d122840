"""What sidecars tell of themselves through a store, and who reads it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sidecar.runtime.tasks import spawn, stop
from sidecar.store import fleet
from sidecar.store.fleet import EXPIRES_S
from sidecar.store.keys import PolicyKey
from sidecar.store.live import LivePolicies
from sidecar.store.pulse import Member, Pulse
from tests.store.documents import GIVE_UP_S, document, policy, watching

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Callable

    import pytest
    from redis.typing import EncodableT, FieldT

    from sidecar.store.base import Instance, Store
    from sidecar.store.redis import RedisStore
    from tests.support.valkey import Valkey

    Holds = Callable[[list[Instance]], bool]


@asynccontextmanager
async def beating(
    store: Store, sidecar: str = "host-1", worker: str = "a"
) -> AsyncIterator[tuple[Pulse, LivePolicies]]:
    """Tell of a worker that has loaded nothing, until left."""
    live = LivePolicies(on_change=lambda model: pulse.notice(model))  # noqa: PLW0108 -- not there yet
    pulse = Pulse(Member(sidecar, worker, "1.2.3", 17.0), live, lambda: {"requests": 5})
    live.is_stale = False
    task = spawn(store.beat(pulse), name="heartbeat under test")
    try:
        await told(store, lambda found: any(one.name == sidecar for one in found))
        yield pulse, live
    finally:
        await stop(task)


async def told(store: Store, holds: Holds, model: str | None = None) -> list[Instance]:
    """Return the fleet as soon as `holds` of it."""
    async with asyncio.timeout(GIVE_UP_S):
        while not holds(found := await store.fleet(model)):  # noqa: ASYNC110 -- as `eventually`
            await asyncio.sleep(0.002)
    return found


def at(revision: int | None, model: str = "fraud") -> Holds:
    def holds(found: list[Instance]) -> bool:
        return [one.revisions.get(model) for one in found] == [revision]

    return holds


async def test_nobody_lives_by_a_store_that_nobody_told(store: Store) -> None:
    assert await store.fleet() == []


async def test_a_worker_tells_what_it_is_and_what_it_decides_by(store: Store) -> None:
    async with beating(store) as (_, live):
        live.put_policy("fraud", document(revision=7))
        live.put_policy("tumor", document("tumor", revision=2))
        live.put_policy("tumor", b"{")

        (one,) = await told(store, lambda found: "tumor" in found[0].faults)

    assert one.name == "host-1"
    assert one.revisions == {"fraud": 7, "tumor": 2}
    assert one.faults["tumor"].startswith("rmv:policy:tumor")
    assert (one.program, one.started_s, one.workers, one.is_stale) == ("1.2.3", 17.0, 1, False)
    assert one.counters == {"requests": 5}
    assert 0 <= one.age_s < EXPIRES_S


async def test_a_model_that_went_is_told_no_more(store: Store) -> None:
    async with beating(store) as (_, live):
        live.put_policy("fraud", document(revision=7))
        await told(store, at(7))

        live.put(PolicyKey("fraud"), None)

        await told(store, at(None))


async def test_a_sidecar_is_at_the_oldest_revision_of_its_workers(store: Store) -> None:
    async with beating(store) as (_, one), beating(store, worker="b") as (_, other):
        one.put_policy("fraud", document(revision=7))
        await told(store, lambda found: found[0].workers == 2)
        assert at(None)(await store.fleet())

        other.put_policy("fraud", document(revision=6))
        await told(store, at(6))
        other.put_policy("fraud", document(revision=8))
        (merged,) = await told(store, at(7))

    assert merged.counters == {"requests": 10}


async def test_a_worker_that_ends_takes_leave(store: Store) -> None:
    async with beating(store, "host-2"):
        async with beating(store):
            assert [one.name for one in await store.fleet()] == ["host-1", "host-2"]

        assert [one.name for one in await store.fleet()] == ["host-2"]


async def test_one_model_may_be_asked_for_alone(redis_store: RedisStore) -> None:
    async with beating(redis_store) as (_, live):
        live.put_policy("fraud", document(revision=7))
        live.put_policy("tumor", document("tumor", revision=2))

        (one,) = await told(redis_store, at(7), model="fraud")

    assert one.revisions == {"fraud": 7}


async def test_fifty_watchers_acknowledge_a_commit(redis_store: RedisStore) -> None:
    async def watch(number: int, ready: asyncio.Barrier, done: asyncio.Event) -> None:
        async with (
            beating(redis_store, f"host-{number}") as (_, live),
            watching(redis_store, live),
        ):
            await ready.wait()
            await done.wait()

    ready, done = asyncio.Barrier(51), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(watch(number, ready, done))
        await ready.wait()

        committed = await redis_store.commit(policy(), expected=None, actor="ann", comment="")
        found = await told(
            redis_store,
            lambda found: all(one.revisions.get("fraud") == committed.revision for one in found),
            model="fraud",
        )
        done.set()

    assert len(found) == 50


async def test_what_a_flush_took_is_told_again_in_whole(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    async with beating(redis_store) as (_, live):
        live.put_policy("fraud", document(revision=7))
        await told(redis_store, at(7))

        await valkey.client.flushall()
        live.put_policy("tumor", document("tumor", revision=2))

        (one,) = await told(redis_store, at(2, "tumor"))
        assert one.revisions == {"fraud": 7, "tumor": 2}


async def test_what_a_flush_took_is_told_again_with_a_document_of_the_same_revision(
    valkey: Valkey, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "BEAT_EVERY_S", 1000.0)
    async with beating(redis_store) as (_, live):
        live.put_policy("fraud", document(revision=1))
        await told(redis_store, at(1))

        await valkey.client.flushall()
        live.put_policy("fraud", document(default="v2", revision=1))

        await told(redis_store, at(1))


async def test_what_changed_while_the_store_was_away_is_told_when_it_is_back(
    valkey: Valkey, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "BEAT_EVERY_S", 0.05)
    async with beating(redis_store) as (_, live):
        live.put_policy("fraud", document(revision=7))
        live.put_policy("tumor", document("tumor", revision=2))
        await told(redis_store, at(7))
        await valkey.client.config_set("requirepass", "another")
        await valkey.client.client_kill_filter(_type="normal", skipme=True)
        live.put(PolicyKey("tumor"), None)
        live.put_policy("fraud", document(revision=8))
        await asyncio.sleep(0.2)  # several beats

        await valkey.client.config_set("requirepass", "")

        (one,) = await told(redis_store, at(8))
        assert one.revisions == {"fraud": 8}


async def test_that_nothing_is_stale_any_more_is_told_before_the_next_beat(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "BEAT_EVERY_S", 1000.0)
    live = LivePolicies()
    task = spawn(redis_store.beat(Pulse(Member("host-1", "a"), live)), name="heartbeat under test")
    await told(redis_store, lambda found: [one.is_stale for one in found] == [True])

    live.is_stale = False

    await told(redis_store, lambda found: [one.is_stale for one in found] == [False])
    await stop(task)


async def test_who_is_killed_expires(valkey: Valkey, redis_store: RedisStore) -> None:
    async with beating(redis_store):
        (key,) = [key async for key in valkey.client.scan_iter("rmv:fleet:*")]

        assert 0 < await valkey.client.pttl(key) <= EXPIRES_S * 1000
        await valkey.client.pexpire(key, 1)

        await told(redis_store, lambda found: found == [])


async def test_what_anybody_wrote_into_the_fleet_harms_nobody(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await valkey.client.hset("rmv:fleet:x:y", mapping={"sidecar": "x", "revision:fraud": "?"})
    await valkey.client.pexpire("rmv:fleet:x:y", 60_000)
    await valkey.client.hset("rmv:fleet:immortal", "sidecar", "z")
    await valkey.client.set("rmv:fleet:text", "no hash")
    endless: dict[FieldT, EncodableT] = {
        "sidecar": "x",
        "revision:fraud": "9" * 5000,
        "started": "9" * 5000,
        "count:requests": "9" * 5000,
        "refused:unsigned": "9" * 5000,
    }
    await valkey.client.hset("rmv:fleet:x:z", mapping=endless)
    await valkey.client.pexpire("rmv:fleet:x:z", 60_000)
    names = ("x:y", "x:z", "gone", "immortal", "text")
    await valkey.client.zadd("rmv:fleet", {name: n for n, name in enumerate(names)})

    (one,) = await redis_store.fleet()

    assert (one.name, one.workers, one.revisions) == ("x", 2, {})
    committed = await redis_store.commit(policy(), expected=None, actor="eve", comment="")
    assert committed.revision == 1


async def test_a_heart_beats_on_after_a_fault(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str]
) -> None:
    monkeypatch.setattr("sidecar.runtime.tasks.REST_S", 0.01)
    async with beating(redis_store) as (pulse, live):
        state, calls = pulse.state, 0

        def failing() -> dict[str, str]:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise ZeroDivisionError
            return state()

        monkeypatch.setattr(pulse, "state", failing)
        live.put_policy("fraud", document(revision=7))

        await told(redis_store, at(7))
    assert counted_faults == {"heartbeat": 1}
