"""What a worker counts reaches the store once, whatever befalls the store and the worker."""

from __future__ import annotations

import asyncio
import gzip
import logging
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final

import pytest

from sidecar.controller import publishing
from sidecar.controller.evidence import MAX_BODY_BYTES
from sidecar.controller.publishing import Publisher
from sidecar.dataplane.trial import Book
from sidecar.errors import StoreUnavailableError
from sidecar.model.comparison import Comparison, Kept
from sidecar.model.policy import Price, Shadow, Version
from sidecar.policy.snapshot import compile_snapshot
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.live import LivePolicies
from sidecar.store.memory import MemoryStore
from sidecar.store.redis import RedisStore
from tests.controller.pairs import Bench
from tests.policy.examples import make_head, make_policy
from tests.support.upstream import eventually
from tests.support.valkey import valkey

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Sequence

    from sidecar.model.shadow import Evidence, Tally
    from sidecar.store.base import Store
    from tests.support.valkey import Valkey

__all__ = ["valkey"]

TODAY: Final = "2027-01-15"  # of the hand clock
URL: Final = ("http://127.0.0.1:9001",)
PRICED: Final = Version(endpoints=URL, price=Price(per_request=0.5))


class Copies:
    """The books of a mirror, without one."""

    def __init__(self, *books: Book) -> None:
        self.books = {(one.model, one.version, one.test): one for one in books}
        self.capped: set[tuple[str, str]] = set()

    def forget(self, book: Book) -> None:
        """Let go of a book."""
        del self.books[book.model, book.version, book.test]


class Desk(Bench):
    """A comparer with a publisher, as one worker has them."""

    def __init__(self, store: Store, worker: str = "host/a", cap: float | None = None) -> None:
        super().__init__(share=1.0)
        self.live = LivePolicies()
        self.follow(cap)
        self.copies = Copies(self.book)
        self.publisher = Publisher(
            store,
            self.accounts,
            self.copies,
            self.live,
            worker=worker,
            clock=self.clock,
            metrics=self.metrics,
        )

    def follow(self, cap: float | None) -> None:
        """Have the policy bound what the shadow costs in a day."""
        shadow = Shadow(version="v2", cost_per_day=cap)
        versions = {"v1": Version(endpoints=URL), "v2": PRICED}
        policy = make_policy(versions=versions, shadows=(shadow,))
        self.live.snapshots["tumor"] = compile_snapshot(policy, {}, {})

    def begin_anew(self) -> None:
        """Count in a new book from now on."""
        self.book = Book("tumor", "v2", "0123456789ab", self.clock.now_s())
        self.copies.books["tumor", "v2", "0123456789ab"] = self.book

    def send(self, number: int, tenant: str = "acme") -> None:
        """Send copies that nobody compares."""
        self.book.has_price = True
        for _ in range(number):
            self.book.pending += 1
            self.book.mirror(10, tenant, self.clock.now_s())
            self.book.pass_over("off")

    async def compare(self, number: int, comparison: Comparison | None = None) -> None:
        """Compare pairs that differ, of which there may be so many a second."""
        for _ in range(number):
            trial = self.trial(
                {"score": 1, "ssn": "123-45-6789"},
                {"score": 2, "ssn": "987-65-4321"},
                comparison=comparison or Comparison(),
                head=make_head(b"/score?q=1", headers=((b"content-type", b"application/json"),)),
                request_body=b'{"ssn": "123-45-6789", "age": 41}',
            )
            self.comparer.take(trial)
        await eventually(lambda: self.book.under_way == 0)


async def eligible(store: Store) -> int:
    return sum(one.ledger.eligible for one in (await store.tallies()).tallies)


async def everything(valkey: Valkey) -> bytes:
    """Return all that a server holds, as one."""
    held: list[object] = []
    async for key in valkey.client.scan_iter():
        kind = await valkey.client.type(key)
        if kind == b"hash":
            held.append(await valkey.client.hgetall(key))
        elif kind == b"stream":
            held.append(await valkey.client.xrange(key))
        else:
            held.append(await valkey.client.dump(key))
        held.append(key)
    return repr(held).encode()


@pytest.fixture
async def redis_store(valkey: Valkey) -> AsyncIterator[RedisStore]:
    store = RedisStore(valkey.url)
    yield store
    await store.close()


async def test_what_two_workers_count_adds_up() -> None:
    store = MemoryStore()
    one, other = Desk(store, "host/a"), Desk(store, "host/b")
    for desk in (one, other, one):
        desk.send(3)
        await desk.compare(2)
        await desk.publisher.publish()

    told = (await store.tallies("tumor")).tallies
    assert sorted(tally.ledger.eligible for tally in told) == [5, 10]
    assert sum(tally.pairs["v1"].number for tally in told) == 6
    assert sum(tally.ledger.compared for tally in told) == 6
    await one.publisher.close()
    await other.publisher.close()
    [tally] = (await store.tallies("tumor")).tallies
    assert (tally.ledger.eligible, tally.pairs["v1"].number, tally.workers) == (15, 6, 2)
    assert one.copies.books == other.copies.books == {}


async def test_while_nothing_changes_nothing_is_written(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    desk = Desk(redis_store)
    desk.send(3)
    await desk.publisher.publish()
    await valkey.client.flushall()

    await desk.publisher.publish()

    assert await valkey.client.dbsize() == 0


async def test_a_store_that_was_away_learns_of_everything(
    redis_store: RedisStore, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(redis_store)
    keeping = Comparison(keep=Kept(pairs=10))
    desk.send(3)
    await desk.publisher.publish()
    await valkey.stop()
    with caplog.at_level(logging.WARNING, "sidecar"):
        for _ in range(2):
            desk.send(4)
            await desk.compare(1, keeping)
            await desk.publisher.publish()
    await valkey.start()

    await desk.publisher.publish()

    assert await eligible(redis_store) == 13
    assert len([one async for one in redis_store.evidence("tumor", "v2")]) == 2
    said = [one.message for one in caplog.records if one.name == "sidecar.shadow"]
    assert said == ["shadow counts are not stored"]
    assert desk.counted("rmv_shadow_evidence_total", "outcome", "kept") == 2


async def test_a_worker_that_ends_while_the_store_is_away_says_what_is_lost(
    redis_store: RedisStore, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(redis_store)
    await desk.compare(1, Comparison(keep=Kept(pairs=10)))
    await valkey.stop()

    with caplog.at_level(logging.WARNING, "sidecar"):
        await desk.publisher.close()

    assert "shadow counts are lost" in [one.message for one in caplog.records]
    assert desk.counted("rmv_shadow_evidence_total", "outcome", "lost") == 1


class FaultyStore(MemoryStore):
    """A store in which one shadow meets a fault that no adapter knows of."""

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version
        self.faults = 0

    async def put_tally(self, tally: Tally, worker: str, reset: str | None = None) -> str:
        if tally.version == self.version:
            self.faults += 1
            raise ZeroDivisionError
        return await super().put_tally(tally, worker, reset)

    async def spend(self, model: str, version: str, day: str, worker: str, amount: float) -> float:
        if version == self.version:
            self.faults += 1
            raise ZeroDivisionError
        return await super().spend(model, version, day, worker, amount)


async def test_a_fault_of_one_test_costs_no_other_and_is_made_up_for(
    caplog: pytest.LogCaptureFixture, counted_faults: Counter[str]
) -> None:
    store = FaultyStore("v2")
    desk = Desk(store, cap=2.0)
    other = Book("tumor", "v3", "0123456789ab", desk.clock.now_s())
    desk.copies.books["tumor", "v3", "0123456789ab"] = other
    other.pending += 1
    other.spare(10, "acme")
    desk.send(4)
    for _ in range(2):
        await desk.publisher.publish()

    assert [one.version for one in (await store.tallies()).tallies] == ["v3"]
    assert desk.copies.capped == {("tumor", "v2")}  # by what this worker knows itself
    assert counted_faults["publishing"] == store.faults == 4
    fault = next(one for one in caplog.records if one.name == "sidecar.faults")
    assert (fault.message, fault.exc_info is not None) == ("a fault of the sidecar", True)
    store.version = ""
    await desk.publisher.publish()
    assert await eligible(store) == 5


class FaultyCopies(Copies):
    """Copies whose books cannot be had once."""

    faults = 1

    def __getattribute__(self, name: str) -> object:
        if name == "books" and FaultyCopies.faults:
            FaultyCopies.faults -= 1
            raise ZeroDivisionError
        return super().__getattribute__(name)


async def test_no_fault_ends_publishing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, counted_faults: Counter[str]
) -> None:
    monkeypatch.setattr(publishing, "EVERY_S", 0.01)
    store = MemoryStore()
    desk = Desk(store)
    desk.send(3)
    desk.copies.__class__ = FaultyCopies
    running = spawn(desk.publisher.run(), name="publishing")

    await eventually(lambda: not desk.book.is_changed)
    await stop(running)

    assert await eligible(store) == 3
    assert counted_faults["publishing"] == 1
    [fault] = [one for one in caplog.records if one.name == "sidecar.faults"]
    assert fault.__dict__["part"] == "publishing"


async def test_a_shadow_that_cannot_be_charged_for_is_told_of_with_all_others(
    counted_faults: Counter[str],
) -> None:
    store = MemoryStore()
    desk = Desk(store)
    desk.send(3)
    desk.book.copies[10**9] = {"acme": 1}  # a day that no calendar has
    await desk.publisher.publish()

    assert counted_faults["publishing"] == 1
    assert await eligible(store) == 3


async def test_the_loop_turns_while_the_costs_of_many_shadows_are_added_up() -> None:
    desk = Desk(MemoryStore())
    for number in range(50):
        book = Book("tumor", "v2", f"{number:012}", desk.clock.now_s())
        book.copies = {day: {f"t{one}": 1 for one in range(200)} for day in range(20_800, 20_820)}
        desk.copies.books["tumor", "v2", book.test] = book
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = spawn(turn(), name="turning")
    await desk.publisher._collect()  # noqa: SLF001 -- the part of a round that waits for nothing
    await stop(turning)

    assert turns > 10  # of 200,000 prices, each a microsecond or so


async def test_an_old_test_is_told_to_its_end_and_let_go() -> None:
    store = MemoryStore()
    desk = Desk(store)
    desk.send(2)
    desk.book.is_old = True
    trial = desk.trial([1], [1])  # still under way
    await desk.publisher.publish()
    assert len(desk.copies.books) == 1

    desk.comparer.take(trial)
    await eventually(lambda: desk.book.under_way == 0)
    await desk.publisher.publish()

    assert desk.copies.books == {}
    desk.begin_anew()  # the policy has the test again
    desk.send(4)
    await desk.publisher.publish()
    assert await eligible(store) == 7


async def test_a_reset_has_a_worker_count_from_nothing() -> None:
    store = MemoryStore()
    desk = Desk(store)
    desk.send(5)
    await desk.publisher.publish()
    await store.reset_shadow("tumor", "v2")
    desk.send(1)

    await desk.publisher.publish()

    assert desk.copies.books == {}
    desk.begin_anew()
    desk.send(2)
    await desk.publisher.publish()
    assert await eligible(store) == 2


async def test_a_reset_is_heard_of_although_there_is_nothing_to_tell() -> None:
    store = MemoryStore()
    desk = Desk(store)
    desk.send(5)
    await desk.publisher.publish()
    await store.reset_shadow("tumor", "v2")

    await desk.publisher.publish()  # nobody has called since

    assert desk.copies.books == {}
    desk.begin_anew()
    desk.send(3)
    await desk.publisher.publish()
    assert await eligible(store) == 3


async def test_of_pairs_that_differ_few_are_kept_however_many_there_are() -> None:
    store = MemoryStore()
    desk = Desk(store)
    keeping = Comparison(keep=Kept(pairs=10))
    await desk.compare(100, keeping)
    await desk.publisher.publish()

    assert len([one async for one in store.evidence("tumor", "v2")]) == 5
    assert desk.counted("rmv_shadow_evidence_total", "outcome", "kept") == 5
    assert desk.counted("rmv_shadow_evidence_total", "outcome", "passed-over") == 95
    desk.clock.advance(1)
    await desk.compare(100, keeping)
    await desk.publisher.publish()
    assert len([one async for one in store.evidence("tumor", "v2")]) == 10


async def test_pairs_are_stored_a_few_at_a_time_and_those_that_fail_wait() -> None:
    class Noting(MemoryStore):
        sizes: Final[list[int]] = []

        async def add_evidence(
            self, model: str, version: str, evidence: Sequence[Evidence], keep: int
        ) -> None:
            self.sizes.append(len(evidence))
            if len(self.sizes) == 2:
                raise StoreUnavailableError("it is away")
            await super().add_evidence(model, version, evidence, keep)

    store = Noting()
    desk = Desk(store)
    keeping = Comparison(keep=Kept(pairs=20))
    for _ in range(2):
        await desk.compare(5, keeping)
        desk.clock.advance(1)
    await desk.publisher.publish()
    assert desk.counted("rmv_shadow_evidence_total", "outcome", "kept") == 4

    await desk.publisher.publish()

    assert store.sizes == [4, 4, 4, 2]
    assert desk.counted("rmv_shadow_evidence_total", "outcome", "kept") == 10
    assert len([one async for one in store.evidence("tumor", "v2")]) == 10


async def test_evidence_says_which_fields_differ_and_no_more_unless_asked() -> None:
    store = MemoryStore()
    desk = Desk(store)
    await desk.compare(1, Comparison(keep=Kept(pairs=10)))
    await desk.publisher.publish()

    [pair] = [one async for one in store.evidence("tumor", "v2")]

    assert pair is not None
    assert (pair.request_id, pair.shadow_request_id) == ("r-1", "r-1")
    assert (pair.primary, pair.version, pair.tenant, pair.kind) == ("v1", "v2", "acme", "json")
    assert pair.fields == ("/score", "/ssn")
    assert [(one.primary, one.shadow, one.delta) for one in pair.differences] == [
        ("", "", None)
    ] * 2
    assert (pair.primary_s, pair.shadow_s) == (0.5, 0.5)
    assert not any((pair.target, pair.request_body, pair.primary_body, pair.shadow_body))


async def test_the_shadow_may_have_a_request_id_of_its_own() -> None:
    store = MemoryStore()
    desk = Desk(store)
    answer = desk.captured({"score": 2}, fields="X-Request-Id: s-9\r\n")
    trial = desk.trial({"score": 1}, answer, comparison=Comparison(keep=Kept(pairs=1)))
    desk.comparer.take(trial)
    await eventually(lambda: desk.book.under_way == 0)
    await desk.publisher.publish()

    [pair] = [one async for one in store.evidence("tumor", "v2")]

    assert pair is not None
    assert (pair.request_id, pair.shadow_request_id) == ("r-1", "s-9")


@pytest.mark.parametrize(
    "keep", [Kept(pairs=10), Kept(pairs=10, values=True), Kept(pairs=10, bodies=True, values=True)]
)
async def test_what_is_masked_is_nowhere_in_the_store(
    redis_store: RedisStore, valkey: Valkey, keep: Kept
) -> None:
    desk = Desk(redis_store)
    masked = Kept(pairs=keep.pairs, values=keep.values, bodies=keep.bodies, mask=("/ssn",))
    await desk.compare(3, Comparison(keep=masked))
    await desk.publisher.publish()
    await desk.publisher.close()

    held = await everything(valkey)

    assert b"/score" in held
    for secret in (b"123-45-6789", b"987-65-4321"):
        for spelled in _spellings(secret):
            assert spelled not in held


async def test_a_request_that_is_kept_whole_can_be_sent_again() -> None:
    store = MemoryStore()
    desk = Desk(store)
    await desk.compare(1, Comparison(keep=Kept(pairs=10, bodies=True, values=True)))
    await desk.compare(1, Comparison(keep=Kept(pairs=10, bodies=True, mask=("/ssn",))))
    await desk.compare(1, Comparison(keep=Kept(pairs=10, bodies=True, mask=("/other",))))
    await desk.publisher.publish()

    unseen, masked, plain = [one async for one in store.evidence("tumor", "v2")]

    assert plain is not None
    assert masked is not None
    assert unseen is not None
    assert (plain.method, plain.target, plain.content_type) == (
        "POST",
        "/score?q=1",
        "application/json",
    )
    assert b64decode(plain.request_body) == b'{"ssn": "123-45-6789", "age": 41}'
    assert b64decode(plain.shadow_body) == b'{"score":2,"ssn":"987-65-4321"}'
    assert plain.primary_fields == (("content-type", "application/json"),)
    assert b64decode(masked.request_body) == b'{"ssn":"***","age":41}'
    assert b64decode(masked.primary_body) == b'{"score":1,"ssn":"***"}'
    assert [one.is_masked for one in (plain, masked, unseen)] == [False, True, False]


@pytest.mark.parametrize(("coding", "kept"), [(b"gzip", b'{"age":41}'), (b"br", b"")])
async def test_a_request_is_kept_without_its_content_coding(coding: bytes, kept: bytes) -> None:
    store = MemoryStore()
    desk = Desk(store)
    fields = ((b"content-type", b"application/json"), (b"content-encoding", coding))
    trial = desk.trial(
        [1],
        [2],
        comparison=Comparison(keep=Kept(pairs=10, bodies=True)),
        head=make_head(headers=fields),
        request_body=gzip.compress(b'{"age":41}'),
    )
    desk.comparer.take(trial)
    await eventually(lambda: desk.book.under_way == 0)
    await desk.publisher.publish()

    [pair] = [one async for one in store.evidence("tumor", "v2")]

    assert pair is not None
    assert (b64decode(pair.request_body), pair.is_masked) == (kept, not kept)


async def test_a_token_in_a_query_is_not_kept() -> None:
    store = MemoryStore()
    desk = Desk(store)
    keeping = Comparison(keep=Kept(pairs=10, bodies=True))
    head = make_head(b"/score?x=1&access_token=secret&y=2")
    desk.comparer.take(desk.trial([1], [2], comparison=keeping, head=head))
    await eventually(lambda: desk.book.under_way == 0)
    await desk.publisher.publish()

    [pair] = [one async for one in store.evidence("tumor", "v2")]

    assert pair is not None
    assert (pair.target, pair.is_masked) == ("/score?x=1&access_token=***", True)


async def test_a_body_too_large_to_be_kept_is_left_out_and_that_is_said() -> None:
    store = MemoryStore()
    desk = Desk(store)
    trial = desk.trial(
        b"a" * (MAX_BODY_BYTES + 1),
        b"b",
        comparison=Comparison(keep=Kept(pairs=10, bodies=True)),
        request_body=b"x" * (MAX_BODY_BYTES + 1),
    )
    desk.comparer.take(trial)
    await eventually(lambda: desk.book.under_way == 0)
    await desk.publisher.publish()
    await desk.comparer.close()

    [pair] = [one async for one in store.evidence("tumor", "v2")]

    assert pair is not None
    assert (pair.request_body, pair.primary_body, pair.is_masked) == ("", "", True)
    assert b64decode(pair.shadow_body) == b"b"


def _spellings(secret: bytes) -> list[bytes]:
    """Return a secret as it is, and as it stands in base64 at each of the three offsets."""
    coded = [b64encode(b"\0" * pad + secret)[pad + 1 : -5] for pad in range(3)]
    return [secret, *coded]


HALVES: Final = (
    b'{"\\ud800":1,"l":"\\udfff","n":1e308}',
    b'{"\\ud800":2,"l":"\\ud800","n":-1e308}',
)
HUGE: Final = (b'{"a":NaN,"b":' + b"9" * 400 + b"}", b'{"a":1e999,"b":1}')
NO_TEXT: Final = (b'{"a":"\xff"}', b'{"a":"\xfe"}')


@pytest.mark.parametrize("sides", [HALVES, HUGE, NO_TEXT])
@pytest.mark.parametrize("label", [None, "/l"])
async def test_no_answer_keeps_the_counts_from_the_store(
    redis_store: RedisStore, sides: tuple[bytes, bytes], label: str | None
) -> None:
    desk = Desk(redis_store)
    comparison = Comparison(label=label, keep=Kept(pairs=10, values=True, bodies=True))
    kind = "content-type: application/json\r\nx-request-id: \xff\r\n"
    mine, theirs = (desk.captured(side, fields=kind) for side in sides)
    desk.comparer.take(desk.trial(mine, theirs, comparison=comparison))
    await eventually(lambda: desk.book.under_way == 0)
    await desk.publisher.publish()

    told = await redis_store.tallies("tumor")

    assert told.faults == ()
    [tally] = told.tallies
    assert tally.pairs["v1"].answers == 1
    assert None not in [one async for one in redis_store.evidence("tumor", "v2")]


async def test_copies_are_charged_by_tenant_and_day() -> None:
    store = MemoryStore()
    desk = Desk(store)
    desk.send(4)
    desk.send(2, "globex")
    await desk.publisher.publish()
    desk.clock.advance(86_400)
    desk.send(1)
    await desk.publisher.publish()

    [tally] = (await store.tallies()).tallies
    assert tally.cost.price == {
        f"acme/{TODAY}": 2.0,
        "globex/2027-01-15": 1.0,
        "acme/2027-01-16": 0.5,
    }
    labels = ("model", "tumor", "version", "v2", "currency", "USD")
    assert desk.metrics.sums["rmv_shadow_cost_total", *labels] == 3.5


async def test_the_last_copies_of_a_model_that_is_gone_are_charged() -> None:
    store = MemoryStore()
    desk = Desk(store)
    desk.send(2)
    await desk.publisher.publish()
    desk.send(3)
    del desk.live.snapshots["tumor"]
    desk.book.is_old = True
    await desk.publisher.publish()

    [tally] = (await store.tallies()).tallies
    assert tally.cost.price == {f"acme/{TODAY}": 2.5}


async def test_a_cap_holds_over_the_fleet_until_the_day_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    one, other = Desk(store, "host/a", cap=5.0), Desk(store, "host/b", cap=5.0)
    one.send(6)
    other.send(3)
    await one.publisher.publish()
    await other.publisher.publish()
    await one.publisher.publish()
    assert (one.copies.capped, other.copies.capped) == (set(), set())

    other.send(1)
    with caplog.at_level(logging.WARNING, "sidecar"):
        for _ in range(2):
            await other.publisher.publish()
            await one.publisher.publish()
    assert one.copies.capped == other.copies.capped == {("tumor", "v2")}
    assert [one.message for one in caplog.records] == ["shadow is capped"] * 2  # once each
    level = ("rmv_shadow_capped", "model", "tumor", "version", "v2")
    assert one.metrics.levels[level] == 1

    one.follow(6.0)  # it may cost more
    await one.publisher.publish()
    assert one.copies.capped == set()
    for desk in (one, other):
        desk.clock.advance(86_400)
        await desk.publisher.publish()
        assert desk.copies.capped == set()
        assert desk.metrics.levels[level] == 0
    one.follow(None)
    await one.publisher.publish()
    assert level not in one.metrics.levels


async def test_what_a_worker_spent_last_counts_after_its_end() -> None:
    store = MemoryStore()
    one, other = Desk(store, "host/a", cap=5.0), Desk(store, "host/b", cap=5.0)
    one.send(10)
    await one.publisher.close()

    await other.publisher.publish()

    assert other.copies.capped == {("tumor", "v2")}


async def test_a_cap_holds_for_a_worker_alone_while_the_store_is_away(
    redis_store: RedisStore, valkey: Valkey
) -> None:
    desk, other = Desk(redis_store, cap=5.0), Desk(redis_store, "host/b", cap=5.0)
    other.send(4)
    await other.publisher.publish()
    desk.send(2)
    await desk.publisher.publish()
    await valkey.stop()

    desk.send(3)
    await desk.publisher.publish()
    assert desk.copies.capped == set()
    desk.send(1)  # 2.0 of the other, when last heard, and 3.0
    await desk.publisher.publish()

    assert desk.copies.capped == {("tumor", "v2")}
