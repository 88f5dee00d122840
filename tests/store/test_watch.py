"""The watch of a real Valkey: edits by anyone, lost data, crashes, and many pins."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

import pytest

from sidecar.errors import StoreUnavailableError
from sidecar.policy import codec
from sidecar.policy.problem import PolicyError
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.live import LivePolicies
from sidecar.store.redis import RedisStore
from sidecar.store.watch import WatchTiming
from tests.store.documents import default_of, document, eventually, pin_of, policy, watching

if TYPE_CHECKING:
    from collections import Counter

    from sidecar.store.keys import Key
    from tests.support.valkey import Valkey

QUICK_RELOAD = WatchTiming(reload_every_s=0.05)


async def _revisions(store: RedisStore) -> list[int]:
    return [entry.revision for entry in await store.history("fraud")]


async def _tracking_ids(valkey: Valkey) -> list[str]:
    """Return the ids of the connections that track keys by broadcast."""
    connections = await valkey.client.client_list()
    return [str(one["id"]) for one in connections if "B" in str(one["flags"])]


async def test_an_edit_by_a_plain_client_is_live(valkey: Valkey, redis_store: RedisStore) -> None:
    async with watching(redis_store) as live:
        await valkey.client.set("rmv:policy:fraud", document())
        await eventually(lambda: default_of(live) == "v1")

        await valkey.client.set("rmv:pin:fraud:a:b", "v2\n")
        await valkey.client.set("rmv:kill:fraud", "")

        await eventually(lambda: pin_of(live, "a:b") == "v2")
        await eventually(lambda: live.snapshots["fraud"].kills == {"": ""})


async def test_a_direct_edit_is_adopted_once_by_two_watches(valkey: Valkey) -> None:
    one, two = RedisStore(valkey.url), RedisStore(valkey.url)
    await one.commit(policy(), expected=None, actor="ann", comment="first")
    async with watching(one) as live, watching(two) as other:
        # As people do: read it, change it, write it back; the revision is the old one.
        edited = json.loads(await one.get_document("fraud") or b"")
        edited["default"] = "v2"
        await valkey.client.set("rmv:policy:fraud", json.dumps(edited))

        await eventually(lambda: live.snapshots["fraud"].revision == 2)
        await eventually(lambda: other.snapshots["fraud"].revision == 2)
        await asyncio.gather(*(_until_recorded(store, 2) for store in (one, two)))

    newest, _ = await one.history("fraud")
    assert await _revisions(one) == [2, 1]
    assert (newest.actor, newest.comment) == ("direct", "")
    assert newest.document == await one.get_document("fraud")
    await one.close()
    await two.close()


async def test_a_direct_edit_that_ends_by_itself_does_so_although_it_is_adopted(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await redis_store.commit(policy(), expected=None, actor="ann", comment="first")
    async with watching(redis_store) as live:
        edited = json.loads(await redis_store.get_document("fraud") or b"")
        await valkey.client.set("rmv:policy:fraud", json.dumps(edited | {"default": "v2"}), ex=60)
        await eventually(lambda: live.snapshots["fraud"].revision == 2)
        await _until_recorded(redis_store, 2)
        left_s = await valkey.client.ttl("rmv:policy:fraud")

        await valkey.client.pexpire("rmv:policy:fraud", 1)
        await eventually(lambda: "fraud" not in live.snapshots)

    assert 0 < left_s <= 60


async def test_what_is_committed_over_a_document_that_ends_stays(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    stored = document()
    await valkey.client.set("rmv:policy:fraud", stored, ex=60)

    await redis_store.commit(policy(), expected=stored, actor="ann", comment="")

    assert await valkey.client.ttl("rmv:policy:fraud") == -1


async def _until_recorded(store: RedisStore, revision: int) -> None:
    async with asyncio.timeout(20):
        while (await _revisions(store))[:1] != [revision]:  # noqa: ASYNC110 -- in another process
            await asyncio.sleep(0.002)


async def test_a_commit_that_died_before_its_history_entry_is_healed(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    first = await redis_store.commit(policy(), expected=None, actor="ann", comment="")
    await valkey.client.set("rmv:policy:fraud", document(revision=first.revision + 1))

    async with watching(redis_store) as live:
        await _until_recorded(redis_store, 2)

        assert live.snapshots["fraud"].revision == 2
    assert await _revisions(redis_store) == [2, 1]


async def test_a_commit_records_the_document_that_it_replaces(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    unseen = document(revision=7)
    await valkey.client.set("rmv:policy:fraud", unseen)

    committed = await redis_store.commit(policy(), expected=unseen, actor="ann", comment="")

    assert committed.revision == 8
    assert await _revisions(redis_store) == [8, 7]


@pytest.mark.parametrize("revision", [2**53 - 1, 2**53, 2**63 - 1])
async def test_an_absurd_revision_is_adopted_as_the_next_one(
    valkey: Valkey, redis_store: RedisStore, revision: int
) -> None:
    async with watching(redis_store) as live:
        await valkey.client.set("rmv:policy:fraud", document(revision=revision))

        await eventually(lambda: "fraud" in live.snapshots)
        await eventually(lambda: live.snapshots["fraud"].revision == 1)


async def test_a_history_entry_is_written_once_per_revision(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    committed = await redis_store.commit(policy(), expected=None, actor="ann", comment="")
    raw = codec.encode(committed)
    async with watching(redis_store), watching(redis_store):
        await valkey.client.set("rmv:policy:fraud", raw)
        await redis_store.commit(policy(), expected=raw, actor="bob", comment="")

    assert await _revisions(redis_store) == [2, 1]


async def test_a_broken_document_touches_no_other_model_and_stays_out_of_history(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    async with watching(redis_store) as live:
        await redis_store.commit(policy("tumor"), expected=None, actor="ann", comment="")
        await valkey.client.set("rmv:policy:fraud", b'{"model": "fraud"')
        await valkey.client.set("rmv:policy:bad:name", b"{}")
        await valkey.client.set("rmv:policy:\xff", b"{}")
        await valkey.client.hset("rmv:policy:hash", "no", "string")

        await eventually(lambda: set(live.faults) == {"fraud", "hash"})
        await eventually(lambda: default_of(live, "tumor") == "v1")
    assert await _revisions(redis_store) == []


async def test_a_reload_mends_what_no_push_told(valkey: Valkey) -> None:
    store = RedisStore(valkey.url, timing=QUICK_RELOAD)
    await valkey.client.set("rmv:policy:fraud", document())
    async with watching(store) as live:
        live.put_pin("fraud", "drifted", "v2")

        await eventually(lambda: pin_of(live, "drifted") is None)
    await store.close()


async def test_a_crash_of_the_server_is_stale_then_heals_and_edits_flow(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await redis_store.commit(policy(), expected=None, actor="ann", comment="")
    await valkey.client.waitaof(1, 0, 5_000)
    async with watching(redis_store) as live:
        await valkey.kill()
        await eventually(lambda: live.is_stale)
        assert default_of(live) == "v1"

        await valkey.start()
        await eventually(lambda: not live.is_stale)

        await valkey.client.set("rmv:pin:fraud:acme", "v2")
        await eventually(lambda: pin_of(live, "acme") == "v2")


async def test_a_killed_tracking_connection_heals_and_edits_flow(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await redis_store.commit(policy(), expected=None, actor="ann", comment="")
    async with watching(redis_store) as live:
        (victim,) = await _tracking_ids(valkey)
        await valkey.client.client_kill_filter(_id=victim)
        await valkey.client.set("rmv:policy:fraud", document(default="v2", revision=9))

        await eventually(lambda: default_of(live) == "v2" and not live.is_stale)


async def test_a_server_that_stops_answering_is_noticed_and_healed(valkey: Valkey) -> None:
    quick = WatchTiming(ping_every_s=0.05, ping_timeout_s=0.1)
    store = RedisStore(valkey.url, timing=quick)
    await valkey.client.set("rmv:policy:fraud", document())
    async with watching(store) as live:
        valkey.pause()
        await eventually(lambda: live.is_stale)
        valkey.resume()

        await eventually(lambda: not live.is_stale)
    await store.close()


async def test_a_watch_that_starts_before_its_server_loads_when_it_comes(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await valkey.client.set("rmv:policy:fraud", document())
    await valkey.stop()
    live = LivePolicies()
    starting = asyncio.ensure_future(_start_later(valkey))

    async with watching(redis_store, live):
        assert default_of(live) == "v1"
    await starting


async def _start_later(valkey: Valkey) -> None:
    await asyncio.sleep(0)  # the watch tries first
    await valkey.start()


async def test_calls_to_a_server_that_is_gone_fail_soon_and_in_our_words(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await valkey.stop()

    with pytest.raises(StoreUnavailableError, match="Redis"):
        await redis_store.models()
    with pytest.raises(StoreUnavailableError):
        await redis_store.commit(policy(), expected=None, actor="ann", comment="")


async def test_five_thousand_pins_load_and_a_burst_of_edits_is_followed(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await valkey.client.set("rmv:policy:fraud", document())
    await valkey.client.mset({f"rmv:pin:fraud:t{n}": "v1" for n in range(5_000)})
    async with watching(redis_store) as live:
        pins = live.snapshots["fraud"].pins
        assert len(pins) == 5_000

        pipeline = valkey.client.pipeline(transaction=False)
        for n in range(5_000):
            pipeline.set(f"rmv:pin:fraud:t{n}", "v2")
        await pipeline.execute()

        await eventually(lambda: set(pins.values()) == {"v2"})
        assert len([pin async for pin in redis_store.pins("fraud")]) == 5_000


async def test_edits_while_everything_loads_are_not_lost(valkey: Valkey) -> None:
    store = RedisStore(valkey.url, timing=WatchTiming(reload_every_s=0.001))
    await valkey.client.set("rmv:policy:fraud", document())
    await valkey.client.mset({f"rmv:pin:fraud:t{n}": "v1" for n in range(3_000)})
    async with watching(store) as live:
        for n in range(200):
            await valkey.client.set("rmv:pin:fraud:t7", f"v{n}")

        await eventually(lambda: pin_of(live, "t7") == "v199")
    await store.close()


async def test_another_prefix_is_another_world(valkey: Valkey, redis_store: RedisStore) -> None:
    await valkey.client.set("other:policy:fraud", document())
    async with watching(redis_store) as live:
        await valkey.client.set("other:policy:tumor", document("tumor"))
        await valkey.client.set("rmv:policy:churn", document("churn"))

        await eventually(lambda: set(live.snapshots) == {"churn"})


async def test_a_password_and_a_database_in_the_url_are_used(valkey: Valkey) -> None:
    store = RedisStore(f"unix://:s%3Acret@{valkey.state_dir}/valkey.sock?db=3")
    await valkey.client.config_set("requirepass", "s:cret")
    async with watching(store) as live:
        await store.commit(policy(), expected=None, actor="ann", comment="")

        await eventually(lambda: default_of(live) == "v1")
    await store.close()


async def test_a_wrong_password_is_stale_and_says_why(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    await valkey.client.config_set("requirepass", "secret")
    store, live = RedisStore(valkey.url), LivePolicies()

    with caplog.at_level(logging.WARNING, "sidecar.store"):
        task = spawn(store.watch(live), name="watch under test")
        await eventually(lambda: bool(caplog.records))
    await stop(task)

    assert live.is_stale
    assert "authenticat" in str(vars(caplog.records[0])["reason"])
    await store.close()


async def test_an_odd_history_entry_does_not_end_adoption(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await valkey.client.xadd("rmv:history:tumor", {"at": "garbage"}, id="5-0")
    async with watching(redis_store) as live:
        await valkey.client.set("rmv:policy:tumor", document("tumor"))
        await valkey.client.set("rmv:policy:fraud", document())

        await eventually(lambda: {"fraud", "tumor"} <= live.snapshots.keys())
        await _until_recorded(redis_store, 1)

    assert [entry.at_s for entry in await redis_store.history("tumor")][-1] == 0.0


async def test_a_policy_key_of_another_type_takes_nothing_away(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await redis_store.commit(policy(), expected=None, actor="ann", comment="")
    async with watching(redis_store) as live:
        await valkey.client.hset("mine", "no", "string")
        await valkey.client.rename("mine", "rmv:policy:fraud")
        await eventually(lambda: "fraud" in live.faults)

        assert default_of(live) == "v1"
        assert "rmv:policy:fraud: not a string" in live.faults["fraud"]
        with pytest.raises(PolicyError, match="not a string"):
            await redis_store.get_policy("fraud")

        await valkey.client.delete("rmv:policy:fraud")
        await eventually(lambda: not live.snapshots)
        assert live.faults == {}


async def test_who_reconnects_keeps_what_a_key_of_another_type_stands_in_for(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await redis_store.commit(policy(), expected=None, actor="ann", comment="")
    async with watching(redis_store) as live:
        await valkey.client.sadd("mine", "no string")
        await valkey.client.rename("mine", "rmv:policy:fraud")
        await valkey.client.client_kill_filter(_type="normal", skipme=True)
        await valkey.client.set("rmv:pin:fraud:acme", "v2")
        await eventually(lambda: pin_of(live, "acme") == "v2")
        await eventually(lambda: not live.is_stale)

        assert (default_of(live), set(live.faults)) == ("v1", {"fraud"})


async def test_a_fault_costs_a_session_of_the_watch_and_no_change(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str]
) -> None:
    live = LivePolicies()
    put, faults = live.put, 1

    def failing(key: Key, value: bytes | None) -> None:
        nonlocal faults
        if faults:
            faults -= 1
            raise ZeroDivisionError
        put(key, value)

    monkeypatch.setattr(live, "put", failing)
    await redis_store.commit(policy(), expected=None, actor="test", comment="")
    async with watching(redis_store, live):
        await redis_store.set_pin("fraud", "acme", "v2")
        await eventually(lambda: pin_of(live, "acme") == "v2")

    assert counted_faults == {"policies": 1}
