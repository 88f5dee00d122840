"""What every store promises, held against memory and a real Valkey alike."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from sidecar.errors import StoreConflictError
from sidecar.policy import codec
from sidecar.policy.problem import PolicyError
from sidecar.store.base import Kill, Pin
from sidecar.store.keys import BadNameError
from tests.store.documents import default_of, eventually, pin_of, policy, watching

if TYPE_CHECKING:
    from sidecar.model.policy import Policy
    from sidecar.store.base import Store
    from sidecar.store.redis import RedisStore
    from tests.support.valkey import Valkey


async def _commit(store: Store, wanted: Policy, actor: str = "ann", comment: str = "") -> Policy:
    expected = await store.get_document(wanted.model)
    return await store.commit(wanted, expected=expected, actor=actor, comment=comment)


async def test_a_commit_is_read_back_with_its_revision_actor_and_comment(store: Store) -> None:
    committed = await _commit(store, policy(), actor="ann", comment="first")

    stored = await store.get_policy("fraud")

    assert stored is not None
    assert stored.policy == committed
    assert stored.raw == codec.encode(committed)
    assert (committed.revision, committed.actor, committed.comment) == (1, "ann", "first")


async def test_what_is_not_there_is_none_or_empty(store: Store) -> None:
    assert await store.get_policy("fraud") is None
    assert await store.get_document("fraud") is None
    assert await store.models() == []
    assert await store.kills("fraud") == []
    assert await store.history("fraud") == []
    assert [pin async for pin in store.pins("fraud")] == []


async def test_the_pins_of_some_tenants_are_read_alone(store: Store) -> None:
    await store.set_pin("fraud", "acme", "v1")
    await store.set_pin("fraud", "a:b", "v2")
    await store.set_pin("fraud", "globex", "v2")
    await store.set_pin("churn", "hooli", "v2")

    found = await store.pins_of("fraud", ("acme", "a:b", "hooli", "", "x" * 600))

    assert found == {"acme": "v1", "a:b": "v2"}
    assert await store.pins_of("fraud", ()) == {}


async def test_models_are_sorted(store: Store) -> None:
    for model in ("tumor", "fraud", "churn"):
        await _commit(store, policy(model))

    assert await store.models() == ["churn", "fraud", "tumor"]


async def test_a_commit_on_an_outdated_document_conflicts_and_changes_nothing(store: Store) -> None:
    first = await _commit(store, policy())
    outdated = codec.encode(first)
    second = await _commit(store, policy(default="v2"))

    with pytest.raises(StoreConflictError, match="rmv:policy:fraud"):
        await store.commit(policy(), expected=outdated, actor="bob", comment="")
    with pytest.raises(StoreConflictError):
        await store.commit(policy(), expected=None, actor="bob", comment="")

    assert await store.get_document("fraud") == codec.encode(second)
    assert [entry.actor for entry in await store.history("fraud")] == ["ann", "ann"]


async def test_of_racing_commits_one_wins(store: Store) -> None:
    base = codec.encode(await _commit(store, policy()))
    racers = [
        store.commit(policy(default="v2"), expected=base, actor=f"racer{n}", comment="")
        for n in range(8)
    ]

    results = await asyncio.gather(*racers, return_exceptions=True)

    lost = [result for result in results if isinstance(result, StoreConflictError)]
    assert len(lost) == 7
    assert [entry.revision for entry in await store.history("fraud")] == [2, 1]


async def test_an_invalid_policy_is_not_committed(store: Store) -> None:
    with pytest.raises(PolicyError, match="v9"):
        await _commit(store, policy(default="v9"))

    assert await store.get_document("fraud") is None


async def test_history_is_newest_first_limited_and_outlives_the_document(store: Store) -> None:
    for default in ("v1", "v2", "v1"):
        await _commit(store, policy(default=default), comment=f"to {default}")
    assert await store.delete_policy("fraud")
    again = await _commit(store, policy())

    history = await store.history("fraud", limit=2)

    assert again.revision == 4
    assert [entry.revision for entry in history] == [4, 3]
    assert history[1].comment == "to v1"
    assert history[1].digest == codec.digest(history[1].document)
    assert history[1].at_s > 0


async def test_what_was_changed_since_it_was_read_is_not_deleted(store: Store) -> None:
    await _commit(store, policy())
    seen = await store.get_document("fraud")
    await _commit(store, policy(default="v2"))

    with pytest.raises(StoreConflictError, match="rmv:policy:fraud"):
        await store.delete_policy("fraud", expected=seen)

    now = await store.get_document("fraud")
    assert now not in {None, seen}
    assert await store.delete_policy("fraud", expected=now)
    assert not await store.delete_policy("fraud", expected=now)


async def test_deleting_says_whether_there_was_something(store: Store) -> None:
    await store.set_pin("fraud", "acme", "v2")
    await store.set_kill("fraud", "v1", "bad")

    assert not await store.delete_policy("fraud")
    assert [await store.delete_pin("fraud", "acme") for _ in range(2)] == [True, False]
    assert [await store.delete_kill("fraud", "v1") for _ in range(2)] == [True, False]
    assert not await store.delete_kill("fraud")


async def test_pins_are_those_of_the_model_and_tenants_may_hold_colons(store: Store) -> None:
    await store.set_pin("fraud", "urn:org:acme", "v2")
    await store.set_pin("fraud", "*", "v1")
    await store.set_pin("fraudulent", "other", "v1")

    found = [pin async for pin in store.pins("fraud")]

    assert sorted(found, key=lambda pin: pin.tenant) == [
        Pin("*", "v1"),
        Pin("urn:org:acme", "v2"),
    ]


async def test_kills_are_sorted_with_the_whole_model_first(store: Store) -> None:
    await store.set_kill("fraud", "v2", "leaks")
    await store.set_kill("fraud", "", "all off")
    await store.set_kill("fraudulent", "v1", "other")

    assert await store.kills("fraud") == [Kill("", "all off"), Kill("v2", "leaks")]


async def test_a_time_to_live_is_reported(store: Store) -> None:
    await store.set_pin("fraud", "acme", "v2", ttl_s=500)
    await store.set_kill("fraud", "v1", "bad", ttl_s=500)

    pins = [pin async for pin in store.pins("fraud")]
    (kill,) = await store.kills("fraud")

    assert pins[0].ttl_s is not None
    assert 0 < pins[0].ttl_s <= 500
    assert kill.ttl_s is not None


@pytest.mark.parametrize("name", ["", "a:b", "a*", "-a", "a b", "x" * 65])
async def test_a_name_that_cannot_stand_in_a_key_is_refused(store: Store, name: str) -> None:
    with pytest.raises(BadNameError):
        await store.get_policy(name)
    with pytest.raises(BadNameError):
        await store.set_pin(name, "acme", "v1")
    with pytest.raises(BadNameError):
        await store.set_kill(name, "v1", "bad")


async def test_a_watch_sees_what_was_there_and_what_comes(store: Store) -> None:
    await _commit(store, policy())
    await store.set_pin("fraud", "acme", "v2")

    async with watching(store) as live:
        assert default_of(live) == "v1"
        assert pin_of(live, "acme") == "v2"

        await _commit(store, policy(default="v2"))
        await store.delete_pin("fraud", "acme")
        await store.set_kill("fraud", "v1", "bad")

        await eventually(lambda: default_of(live) == "v2")
        await eventually(lambda: pin_of(live, "acme") is None)
        await eventually(lambda: live.snapshots["fraud"].kills == {"v1": "bad"})


async def test_a_deleted_policy_is_gone_from_a_watch(store: Store) -> None:
    await _commit(store, policy())
    async with watching(store) as live:
        await store.delete_policy("fraud")

        await eventually(lambda: not live.snapshots)
        assert not live.is_stale


async def test_a_pin_ends_with_its_time_to_live(store: Store) -> None:
    await _commit(store, policy())
    async with watching(store) as live:
        await store.set_pin("fraud", "acme", "v2")
        await eventually(lambda: pin_of(live, "acme") == "v2")

        await store.set_pin("fraud", "acme", "v2", ttl_s=0.05)

        await eventually(lambda: pin_of(live, "acme") is None)


async def test_two_watches_of_one_store_do_not_disturb_each_other(store: Store) -> None:
    async with watching(store) as one:
        async with watching(store):
            pass
        await _commit(store, structs.replace(policy(), default="v2"))

        await eventually(lambda: default_of(one) == "v2")


async def test_a_document_of_a_name_that_no_model_can_have_is_a_stray(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    await _commit(redis_store, policy())
    await valkey.client.set("rmv:policy:no name", "mine")
    await valkey.client.hset(b"rmv:policy:\xff", "a", "b")

    assert await redis_store.stray_documents() == ["rmv:policy:\\xff", "rmv:policy:no name"]
    assert await redis_store.models() == ["fraud"]


async def test_models_are_named_by_documents_pins_and_kills(store: Store) -> None:
    await store.commit(policy("tumor"), expected=None, actor="ann", comment="")
    await store.set_pin("fraud", "acme", "v1")
    await store.set_kill("triage", "", "off")

    assert await store.named_models() == ["fraud", "triage", "tumor"]
    assert await store.models() == ["tumor"]


async def test_audit_is_read_back_in_order_and_from_where_one_was(store: Store) -> None:
    assert not await store.is_audited()
    await store.add_audit([b"one", b"two"], keep=1000)
    await store.add_audit([b"three"], keep=1000)

    found = [(at, line) async for at, line in store.audit()]
    later = [line async for _, line in store.audit(found[1][0])]

    assert await store.is_audited()
    assert [line for _, line in found] == [b"one", b"two", b"three"]
    assert later == [b"three"]
