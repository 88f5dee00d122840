"""A token that is taken back stays so for as long as the store says, and no longer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from sidecar.model.identity import Identity
from sidecar.store import revocations as module
from sidecar.store.base import Cutoff, RevokedToken
from sidecar.store.keys import BadNameError, CutoffKey, RevokedKey
from sidecar.store.live import Contents, LivePolicies
from sidecar.store.redis import RedisStore
from sidecar.store.revocations import (
    NO_MOMENT,
    TOO_MANY,
    TOO_MANY_CUTOFFS,
    Changes,
    Revocations,
)
from sidecar.store.watch import WatchTiming
from tests.store.documents import document, eventually, watching

if TYPE_CHECKING:
    from sidecar.store.base import Store
    from tests.support.valkey import Valkey

NOW_S = 1_800_000_000.0
QUICK_RELOAD = WatchTiming(reload_every_s=0.05)


def token(jti: str = "", tenant: str = "acme", issued_s: float = NOW_S) -> Identity:
    return Identity(tenant, jti=jti, issued_s=issued_s)


def heeded() -> Revocations:
    """Return revocations whose changes somebody takes."""
    revocations = Revocations()
    revocations.on_change = lambda: None
    return revocations


# --- what is held -----------------------------------------------------------------------------


def test_only_the_token_of_that_jti_is_taken_back() -> None:
    revocations = Revocations()

    assert revocations.put(RevokedKey("t-1"), "stolen") == ""

    assert revocations.is_revoked(token("t-1"))
    assert not revocations.is_revoked(token("t-2"))
    assert not revocations.is_revoked(token())


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_the_value_of_a_revoked_token_does_not_matter(value: str) -> None:
    revocations = Revocations()

    revocations.put(RevokedKey("t-1"), value)

    assert revocations.is_revoked(token("t-1"))


def test_a_cutoff_takes_a_tenants_older_tokens_back_and_no_others() -> None:
    revocations = Revocations()

    revocations.put(CutoffKey("acme"), f"{NOW_S:.0f}")

    assert revocations.is_revoked(token(issued_s=NOW_S - 0.001))
    assert not revocations.is_revoked(token(issued_s=NOW_S))
    assert not revocations.is_revoked(token(tenant="globex", issued_s=0.0))


def test_a_token_that_does_not_say_when_it_was_made_is_older_than_any_cutoff() -> None:
    revocations = Revocations()

    revocations.put(CutoffKey("acme"), "1")

    assert revocations.is_revoked(Identity("acme"))


@pytest.mark.parametrize(
    "value",
    ["", "now", "-1", "1e9", "inf", "nan", "2026-01-01T00:00:00Z", "1_000", "١٢٣", "1.", " 1"],
)
def test_a_moment_that_cannot_be_read_changes_nothing(value: str) -> None:
    revocations = Revocations()
    revocations.put(CutoffKey("acme"), "1000")

    assert revocations.put(CutoffKey("acme"), value) == NO_MOMENT

    assert revocations.is_revoked(token(issued_s=999))
    assert not revocations.is_revoked(token(issued_s=1000))


def test_what_changed_is_told_once() -> None:
    revocations = Revocations()
    calls: list[int] = []
    revocations.on_change = lambda: calls.append(len(revocations))

    revocations.put(RevokedKey("t-1"), "")
    revocations.put(RevokedKey("t-1"), "another reason")
    revocations.put(CutoffKey("acme"), "1000")
    revocations.put(CutoffKey("acme"), "1000.0")
    revocations.put(RevokedKey("t-2"), None)

    assert calls == [1, 2]
    assert revocations.take() == Changes(frozenset({"t-1"}), frozenset({"acme"}), is_lifted=False)
    assert revocations.take() == Changes(frozenset(), frozenset(), is_lifted=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [(RevokedKey("t-1"), None), (CutoffKey("acme"), None), (CutoffKey("acme"), "999")],
)
def test_a_token_that_is_believed_again_is_told_apart(
    key: RevokedKey | CutoffKey, value: str | None
) -> None:
    revocations = heeded()
    revocations.put(RevokedKey("t-1"), "")
    revocations.put(CutoffKey("acme"), "1000")
    revocations.take()

    revocations.put(key, value)

    assert revocations.take().is_lifted
    assert not revocations.is_revoked(token("t-1" if value else "", issued_s=1000)) or value


def test_that_one_is_believed_again_is_told_whatever_else_is_taken_back_after_it() -> None:
    revocations = heeded()
    revocations.put(RevokedKey("t-1"), "")
    revocations.take()

    revocations.put(RevokedKey("t-1"), None)
    revocations.put(RevokedKey("t-2"), "")

    assert revocations.take() == Changes(frozenset({"t-1", "t-2"}), frozenset(), is_lifted=True)
    assert not revocations.take().is_lifted


def test_what_changed_does_not_pile_up_where_nobody_takes_it() -> None:
    revocations = Revocations()

    revocations.put(RevokedKey("t-1"), "")
    revocations.put(CutoffKey("acme"), "1000")
    revocations.put(RevokedKey("t-1"), None)

    assert revocations.take() == Changes(frozenset(), frozenset(), is_lifted=False)


def test_a_later_cutoff_lifts_nothing() -> None:
    revocations = heeded()
    revocations.put(CutoffKey("acme"), "1000")
    revocations.take()

    revocations.put(CutoffKey("acme"), "2000")

    assert revocations.take() == Changes(frozenset(), frozenset({"acme"}), is_lifted=False)


def test_over_the_limit_what_is_held_stays_and_the_rest_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_REVOCATIONS", 2)
    revocations = Revocations()

    said = [revocations.put(RevokedKey(f"t-{n}"), "") for n in range(3)]

    assert said == ["", "", TOO_MANY]
    assert len(revocations) == 2
    assert revocations.is_revoked(token("t-0"))
    revocations.put(RevokedKey("t-0"), None)
    assert revocations.put(RevokedKey("t-2"), "") == ""


def test_so_many_tenants_are_cut_off_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CUTOFFS", 2)
    revocations = Revocations()

    said = [revocations.put(CutoffKey(f"tenant-{n}"), "1000") for n in range(3)]

    assert said == ["", "", TOO_MANY_CUTOFFS]
    assert len(revocations) == 2
    assert revocations.put(CutoffKey("tenant-0"), "2000") == ""
    assert revocations.put(CutoffKey("tenant-0"), None) == ""
    assert revocations.put(CutoffKey("tenant-2"), "1000") == ""


# --- from a store -----------------------------------------------------------------------------


def test_a_reload_takes_back_and_believes_again() -> None:
    live = LivePolicies()
    live.replace(Contents(revocations={RevokedKey("t-1"): "", CutoffKey("acme"): "1000"}))
    assert live.revocations.is_revoked(token("t-1"))
    assert live.revocations.is_revoked(token(issued_s=999))

    live.replace(Contents(revocations={RevokedKey("t-2"): ""}))

    assert not live.revocations.is_revoked(token("t-1"))
    assert not live.revocations.is_revoked(token(issued_s=999))
    assert live.revocations.is_revoked(token("t-2"))


async def test_every_way_back_and_forth_is_watched(valkey: Valkey) -> None:
    store = RedisStore(valkey.url)
    async with watching(store) as live:
        revoked = live.revocations.is_revoked

        await valkey.client.set("rmv:revoked:a:b c", "stolen")
        await eventually(lambda: revoked(token("a:b c")))
        await valkey.client.set("rmv:revoked-before:acme", f"{NOW_S:.0f}\n")
        await eventually(lambda: revoked(token(issued_s=NOW_S - 1)))
        await valkey.client.delete("rmv:revoked-before:acme")
        await eventually(lambda: not revoked(token(issued_s=NOW_S - 1)))
        await valkey.client.pexpire("rmv:revoked:a:b c", 1)
        await eventually(lambda: not revoked(token("a:b c")))
    await store.close()


async def test_what_nobody_reported_is_found_out_by_a_reload(valkey: Valkey) -> None:
    store, live = RedisStore(valkey.url, timing=QUICK_RELOAD), LivePolicies()
    async with watching(store, live):
        for key, value in ((RevokedKey("t-1"), ""), (CutoffKey("acme"), str(NOW_S))):
            live.put_revocation(key, value)  # as if its key had gone without a word
        await valkey.client.set("rmv:revoked:t-2", "")
        await valkey.client.set("rmv:revoked-before:globex", "2000")

        await eventually(lambda: not live.revocations.is_revoked(token("t-1")))
        await eventually(lambda: live.revocations.is_revoked(token("t-2")))
        await eventually(lambda: len(live.revocations) == 2)
        held = [key for keys in live.held(1) for key in keys]
        assert sorted(map(str, held)) == [
            "CutoffKey(tenant='globex')",
            "RevokedKey(jti='t-2')",
        ]
    await store.close()


async def test_what_was_taken_back_before_the_start_is_known_once_loaded(valkey: Valkey) -> None:
    await valkey.client.set("rmv:revoked:t-1", "")
    store = RedisStore(valkey.url)

    async with watching(store) as live:
        assert live.revocations.is_revoked(token("t-1"))
    await store.close()


async def test_a_store_that_lost_its_data_makes_no_token_good_again(valkey: Valkey) -> None:
    await valkey.client.set("rmv:policy:fraud", document())
    await valkey.client.set("rmv:revoked:t-1", "")
    store = RedisStore(valkey.url, timing=QUICK_RELOAD)
    async with watching(store) as live:
        await eventually(lambda: live.snapshots["fraud"].revision == 1)

        await valkey.client.flushall()
        await eventually(lambda: live.lost == {"fraud"})
        assert live.revocations.is_revoked(token("t-1"))

        await valkey.client.set("rmv:policy:fraud", document())
        await eventually(lambda: not live.revocations.is_revoked(token("t-1")))
        assert not live.lost
    await store.close()


async def test_what_cannot_be_followed_is_told(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sidecar.store")
    await valkey.client.set("rmv:revoked-before:acme", "yesterday")
    await valkey.client.hset("rmv:revoked:t-1", "no", "string")
    await valkey.client.set("rmv:revoked-before:", "1000")
    store = RedisStore(valkey.url)

    async with watching(store):
        pass

    told = {vars(one)["key"]: vars(one)["reason"] for one in caplog.records}
    assert told == {
        "rmv:revoked-before:acme": NO_MOMENT,
        "rmv:revoked:t-1": "not a string",
        "rmv:revoked-before:": "no such spelling",
    }
    await store.close()


# --- what commands do -------------------------------------------------------------------------


async def test_what_is_taken_back_is_listed_and_believed_again(store: Store) -> None:
    await store.set_revoked("t-1", "stolen")
    await store.set_revoked("t-2", "", ttl_s=100)
    await store.set_cutoff("globex", 1000.5)
    await store.set_cutoff("acme", 1000, ttl_s=100)

    tokens = sorted([one async for one in store.revoked()], key=lambda one: one.jti)
    tenants = await store.cutoffs()

    assert tokens[0] == RevokedToken("t-1", "stolen")
    assert (tokens[1].jti, 90 < (tokens[1].ttl_s or 0) <= 100) == ("t-2", True)
    assert [one.tenant for one in tenants] == ["acme", "globex"]
    assert tenants[1] == Cutoff("globex", 1000.5)
    assert 90 < (tenants[0].ttl_s or 0) <= 100
    assert await store.named_models() == []
    assert await store.delete_revoked("t-1")
    assert not await store.delete_revoked("t-1")
    assert await store.delete_cutoff("acme")
    assert not await store.delete_cutoff("acme")


@pytest.mark.parametrize("jti", ["", "x" * 513])
async def test_a_jti_that_no_token_can_have_is_not_taken_back(store: Store, jti: str) -> None:
    with pytest.raises(BadNameError):
        await store.set_revoked(jti, "")


@pytest.mark.parametrize("tenant", ["", " acme", "a\nb", "x" * 129])
async def test_a_tenant_that_no_token_can_have_is_not_cut_off(store: Store, tenant: str) -> None:
    with pytest.raises(BadNameError):
        await store.set_cutoff(tenant, 1000)


async def test_a_cutoff_that_nobody_can_read_is_listed_as_such(valkey: Valkey) -> None:
    await valkey.client.set("rmv:revoked-before:acme", "yesterday")
    store = RedisStore(valkey.url)

    assert await store.cutoffs() == [Cutoff("acme", None, None, NO_MOMENT)]
    await store.close()
