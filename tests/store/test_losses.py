"""A store that lost its data or went back, told apart from one that somebody edits."""

from __future__ import annotations

import asyncio
import logging
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.policy import codec
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.live import LivePolicies
from sidecar.store.pulse import Member, Pulse
from sidecar.store.redis import RedisStore
from sidecar.store.watch import WatchTiming
from tests.store.documents import default_of, document, eventually, pin_of, policy, watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from tests.support.valkey import Valkey

QUICK_RELOAD = WatchTiming(reload_every_s=0.05)
KEYS = ("rmv:policy:fraud", "rmv:history:fraud")


async def commit(store: RedisStore, model: str = "fraud", default: str = "v1") -> int:
    expected = await store.get_document(model)
    committed = await store.commit(
        policy(model, default), expected=expected, actor="ann", comment=""
    )
    return committed.revision


async def copy(valkey: Valkey) -> dict[str, bytes]:
    """Return a backup of the policy and its history."""
    return {key: await valkey.client.dump(key) or b"" for key in KEYS}


async def copy_of_first(valkey: Valkey, store: RedisStore, *later: str) -> dict[str, bytes]:
    """Commit a policy, then ones with these defaults; return a backup of the first."""
    await commit(store)
    backup = await copy(valkey)
    for default in later:
        await commit(store, default=default)
    return backup


async def restore(valkey: Valkey, backup: dict[str, bytes]) -> None:
    async with valkey.client.pipeline(transaction=True) as at_once:
        for key, dumped in backup.items():
            at_once.restore(key, 0, dumped, replace=True)
        await at_once.execute()


@asynccontextmanager
async def sidecar(store: RedisStore) -> AsyncIterator[LivePolicies]:
    """Watch as a worker does: it tells the fleet what it decides by."""
    live = LivePolicies(on_change=lambda model: pulse.notice(model))  # noqa: PLW0108 -- not there yet
    pulse = Pulse(Member("host-1", "a"), live)
    task = spawn(store.beat(pulse), name="heartbeat under test")
    try:
        async with watching(store, live):
            yield live
    finally:
        await stop(task)


def revision_of(live: LivePolicies) -> int:
    return live.snapshots["fraud"].revision


async def test_an_older_copy_is_refused_and_the_newer_policy_serves(
    valkey: Valkey, redis_store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    backup = await copy_of_first(valkey, redis_store, "v2")
    async with watching(redis_store) as live:
        with caplog.at_level(logging.ERROR, "sidecar.store"):
            await restore(valkey, backup)
            await eventually(lambda: "store went back" in caplog.text)

        assert (default_of(live), revision_of(live)) == ("v2", 2)
        assert "1 is older than 2" in live.faults["fraud"]
        assert live.behind == {"fraud": 2}
        assert await copy(valkey) == backup


async def test_a_commit_on_a_store_that_went_back_is_newer_than_what_sidecars_have(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    backup = await copy_of_first(valkey, redis_store, "v2", "v1", "v2")
    async with sidecar(redis_store) as live:
        await _until_told(redis_store, 4)
        await restore(valkey, backup)
        await eventually(lambda: live.behind == {"fraud": 4})

        assert await commit(redis_store) == 5

        await eventually(lambda: revision_of(live) == 5)
        assert (default_of(live), live.faults, live.behind) == ("v1", {}, {})


@asynccontextmanager
async def at_revision_3(store: RedisStore) -> AsyncIterator[LivePolicies]:
    """Watch as a worker does that has told the fleet of revision 3."""
    for default in ("v1", "v2", "v1"):
        await commit(store, default=default)
    async with sidecar(store) as live:
        await _until_told(store, 3)
        yield live


async def _expect_next_to_serve(store: RedisStore, live: LivePolicies) -> None:
    assert await commit(store, default="v2") == 4

    await eventually(lambda: default_of(live) == "v2")
    assert (live.is_stale, live.faults) == (False, {})


async def _until_told(store: RedisStore, revision: int) -> None:
    async with asyncio.timeout(20):
        while [one.revisions.get("fraud") for one in await store.fleet()] != [revision]:  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_a_commit_right_after_a_flush_is_newer_than_what_sidecars_have(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    async with at_revision_3(redis_store) as live:
        await valkey.client.flushall()
        await _until_told(redis_store, 3)  # at once, and not with the next beat

        await _expect_next_to_serve(redis_store, live)


async def test_a_commit_before_sidecars_have_told_is_refused_and_the_next_one_serves(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    async with at_revision_3(redis_store) as live:
        async with valkey.client.pipeline(transaction=True) as at_once:
            at_once.flushall()
            at_once.set(KEYS[0], raw := document(default="v2", revision=1))
            at_once.xadd(KEYS[1], {"digest": codec.digest(raw), "document": raw}, id="1-0")
            await at_once.execute()
        await eventually(lambda: live.behind == {"fraud": 3})
        await _until_told(redis_store, 3)

        await _expect_next_to_serve(redis_store, live)


async def test_when_the_newer_data_return_they_serve(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await commit(redis_store)
    older = await copy(valkey)
    await commit(redis_store, default="v2")
    newer = await copy(valkey)
    async with watching(redis_store) as live:
        await restore(valkey, older)
        await eventually(lambda: "fraud" in live.behind)

        await restore(valkey, newer)

        await eventually(lambda: not live.faults)
        assert (default_of(live), revision_of(live), live.behind) == ("v2", 2, {})


async def test_an_old_document_that_is_put_back_by_hand_becomes_the_next_revision(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await commit(redis_store)
    first = await redis_store.get_document("fraud") or b""
    await commit(redis_store, default="v2")
    async with watching(redis_store) as live:
        await valkey.client.set("rmv:policy:fraud", first)

        await eventually(lambda: default_of(live) == "v1")

        assert revision_of(live) == 3
        await eventually(lambda: not live.faults)
    assert [one.actor for one in await redis_store.history("fraud")] == ["direct", "ann", "ann"]


async def test_an_edit_of_what_a_store_went_back_to_is_adopted_as_newer(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    backup = await copy_of_first(valkey, redis_store, "v2", "v1", "v2")
    async with watching(redis_store) as live:
        await restore(valkey, backup)
        await eventually(lambda: "fraud" in live.behind)

        await valkey.client.set("rmv:policy:fraud", document(default="v1", revision=1))

        await eventually(lambda: revision_of(live) == 5)
        assert default_of(live) == "v1"


async def test_a_flushed_store_keeps_policies_pins_and_kills_marked_stale(
    valkey: Valkey, redis_store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    await commit(redis_store)
    await redis_store.set_pin("fraud", "acme", "v2")
    await redis_store.set_kill("fraud", "v1", "leaks")
    async with watching(redis_store) as live:
        with caplog.at_level(logging.ERROR, "sidecar.store"):
            await valkey.client.flushall()
            await eventually(lambda: live.is_stale)

        assert live.lost == {"fraud"}
        assert default_of(live) == "v1"
        assert pin_of(live, "acme") == "v2"
        assert live.snapshots["fraud"].kills == {"v1": "leaks"}
        (told,) = [one for one in caplog.records if "store lost policies" in one.message]
        assert vars(told)["models"] == "fraud"


async def test_a_lost_model_that_is_written_again_has_the_pins_and_kills_of_the_store(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await commit(redis_store)
    await commit(redis_store, "tumor")
    for model in ("fraud", "tumor"):
        await redis_store.set_pin(model, "acme", "v2")
        await redis_store.set_kill(model, "v1", "leaks")
    async with watching(redis_store) as live:
        await valkey.client.flushall()
        await eventually(lambda: live.lost == {"fraud", "tumor"})
        await redis_store.set_pin("fraud", "globex", "v2")
        await redis_store.set_kill("fraud", "v2", "slow")

        await commit(redis_store, default="v2")

        # The next reload is a minute away.
        await eventually(lambda: pin_of(live, "acme") is None)
        assert default_of(live) == "v2"
        assert pin_of(live, "globex") == "v2"
        assert live.snapshots["fraud"].kills == {"v2": "slow"}
        assert pin_of(live, "acme", "tumor") == "v2", "nobody wrote that model again"
        assert live.snapshots["tumor"].kills == {"v1": "leaks"}


async def test_each_model_heals_as_it_is_written_again(valkey: Valkey) -> None:
    store = RedisStore(valkey.url, timing=QUICK_RELOAD)
    await commit(store)
    await commit(store, "tumor")
    async with watching(store) as live:
        await valkey.client.flushall()
        await eventually(lambda: live.lost == {"fraud", "tumor"})

        await valkey.client.set("rmv:policy:fraud", document(default="v2"))

        await eventually(lambda: default_of(live) == "v2")
        assert live.lost == {"tumor"}
        assert live.is_stale
        await asyncio.sleep(0.2)  # several reloads
        assert default_of(live, "tumor") == "v1"

        await commit(store, "tumor", default="v2")

        await eventually(lambda: not live.is_stale)
        assert live.lost == frozenset()
        assert default_of(live, "tumor") == "v2"
    await store.close()


async def test_a_server_that_comes_back_without_its_data_has_lost_them(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await commit(redis_store)
    async with watching(redis_store) as live:
        await valkey.kill()
        shutil.rmtree(Path(valkey.state_dir) / "appendonlydir")
        await valkey.start()

        await eventually(lambda: live.lost == {"fraud"})
        assert live.is_stale
        assert default_of(live) == "v1"

        assert await commit(redis_store, default="v2") == 1  # nobody beats: nobody tells of it

        await eventually(lambda: default_of(live) == "v2")
        assert not live.is_stale


async def test_deleting_the_only_policy_deletes_it(valkey: Valkey) -> None:
    store = RedisStore(valkey.url, timing=QUICK_RELOAD)
    await commit(store)
    async with watching(store) as live:
        await valkey.client.delete("rmv:policy:fraud")

        await eventually(lambda: not live.snapshots)
        await asyncio.sleep(0.2)  # several reloads
        assert (live.is_stale, live.lost) == (False, frozenset())
    await store.close()


async def test_a_model_that_is_deleted_while_nobody_looks_is_deleted(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await commit(redis_store)
    live = LivePolicies()
    async with watching(redis_store, live):
        pass

    live.is_stale = True
    await valkey.client.delete("rmv:policy:fraud")
    async with watching(redis_store, live):
        assert live.snapshots == {}
        assert live.lost == frozenset()
