"""Who can write to the store, and has no key, moves nobody: each thing is tampered with."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from sidecar.policy import codec
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.live import LivePolicies
from sidecar.store.pulse import Member, Pulse
from sidecar.store.redis import RedisStore
from sidecar.store.watch import WatchTiming
from tests.store.documents import GIVE_UP_S, default_of, document, eventually, pin_of, policy
from tests.store.documents import watching as watching_by
from tests.support.signing import signer, trust_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sidecar.store.base import Store
    from tests.support.valkey import Valkey

ANN, EVE = signer(), signer()
POLICY, PIN, KILL = "rmv:policy:fraud", "rmv:pin:fraud:acme", "rmv:kill:fraud:v2"
QUICK = WatchTiming(reload_every_s=0.05)


@pytest.fixture
async def ann(valkey: Valkey) -> AsyncIterator[RedisStore]:
    """The store as Ann writes to it."""
    store = RedisStore(valkey.url)
    store.sign_with(ANN)
    yield store
    await store.close()


async def commit(store: Store, default: str = "v1", model: str = "fraud") -> int:
    expected = await store.get_document(model)
    made = await store.commit(policy(model, default), expected=expected, actor="ann", comment="")
    return made.revision


@asynccontextmanager
async def watching(
    valkey: Valkey, timing: WatchTiming | None = None
) -> AsyncIterator[LivePolicies]:
    """Watch as a worker does that trusts Ann, with a heartbeat."""
    store = RedisStore(valkey.url, timing=timing)
    live = LivePolicies(
        on_change=lambda model: pulse.notice(model),  # noqa: PLW0108 -- not there yet
        trust=trust_in(ANN, clock=SystemClock()),
    )
    pulse = Pulse(Member("host-1", "a"), live)
    beating = spawn(store.beat(pulse), name="heartbeat under test")
    try:
        async with watching_by(store, live):
            yield live
    finally:
        await stop(beating)
        await store.close()


def refused(live: LivePolicies) -> dict[str, int]:
    assert live.trust is not None
    return dict(live.trust.refused())


async def put(valkey: Valkey, key: str, value: str | bytes | None) -> None:
    if value is None:
        await valkey.client.delete(key)
    else:
        await valkey.client.set(key, value)


async def test_a_signed_commit_pin_and_kill_take_effect(valkey: Valkey, ann: RedisStore) -> None:
    async with watching(valkey) as live:
        await commit(ann, "v2")
        await ann.set_pin("fraud", "acme", "v1", ttl_s=3600)
        await ann.set_kill("fraud", "v2", "wrong scores")
        await eventually(lambda: default_of(live) == "v2" and pin_of(live, "acme") == "v1")
        await eventually(lambda: live.snapshots["fraud"].kills == {"v2": "wrong scores"})

        await ann.delete_pin("fraud", "acme")
        await ann.delete_kill("fraud", "v2")
        await eventually(lambda: pin_of(live, "acme") is None)
        await eventually(lambda: live.snapshots["fraud"].kills == {})

        assert refused(live) == {}


async def test_who_reads_the_store_without_keys_sees_values_and_no_seals(
    valkey: Valkey, ann: RedisStore, redis_store: RedisStore
) -> None:
    await commit(ann)
    await ann.set_pin("fraud", "acme", "v1", ttl_s=3600)
    await ann.set_pin("fraud", "globex", "v2")
    await ann.delete_pin("fraud", "globex")
    await ann.set_kill("fraud", "v2", "wrong scores")
    await ann.set_kill("fraud", "v1", "a mistake")
    await ann.delete_kill("fraud", "v1")

    assert [(one.tenant, one.version) async for one in redis_store.pins("fraud")] == [
        ("acme", "v1")
    ]
    assert await redis_store.pins_of("fraud", ["acme", "globex"]) == {"acme": "v1"}
    assert [(one.version, one.reason) for one in await redis_store.kills("fraud")] == [
        ("v2", "wrong scores")
    ]
    assert str(await valkey.client.get(PIN)).startswith("b'v1 sealed:")
    assert 0 < await valkey.client.pttl(PIN) <= 3_600_000
    async with watching_by(redis_store) as live:
        assert (pin_of(live, "acme"), pin_of(live, "globex")) == ("v1", None)
        assert live.snapshots["fraud"].kills == {"v2": "wrong scores"}


@pytest.mark.parametrize(
    "forge",
    [
        lambda _: document(default="v2", revision=9),
        lambda _: document(default="v2"),
        lambda _: codec.encode(EVE.policy(policy(default="v2", revision=9))),
        lambda raw: raw.replace(b'"default":"v1"', b'"default":"v2"'),
        lambda raw: raw.replace(b"127.0.0.1:9001", b"127.0.0.1:6666"),
        lambda _: b"model: fraud",
        lambda _: b"",
        lambda _: None,
    ],
    ids=["unsigned", "no revision", "a stranger", "edited", "rerouted", "yaml", "empty", "deleted"],
)
async def test_a_policy_that_nobody_signed_moves_no_request(
    valkey: Valkey, ann: RedisStore, forge: Callable[[bytes], bytes | None]
) -> None:
    await commit(ann)
    raw = await ann.get_document("fraud")
    async with watching(valkey, QUICK) as live:
        forged = forge(raw or b"")
        await put(valkey, POLICY, forged)
        await eventually(lambda: bool(live.faults or live.lost))
        await asyncio.sleep(0.2)  # reloads, and what an adoption would take

        assert default_of(live) == "v1"
        assert live.snapshots["fraud"].policy.versions["v1"].endpoints == ("http://127.0.0.1:9001",)
        assert await ann.get_document("fraud") == forged  # no sidecar has rewritten it
        assert len(await ann.history("fraud")) == 1

        assert await commit(ann, "v2") > 1
        await eventually(lambda: default_of(live) == "v2" and not live.is_stale)
        assert (live.faults, refused(live)) == ({}, {})


async def test_a_signed_policy_of_before_is_refused_and_rewritten_by_nobody(
    valkey: Valkey, ann: RedisStore
) -> None:
    await commit(ann, "v2")
    old = await ann.get_document("fraud")
    await commit(ann, "v1")
    async with watching(valkey, QUICK) as live:
        await put(valkey, POLICY, old)
        await eventually(lambda: refused(live) == {"older": 1})
        await asyncio.sleep(0.2)

        assert default_of(live) == "v1"
        assert await ann.get_document("fraud") == old
        assert [one.revision for one in await ann.history("fraud")] == [2, 1]


async def test_a_signed_policy_of_another_model_is_of_that_one(
    valkey: Valkey, ann: RedisStore
) -> None:
    await commit(ann)
    await commit(ann, "v2", "other")
    async with watching(valkey) as live:
        await put(valkey, POLICY, await ann.get_document("other"))
        await eventually(lambda: "fraud" in live.faults)

        assert default_of(live) == "v1"


@pytest.mark.parametrize("tampered", ["v1", "v1 sealed:", "", None])
async def test_a_pin_that_nobody_signed_or_ended_moves_no_tenant(
    valkey: Valkey, ann: RedisStore, tampered: str | None
) -> None:
    await commit(ann)
    await ann.set_pin("fraud", "acme", "v2")
    async with watching(valkey, QUICK) as live:
        await put(valkey, PIN, tampered)
        await eventually(lambda: sum(refused(live).values()) == 1)

        assert pin_of(live, "acme") == "v2"
        await ann.delete_pin("fraud", "acme")
        await eventually(lambda: pin_of(live, "acme") is None and not refused(live))


async def test_a_pin_of_before_does_not_come_back(valkey: Valkey, ann: RedisStore) -> None:
    await commit(ann)
    await ann.set_pin("fraud", "acme", "v2")
    old = await valkey.client.get(PIN)
    async with watching(valkey) as live:
        assert pin_of(live, "acme") == "v2"
        await ann.delete_pin("fraud", "acme")
        await eventually(lambda: pin_of(live, "acme") is None)

        await put(valkey, PIN, old)
        await eventually(lambda: refused(live) == {"older": 1})

        assert pin_of(live, "acme") is None


async def test_a_pin_of_one_tenant_or_model_is_of_no_other(valkey: Valkey, ann: RedisStore) -> None:
    await commit(ann)
    await commit(ann, "v1", "other")
    await ann.set_pin("fraud", "acme", "v2")
    async with watching(valkey) as live:
        for key in ("rmv:pin:fraud:globex", "rmv:pin:other:acme", "rmv:kill:fraud:acme"):
            await put(valkey, key, await valkey.client.get(PIN))
        await eventually(lambda: refused(live) == {"forged": 3})

        assert pin_of(live, "globex") is None
        assert pin_of(live, "acme", "other") is None


async def test_a_pin_whose_ttl_was_taken_away_ends_as_it_was_signed(
    valkey: Valkey, ann: RedisStore
) -> None:
    await commit(ann)
    async with watching(valkey) as live:
        await ann.set_pin("fraud", "acme", "v2", ttl_s=3.0)
        await valkey.client.persist(PIN)
        await eventually(lambda: pin_of(live, "acme") == "v2")

        await eventually(lambda: pin_of(live, "acme") is None)

        assert await valkey.client.exists(PIN)


async def test_a_kill_that_nobody_signed_or_ended_changes_nothing(
    valkey: Valkey, ann: RedisStore
) -> None:
    await commit(ann)
    await ann.set_kill("fraud", "v2", "wrong scores")
    async with watching(valkey) as live:
        await put(valkey, "rmv:kill:fraud:v1", "attack")
        await put(valkey, "rmv:kill:fraud", "attack")
        await put(valkey, KILL, None)
        await eventually(lambda: refused(live) == {"unsigned": 2, "deleted": 1})

        assert live.snapshots["fraud"].kills == {"v2": "wrong scores"}


async def test_a_flush_takes_nothing_that_was_signed(valkey: Valkey, ann: RedisStore) -> None:
    await commit(ann)
    await ann.set_pin("fraud", "acme", "v2")
    await ann.set_kill("fraud", "v1", "wrong scores")
    async with watching(valkey, QUICK) as live:
        await valkey.client.flushall()
        await eventually(lambda: live.lost == {"fraud"})
        await asyncio.sleep(0.2)
        assert pin_of(live, "acme") == "v2"

        await put(valkey, POLICY, document(default="v2"))  # which would end it, were it believed
        await eventually(lambda: "fraud" in live.faults)
        await asyncio.sleep(0.2)

        assert (default_of(live), pin_of(live, "acme")) == ("v1", "v2")
        assert live.snapshots["fraud"].kills == {"v1": "wrong scores"}


async def test_a_model_ends_by_a_signed_end_alone(valkey: Valkey, ann: RedisStore) -> None:
    await commit(ann)
    async with watching(valkey, QUICK) as live:
        raw = await ann.get_document("fraud")
        end = structs.replace(policy(), versions={}, default=None, deleted=True)
        await ann.commit(end, expected=raw, actor="ann", comment="")
        await eventually(lambda: live.snapshots == {})

        await put(valkey, POLICY, raw)
        await eventually(lambda: refused(live) == {"older": 1})

        assert live.snapshots == {}


async def test_the_history_gets_what_is_signed_from_whoever_sees_it(
    valkey: Valkey, ann: RedisStore
) -> None:
    async with watching(valkey) as live:
        raw = codec.encode(ANN.policy(policy(revision=1)))
        await put(valkey, POLICY, raw)  # as a commit that dies before it writes the history
        await eventually(lambda: default_of(live) == "v1")
        async with asyncio.timeout(GIVE_UP_S):
            while not await ann.history("fraud"):  # noqa: ASYNC110 -- another process writes it
                await asyncio.sleep(0.01)

        assert (await ann.history("fraud"))[0].document == raw
        assert await ann.get_document("fraud") == raw


async def test_a_revision_that_the_history_has_otherwise_is_committed_anew_by_no_sidecar(
    valkey: Valkey, ann: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    await commit(ann)
    raw = await ann.get_document("fraud")
    await valkey.client.xadd("rmv:history:fraud", {"document": "x", "digest": "y"}, id="9-0")
    async with watching(valkey, QUICK) as live:
        told = "a sidecar cannot sign the next"
        await eventually(
            lambda: any(told in str(one.__dict__.get("reason")) for one in caplog.records)
        )

        assert (default_of(live), live.faults) == ("v1", {})
        assert await ann.get_document("fraud") == raw


async def test_the_fleet_tells_what_is_not_believed(valkey: Valkey, ann: RedisStore) -> None:
    await commit(ann)
    async with watching(valkey):
        await put(valkey, PIN, "v2")

        async def told() -> dict[str, int]:
            return (await ann.fleet())[0].refused

        await _until(told, {"unsigned": 1})


async def _until(ask: Callable[[], Awaitable[dict[str, int]]], wanted: dict[str, int]) -> None:
    async with asyncio.timeout(GIVE_UP_S):
        while await ask() != wanted:  # noqa: ASYNC110 -- another process tells
            await asyncio.sleep(0.02)
