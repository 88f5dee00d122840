"""Keys are as new as they can be had, and no older than they may be, whatever the source does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.identity.fetch import FetchError
from sidecar.identity.keeper import RETRY_S, UNKNOWN_KEY_S, Keeper
from sidecar.identity.keys import KeySet, KeySetError, load_jwks
from sidecar.model.issuer import IdentitySettings
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.tasks import spawn, stop
from sidecar.telemetry.metrics import Metrics
from tests.identity.minting import AUDIENCE, ISSUER, jwks
from tests.support.clock import HandClock
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from collections import Counter

    from tests.identity.minting import Signer

PUBLIC = ("RS256", "ES256", "EdDSA")
REFRESH_S, MAX_AGE_S = 300.0, 86_400.0


class Shelf:
    """A source that a test fills: keys, or what is wrong with it."""

    def __init__(self, keys: KeySet | None = None, *, is_local: bool = False) -> None:
        self.is_local = is_local
        self.keys = keys
        self.fault: KeySetError | None = None
        self.reads = 0
        self.opened = asyncio.Event()  # reads wait for it
        self.opened.set()

    async def read(self) -> KeySet | None:
        self.reads += 1
        await self.opened.wait()
        if self.fault is not None:
            raise self.fault
        return self.keys


class Kept:
    """A keeper, and what it is made of."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.clock = HandClock()
        self.metrics = Metrics()
        self.news = 0
        settings = IdentitySettings(
            ISSUER,
            AUDIENCE,
            discovery=True,
            keys_refresh_s=REFRESH_S,
            keys_max_age_s=MAX_AGE_S,
        )
        self.keeper = Keeper(
            settings,
            shelf,
            clock=self.clock,
            draw=lambda: 0.5,
            metrics=self.metrics,
            on_news=self._hear,
        )

    def _hear(self) -> None:
        self.news += 1

    async def after(self, seconds: float) -> int:
        """Let time pass; return how often the source was read in it, at the end."""
        before = self.shelf.reads
        self.clock.advance(seconds)
        await self.keeper.step()
        return self.shelf.reads - before

    @property
    def kids(self) -> list[str]:
        """Return the ids of the keys that workers are told of."""
        told = self.keeper.holding().jwks
        return [key.kid for key in load_jwks(told.encode(), PUBLIC).keys] if told else []

    def counted(self, outcome: str) -> int:
        key = ("rmv_key_reads_total", "issuer", ISSUER, "outcome", outcome)
        return self.metrics.events[key]


def keys_of(*signers: Signer) -> KeySet:
    return load_jwks(jwks(*(signer.jwk for signer in signers)), PUBLIC)


@pytest.fixture
async def kept(rs256: Signer) -> Kept:
    """A keeper that has just read one good key."""
    kept = Kept(Shelf(keys_of(rs256)))
    await kept.keeper.step()
    return kept


async def test_keys_are_read_anew_after_each_while(kept: Kept, es256: Signer) -> None:
    assert (kept.shelf.reads, kept.kids, kept.news) == (1, ["rsa-1"], 1)
    assert await kept.after(REFRESH_S - 1) == 0

    kept.shelf.keys = keys_of(es256)
    assert await kept.after(0.05 * REFRESH_S + 1) == 1  # half of the tenth that chance adds
    assert (kept.kids, kept.news) == (["ec-1"], 2)

    assert await kept.after(1.1 * REFRESH_S) == 1
    assert kept.news == 2  # the same keys are no news
    assert (kept.counted("changed"), kept.counted("unchanged")) == (2, 1)


async def test_keys_are_read_at_once_when_the_operator_says_so(kept: Kept, es256: Signer) -> None:
    kept.shelf.keys = keys_of(es256)
    kept.keeper.refresh()

    assert await kept.after(0.0) == 1
    assert kept.kids == ["ec-1"]
    assert await kept.after(REFRESH_S - 1) == 0


async def test_what_is_asked_for_during_a_read_is_not_lost_when_that_read_fails(
    kept: Kept, es256: Signer
) -> None:
    kept.shelf.opened.clear()
    kept.shelf.fault = KeySetError("it hangs")
    kept.keeper.refresh()
    reading = asyncio.ensure_future(kept.keeper.step())
    await asyncio.sleep(0)
    kept.keeper.refresh()
    kept.shelf.opened.set()
    await reading

    kept.shelf.fault, kept.shelf.keys = None, keys_of(es256)
    assert await kept.after(0.0) == 1
    assert kept.kids == ["ec-1"]


async def test_any_number_of_unknown_keys_makes_one_read_in_thirty_seconds(kept: Kept) -> None:
    reads = 0
    for _ in range(10_000):
        kept.keeper.ask()
        reads += await kept.after(29.0 / 10_000)
    assert reads == 1

    kept.keeper.ask()
    assert await kept.after(0.5) == 0
    assert await kept.after(0.6) == 0  # nobody asked since
    kept.keeper.ask()
    assert await kept.after(0.0) == 1


async def test_who_waits_for_a_key_is_told_when_it_was_looked_for(
    kept: Kept, rs256: Signer, es256: Signer
) -> None:
    before = kept.keeper.holding()
    kept.shelf.keys = keys_of(rs256, es256)

    kept.keeper.ask()
    assert kept.keeper.holding().settled == before.settled
    await kept.after(0.0)

    after = kept.keeper.holding()
    assert after.settled == before.settled + 1
    assert after.rests_s == UNKNOWN_KEY_S
    assert kept.kids == ["ec-1", "rsa-1"]
    kept.keeper.ask()  # by a worker that has not heard of it: told again at once
    assert kept.keeper.holding().settled == before.settled + 2
    assert await kept.after(0.0) == 0


async def test_nobody_is_told_before_the_look_that_was_asked_for(kept: Kept) -> None:
    """A second worker asks between the first one's word and the read that it leads to."""
    before = kept.keeper.holding().settled
    kept.keeper.ask()
    kept.keeper.ask()
    assert kept.keeper.holding().settled == before

    await kept.after(0.0)

    assert kept.keeper.holding().settled == before + 1


async def test_there_is_one_read_at_a_time_and_it_answers_all_who_ask(kept: Kept) -> None:
    kept.shelf.opened.clear()
    kept.keeper.ask()
    reading = asyncio.ensure_future(kept.keeper.step())
    await asyncio.sleep(0)
    before = kept.keeper.holding().settled
    for _ in range(100):
        kept.keeper.ask()

    kept.shelf.opened.set()
    await reading

    assert kept.shelf.reads == 2
    assert kept.keeper.holding().settled == before + 1
    assert await kept.after(0.0) == 0


async def test_a_read_that_was_under_way_may_have_missed_a_key_and_is_followed_by_another(
    kept: Kept,
) -> None:
    kept.shelf.opened.clear()
    kept.clock.advance(1.1 * REFRESH_S)
    reading = asyncio.ensure_future(kept.keeper.step())
    await asyncio.sleep(0)
    before = kept.keeper.holding().settled
    kept.keeper.ask()
    kept.shelf.opened.set()
    await reading
    assert (kept.shelf.reads, kept.keeper.holding().settled) == (2, before)

    assert await kept.after(0.0) == 1
    assert kept.keeper.holding().settled == before + 1


async def test_the_last_good_keys_are_kept_as_long_as_they_may_be(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.shelf.fault = FetchError("connect", "refused")
    asked = 0
    while kept.clock.monotonic_s() < 1_000.0 + MAX_AGE_S - RETRY_S:
        asked += await kept.after(RETRY_S)
        assert kept.kids == ["rsa-1"]
    assert asked > MAX_AGE_S / RETRY_S / 3  # of which each failed
    assert [record.message for record in caplog.records if record.levelname != "INFO"] == [
        "keys not renewed: the last good ones are believed"
    ]
    assert kept.news == 1

    await kept.after(2 * RETRY_S)

    holding = kept.keeper.holding()
    assert (holding.jwks, holding.is_closed, kept.news) == ("", True, 2)
    assert "keys are too old: tokens of their issuer get 503" in caplog.text
    assert kept.counted("failed-connect") == asked + 1

    kept.shelf.fault = None
    await kept.after(1.1 * RETRY_S)
    assert (kept.kids, kept.keeper.holding().is_closed) == (["rsa-1"], False)


async def test_keys_grow_too_old_whatever_goes_wrong(
    kept: Kept, counted_faults: Counter[str]
) -> None:
    class UnforeseenError(Exception):
        pass

    async def read() -> KeySet | None:
        raise UnforeseenError

    kept.shelf.read = read  # type: ignore[method-assign]
    await kept.after(1.1 * REFRESH_S)
    assert kept.kids == ["rsa-1"]
    assert counted_faults == {"keys": 1}

    await kept.after(MAX_AGE_S)
    assert kept.kids == []


async def test_workers_are_told_of_keys_and_these_are_kept_on_although_telling_audit_fails(
    kept: Kept, counted_faults: Counter[str], es256: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_names: tuple[str, ...], _digest: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sidecar.runtime.tasks.REST_S", 0.01)
    kept.keeper.on_believed = failing
    running = spawn(kept.keeper.run(), name="keys")
    kept.shelf.keys = keys_of(es256)
    kept.keeper.refresh()
    await eventually(lambda: kept.news >= 2)
    assert kept.kids == [es256.kid]
    kept.keeper.on_believed = None
    reads = kept.shelf.reads
    kept.keeper.refresh()
    await eventually(lambda: kept.shelf.reads > reads)
    await stop(running)

    assert counted_faults == {"keys": 1}


async def test_a_set_that_is_refused_replaces_nothing(kept: Kept) -> None:
    kept.shelf.fault = KeySetError("key 'weak': RSA of 1024 bits is weak")

    await kept.after(1.1 * REFRESH_S)

    assert kept.kids == ["rsa-1"]
    assert kept.counted("refused") == 1


async def test_a_source_that_fails_is_asked_more_and_more_seldom(rs256: Signer) -> None:
    kept = Kept(Shelf())
    kept.shelf.fault = FetchError("timeout", "late")
    await kept.keeper.step()
    waits = []
    for _ in range(8):
        waited = 0
        while not await kept.after(1.0):
            waited += 1
        waits.append(waited + 1)

    assert waits == [2, 3, 5, 9, 17, 32, 32, 32]  # 1, 2, 4 ... 30, half of a tenth by chance
    assert kept.kids == []
    assert not kept.keeper.holding().is_closed  # there never were any

    kept.shelf.fault, kept.shelf.keys = None, keys_of(rs256)
    await kept.after(32.0)
    assert kept.kids == ["rsa-1"]


async def test_unknown_keys_do_not_hurry_a_source_that_fails(kept: Kept) -> None:
    kept.shelf.fault = FetchError("status", "500")
    reads = 0
    for _ in range(600):
        kept.keeper.ask()
        reads += await kept.after(0.1)

    assert reads == 2  # in a minute


async def test_why_a_key_was_left_out_is_told_with_the_keys(
    rs256: Signer, es256: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    raw = jwks(rs256.jwk, es256.jwk | {"use": "enc"})
    kept = Kept(Shelf(load_jwks(raw, PUBLIC, skips_other_uses=True)))

    await kept.keeper.step()

    assert kept.keeper.holding().left_out == {"ec-1": "its use is not 'sig'"}
    assert "key left out" in caplog.text


async def test_keys_on_this_host_are_looked_at_each_second_and_must_be_good_at_first(
    rs256: Signer,
) -> None:
    kept = Kept(Shelf(keys_of(rs256), is_local=True))
    kept.shelf.fault = KeySetError("no usable key")
    with pytest.raises(KeySetError, match="no usable key"):
        await kept.keeper.begin()

    kept.shelf.fault = None
    await kept.keeper.begin()
    kept.shelf.keys = None  # as they were
    assert kept.kids == ["rsa-1"]
    assert await kept.after(0.5) == 0
    assert await kept.after(0.6) == 1
    kept.keeper.ask()
    assert await kept.after(0.0) == 1
    assert kept.keeper.holding().rests_s == 1.0


async def test_a_file_that_stays_broken_is_one_failure(
    rs256: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(Shelf(keys_of(rs256), is_local=True))
    await kept.keeper.begin()
    kept.shelf.fault = KeySetError("not a JWK Set")
    for _ in range(10):
        await kept.after(1.1)

    assert kept.counted("refused") == 1
    assert caplog.text.count("keys not renewed") == 1
    kept.shelf.fault, kept.shelf.keys = None, None
    await kept.after(1.1)
    assert "keys are renewed again" in caplog.text or kept.kids == ["rsa-1"]


async def test_a_running_keeper_reads_when_it_is_asked_and_not_before(rs256: Signer) -> None:
    kept = Kept(Shelf(keys_of(rs256)))
    running = asyncio.ensure_future(kept.keeper.run())
    try:
        while kept.shelf.reads < 1:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert kept.shelf.reads == 1
        kept.keeper.ask()
        while kept.shelf.reads < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
    finally:
        running.cancel()


async def test_a_running_keeper_gives_keys_up_when_they_are_too_old_and_not_at_its_next_read(
    rs256: Signer,
) -> None:
    shelf = Shelf(keys_of(rs256))
    settings = IdentitySettings(
        ISSUER, AUDIENCE, discovery=True, keys_refresh_s=REFRESH_S, keys_max_age_s=0.05
    )
    keeper = Keeper(
        settings,
        shelf,
        clock=SystemClock(),
        draw=lambda: 0.5,
        metrics=Metrics(),
        on_news=lambda: None,
    )
    running = asyncio.ensure_future(keeper.run())
    try:
        await eventually(lambda: keeper.holding().is_closed)
    finally:
        running.cancel()

    assert (keeper.holding().jwks, shelf.reads) == ("", 1)


async def test_audit_is_told_which_keys_are_believed_and_that_none_are(
    kept: Kept, rs256: Signer, foreign: Signer, hs256: Signer
) -> None:
    told: list[tuple[tuple[str, ...], str]] = []
    kept.keeper.on_believed = lambda names, digest: told.append((names, digest))
    kept.shelf.keys = keys_of(foreign)  # another key of the same name
    await kept.after(1.1 * REFRESH_S)
    kept.shelf.keys = keys_of(rs256)
    await kept.after(1.1 * REFRESH_S)
    kept.shelf.keys = load_jwks(jwks(rs256.jwk, hs256.jwk), (*PUBLIC, "HS256"))
    await kept.after(1.1 * REFRESH_S)
    kept.shelf.fault = FetchError("connect", "refused")
    await kept.after(MAX_AGE_S)

    assert [names for names, _ in told] == [("rsa-1",), ("rsa-1",), ("hmac-1", "rsa-1"), ()]
    digests = [digest for _, digest in told]
    assert digests[0] != digests[1] == digests[2]  # of a secret nothing is told
    assert digests[3] == ""


async def test_keys_that_are_left_out_do_not_change_those_that_are_believed(
    kept: Kept, rs256: Signer, es256: Signer
) -> None:
    told: list[tuple[str, ...]] = []
    kept.keeper.on_believed = lambda names, _: told.append(names)
    news = kept.news
    raw = jwks(rs256.jwk, es256.jwk | {"use": "enc"})
    kept.shelf.keys = load_jwks(raw, PUBLIC, skips_other_uses=True)
    await kept.after(1.1 * REFRESH_S)

    assert told == []
    assert kept.news == news + 1  # workers say why a token of that key is refused
    assert kept.keeper.holding().left_out == {"ec-1": "its use is not 'sig'"}


async def test_how_old_keys_are_is_measured(kept: Kept) -> None:
    kept.clock.advance(120.0)

    kept.keeper.measure()

    assert kept.metrics.levels["rmv_keys", "issuer", ISSUER] == 1
    assert kept.metrics.levels["rmv_key_age_seconds", "issuer", ISSUER] == 120.0


Event = tuple[str, float]
EVENTS = st.one_of(
    st.tuples(st.just("ask"), st.just(0.0)),
    st.tuples(st.sampled_from(["old", "new", "fail"]), st.just(0.0)),
    st.tuples(st.just("pass"), st.floats(0.0, 60.0)),
    st.tuples(st.just("pass"), st.floats(0.0, 1.5 * MAX_AGE_S)),
)


@given(events=st.lists(EVENTS, max_size=60))
def test_whatever_happens_keys_are_the_last_good_ones_and_reads_are_rare(
    rs256: Signer, es256: Signer, events: list[Event]
) -> None:
    sets = {"old": keys_of(rs256), "new": keys_of(es256)}

    async def live() -> None:
        kept = Kept(Shelf(sets["old"]))
        reads: list[float] = []
        good, good_s = "", 0.0
        for name, seconds in [("pass", 0.0), *events]:
            if name == "ask":
                kept.keeper.ask()
            elif name == "fail":
                kept.shelf.fault = FetchError("status", "500")
            elif name != "pass":
                kept.shelf.fault, kept.shelf.keys = None, sets[name]
            settled, before = kept.keeper.holding().settled, len(reads)
            reads += [kept.clock.monotonic_s() + seconds] * await kept.after(seconds)
            now_s = kept.clock.monotonic_s()
            if len(reads) > before and kept.shelf.fault is None:
                good, good_s = kept.keeper.holding().jwks, now_s
                assert good in {keys.spelled() for keys in sets.values()}

            holding = kept.keeper.holding()
            is_old = bool(good) and now_s - good_s >= MAX_AGE_S
            assert holding.jwks == ("" if is_old else good)
            assert holding.is_closed is is_old
            assert holding.settled >= settled
            # One for an unknown key, and one that was due; without keys it is tried more often.
            lately = [at_s for at_s in reads if now_s - UNKNOWN_KEY_S < at_s]
            assert len(lately) <= 2 or not good or is_old

    asyncio.run(live())
