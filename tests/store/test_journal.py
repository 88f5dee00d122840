"""Revisions are never used twice, and no commit drops out of the history unseen."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from sidecar.errors import HistoryError, WrongTypeError
from sidecar.store.redis import RedisStore
from sidecar.store.watch import WatchTiming
from tests.store.documents import default_of, document, eventually, policy, watching

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sidecar.model.context import Context
    from tests.support.valkey import Valkey

KEY = "rmv:history:fraud"
ENDLESS = f"{2**64 - 1}-0"


async def commit(store: RedisStore, default: str = "v1") -> int:
    expected = await store.get_document("fraud")
    committed = await store.commit(
        policy(default=default), expected=expected, actor="ann", comment=""
    )
    return committed.revision


async def samples(store: RedisStore) -> list[Context]:
    return [one async for one in store.contexts("fraud") if one is not None]


async def revisions(store: RedisStore) -> list[int]:
    return [entry.revision for entry in await store.history("fraud")]


@pytest.mark.parametrize("how", ["xdel", "xtrim"])
async def test_a_revision_whose_entry_was_removed_is_not_used_again(
    valkey: Valkey, redis_store: RedisStore, how: str
) -> None:
    for default in ("v1", "v2", "v1"):
        await commit(redis_store, default)
    await valkey.client.xdel(KEY, "3-0")
    if how == "xtrim":
        await valkey.client.xtrim(KEY, maxlen=0)

    assert [await commit(redis_store, "v2"), await commit(redis_store)] == [4, 5]
    assert (await revisions(redis_store))[:2] == [5, 4]


async def test_a_sidecar_records_a_document_whose_entry_was_removed_as_the_next_revision(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await commit(redis_store)
    await commit(redis_store, "v2")
    await valkey.client.xdel(KEY, "2-0")
    async with watching(redis_store) as live:
        await eventually(lambda: live.snapshots["fraud"].revision == 3)

        assert default_of(live) == "v2"
    assert await revisions(redis_store) == [3, 1]


async def test_a_commit_is_above_whatever_stands_in_the_history(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await commit(redis_store)
    await valkey.client.xadd(KEY, {"x": "y"}, id="70-3")

    assert await commit(redis_store, "v2") == 71


@pytest.mark.parametrize("at", [ENDLESS, f"{2**53 - 1}-0"])
async def test_a_history_that_no_revision_can_follow_is_told_before_anything_is_committed(
    valkey: Valkey, redis_store: RedisStore, at: str
) -> None:
    await commit(redis_store)
    before = await redis_store.get_document("fraud")
    await valkey.client.xadd(KEY, {"x": "y"}, id=at)

    with pytest.raises(HistoryError, match=f"{KEY}: no revision can follow its last id, {at}"):
        await commit(redis_store, "v2")

    assert await redis_store.get_document("fraud") == before


async def test_a_history_that_no_revision_can_follow_is_mended_as_it_is_told(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await commit(redis_store)
    await valkey.client.xadd(KEY, {"x": "y"}, id=ENDLESS)
    with pytest.raises(HistoryError) as told:
        await commit(redis_store, "v2")
    (words,) = str(told.value).split("`")[1::2]

    await valkey.client.rename(*words.split()[1:])

    assert await commit(redis_store, "v2") == 2
    assert await revisions(redis_store) == [2, 1]


async def test_a_sidecar_serves_an_edit_that_no_revision_is_left_for_and_says_so(
    valkey: Valkey, redis_store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    await valkey.client.xadd(KEY, {"x": "y"}, id=ENDLESS)
    async with watching(redis_store) as live:
        with caplog.at_level(logging.WARNING, "sidecar.store"):
            await valkey.client.set("rmv:policy:fraud", document(default="v2"))
            await eventually(lambda: "policy not adopted" in caplog.text)

        assert default_of(live) == "v2"
    assert "no revision can follow" in caplog.records[-1].__dict__["reason"]


async def test_a_revision_that_is_taken_before_it_is_recorded_is_committed_as_the_next(
    valkey: Valkey, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await commit(redis_store)
    compare_and_set = redis_store._journal.compare_and_set  # noqa: SLF001
    gap = ["5-0"]

    async def slowly(model: str, expected: bytes | None, raw: bytes) -> bool:
        done = await compare_and_set(model, expected, raw)
        if gap:
            await valkey.client.xadd(KEY, {"x": "y"}, id=gap.pop())
        return done

    monkeypatch.setattr(redis_store._journal, "compare_and_set", slowly)  # noqa: SLF001

    assert await commit(redis_store, "v2") == 6
    assert await revisions(redis_store) == [6, 5, 1]
    assert json.loads(await redis_store.get_document("fraud") or b"")["revision"] == 6


async def test_after_the_highest_revision_that_is_believed_commits_go_on(
    valkey: Valkey,
) -> None:
    store = RedisStore(valkey.url, timing=WatchTiming(reload_every_s=0.02))
    async with watching(store) as live:
        await valkey.client.set("rmv:policy:fraud", document(revision=2**52))
        await eventually(lambda: "fraud" in live.snapshots)

        assert await commit(store, "v2") == 2**52 + 1

        await eventually(lambda: default_of(live) == "v2")
        assert live.faults == {}
    await store.close()


@pytest.mark.parametrize(
    ("key", "ask"),
    [
        (KEY, commit),
        (KEY, revisions),
        ("rmv:contexts:fraud", samples),
        ("rmv:fleet", RedisStore.fleet),
    ],
)
async def test_a_key_of_another_type_is_named_with_what_to_do(
    valkey: Valkey,
    redis_store: RedisStore,
    key: str,
    ask: Callable[[RedisStore], Awaitable[object]],
) -> None:
    await valkey.client.set(key, "mine")

    with pytest.raises(WrongTypeError, match=f"{key} holds another type .* `TYPE {key}`"):
        await ask(redis_store)

    assert await redis_store.get_document("fraud") is None
