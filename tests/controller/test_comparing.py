"""Answers are compared in time that nobody misses, and every pair is counted once."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from itertools import count, pairwise
from typing import TYPE_CHECKING

import msgspec
import pytest

from sidecar.controller import comparing
from sidecar.controller.comparing import MAX_WAITING, SMALL_BYTES
from sidecar.controller.evidence import make_evidence
from sidecar.dataplane.trial import Captured
from sidecar.model.comparison import Comparison, Kept
from sidecar.model.policy import Policy, Price, Segment, Version
from sidecar.policy.snapshot import compile_snapshot
from sidecar.runtime import faults
from tests.controller.pairs import MEMORY, Bench
from tests.policy.examples import make_head, make_policy
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from sidecar.dataplane.trial import Trial
    from sidecar.model.identity import JSON
    from sidecar.model.shadow import Answer, Evidence, Outcome
    from sidecar.shadow.rules import Rules

LARGE: dict[str, JSON] = {"rows": ["x" * 1000] * 40}
VERSION = Version(endpoints=("http://127.0.0.1:9001",))


async def settled(bench: Bench) -> None:
    """Wait until nothing is being compared."""
    await eventually(lambda: bench.book.under_way == 0)


async def test_pairs_that_agree_and_pairs_that_differ_are_counted_apart() -> None:
    bench = Bench()
    for number in range(10):
        bench.comparer.take(bench.trial({"score": 1}, {"score": 1 if number < 7 else 2}))
    assert bench.book.under_way == 10  # the caller's time is not taken
    await settled(bench)

    assert (bench.pairs.number, bench.pairs.agreed, bench.pairs.answers) == (10, 7, 10)
    assert bench.pairs.fields["/score"].raw == 3
    assert bench.pairs.tenants["acme"].number == 10
    assert bench.book.compared == 10
    labels = ("model", "tumor", "version", "v2")
    assert bench.counted("rmv_shadow_pairs_total", *labels, "outcome", "agreed") == 7
    assert bench.counted("rmv_shadow_pairs_total", *labels, "outcome", "differed") == 3
    assert bench.memory.free == MEMORY


async def test_small_pairs_are_compared_one_a_turn_of_the_loop() -> None:
    bench = Bench()
    for _ in range(5):
        bench.comparer.take(bench.trial([1], [1]))

    seen = []
    while bench.book.compared < 5:
        await asyncio.sleep(0)
        seen.append(bench.book.compared)

    assert all(later - earlier <= 1 for earlier, later in pairwise(seen))


async def test_what_is_coded_is_compared_in_the_thread_however_few_bytes_it_has() -> None:
    threads: set[int] = set()

    def cpu_s() -> float:
        threads.add(threading.get_ident())
        return 0.0

    said = b'{"rows":[' + b"1," * 50_000 + b"1]}"
    fields = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
    bench = Bench(cpu_s=cpu_s)
    sides = [bench.captured(gzip.compress(said), fields=fields) for _ in range(2)]
    assert sum(side.size for side in sides) < SMALL_BYTES < len(said)

    bench.comparer.take(bench.trial(*sides))
    await settled(bench)

    assert threads > {threading.get_ident()}
    assert bench.pairs.agreed == 1
    await bench.comparer.close()


async def test_large_pairs_are_compared_in_one_thread_while_the_loop_turns() -> None:
    threads: list[int] = []
    may_go_on = threading.Event()

    def cpu_s() -> float:
        here = threading.get_ident()
        if here != threading.main_thread().ident and here not in threads:
            threads.append(here)
            may_go_on.wait(30)
        return 0.0

    bench = Bench(cpu_s=cpu_s)
    bench.comparer.take(bench.trial(LARGE, LARGE))
    bench.comparer.take(bench.trial(LARGE, {**LARGE, "more": 1}))
    await eventually(lambda: bool(threads))
    bench.comparer.take(bench.trial([1], [1]))  # a small one does not wait for them
    await eventually(lambda: bench.book.compared == 1)
    may_go_on.set()
    await settled(bench)

    assert len(threads) == 1
    assert (bench.pairs.number, bench.pairs.agreed) == (3, 2)
    assert bench.memory.free == MEMORY
    await bench.comparer.close()
    assert threads[0] not in {one.ident for one in threading.enumerate()}


async def test_the_loop_turns_while_bodies_are_masked_to_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_loop: list[bool] = []

    def noting(
        trial: Trial, rules: Rules, primary: Answer, shadow: Answer, outcome: Outcome
    ) -> Evidence:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return make_evidence(trial, rules, primary, shadow, outcome)

    monkeypatch.setattr(comparing, "make_evidence", noting)
    bench = Bench()
    kept = Comparison(keep=Kept(bodies=True, mask=("/*/x",)))
    body = msgspec.json.encode([{}] * 20_000)  # 40 KiB, of which masking takes 50 ms
    bench.comparer.take(bench.trial([1], [2], comparison=kept, request_body=body))
    await settled(bench)
    bench.comparer.take(bench.trial([1], [1], comparison=kept, request_body=body))
    await settled(bench)

    assert on_loop == [False]
    assert len(bench.accounts.of(bench.book).drawer.waiting) == 1
    assert bench.memory.free == MEMORY
    await bench.comparer.close()


async def test_bodies_that_wait_for_the_store_are_bounded() -> None:
    bench = Bench(share=1.0)
    kept = Comparison(keep=Kept(bodies=True))
    drawer = bench.accounts.of(bench.book).drawer

    async def compare(number: int) -> None:
        for _ in range(number):
            sides = bench.captured(b"a" * 60_000), bench.captured(b"b" * 60_000)
            trial = bench.trial(*sides, comparison=kept, request_body=b"c" * 60_000)
            bench.comparer.take(trial)
            await settled(bench)
            bench.clock.advance(1.0)

    await compare(15)
    assert len(drawer.waiting) == 9  # of 240,000 bytes each, in base64
    assert bench.counted("rmv_shadow_evidence_total", "outcome", "passed-over") == 6
    drawer.drop(9)
    await compare(12)
    assert len(drawer.waiting) == 9
    assert bench.memory.free == MEMORY
    await bench.comparer.close()


async def test_no_header_field_is_kept_at_any_length() -> None:
    bench = Bench()
    fields = f"X-Request-Id: {'i' * 60_000}\r\nContent-Type: text/plain; a={'t' * 60_000}\r\n"
    theirs = bench.captured(b"x", fields=fields)
    bench.comparer.take(bench.trial([1], theirs, comparison=Comparison(keep=Kept(bodies=True))))
    await settled(bench)

    [kept] = bench.accounts.of(bench.book).drawer.waiting
    assert kept.shadow_request_id == "i" * 200
    assert [len(value) for _, value in kept.shadow_fields] == [200]
    await bench.comparer.close()


async def test_a_pair_of_which_nothing_can_be_kept_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, counted_faults: Counter[str]
) -> None:
    def broken(*_: object) -> Evidence:
        raise RecursionError

    monkeypatch.setattr(comparing, "make_evidence", broken)
    bench = Bench()
    for _ in range(2):
        bench.comparer.take(bench.trial([1], [2]))
    await settled(bench)

    assert bench.pairs.number == bench.book.compared == 2
    assert bench.counted("rmv_shadow_evidence_total", "outcome", "passed-over") == 2
    assert counted_faults == {"comparing": 2}
    assert [one.message for one in caplog.records] == ["a fault of the sidecar"]
    assert bench.memory.free == MEMORY


async def test_comparing_has_its_share_of_a_core_and_no_more() -> None:
    used = count()
    # Every reading is 10 ms of CPU later: a pair costs 20 ms, be it to compare and to count it.
    bench = Bench(share=0.1, cpu_s=lambda: next(used) * 0.010)

    async def compared_of(number: int) -> int:
        before = bench.book.compared
        for _ in range(number):
            bench.comparer.take(bench.trial([1], [2]))
            await settled(bench)
        return bench.book.compared - before

    assert await compared_of(50) == 5  # a second's worth, which was saved up
    bench.clock.advance(1)
    assert await compared_of(50) == 5
    bench.clock.advance(100)
    assert await compared_of(50) == 5
    assert bench.book.uncompared == {"budget": 135}
    assert bench.tally.cost.compare_s == bench.metrics.sums["rmv_shadow_compare_seconds_total",]
    assert round(bench.tally.cost.compare_s, 6) == 15 * 0.020
    # Who is an error is counted all the same, or errors would be a share of those compared.
    assert (bench.pairs.number, bench.pairs.answers) == (15, 150)


async def test_without_a_share_nothing_is_compared() -> None:
    bench = Bench(share=0)

    bench.comparer.take(bench.trial([1], [2]))

    assert bench.book.uncompared == {"budget": 1}
    assert bench.memory.free == MEMORY


async def test_a_full_queue_is_counted_and_holds_no_memory() -> None:
    bench = Bench()

    for _ in range(MAX_WAITING + 10):
        bench.comparer.take(bench.trial([1], [1]))

    assert bench.book.uncompared == {"budget": 10}
    await settled(bench)
    assert bench.book.compared == MAX_WAITING
    assert bench.memory.free == MEMORY


async def test_what_the_control_says_otherwise_too_is_noise() -> None:
    bench = Bench()
    for number in range(4):
        real = 2 if number == 0 else 1
        bench.comparer.take(
            bench.trial(
                {"score": 1, "at": 0},
                {"score": real, "at": 10 + number},
                control={"score": 1, "at": 20 + number},
            )
        )
    await settled(bench)

    noisy, wrong = bench.pairs.fields["/at"], bench.pairs.fields["/score"]
    assert (noisy.paired_raw, noisy.noise) == (4, 4)
    assert (wrong.paired_raw, wrong.noise) == (1, 0)
    assert (bench.pairs.control.number, bench.pairs.control.shadow) == (4, 4)
    assert bench.memory.free == MEMORY


async def test_a_copy_without_a_whole_answer_is_an_error_of_the_shadow() -> None:
    bench = Bench()
    lost = Captured(bench.memory, MEMORY)
    lost.fail("lost")
    bench.book.fail("lost")
    bench.comparer.take(bench.trial([1], lost))
    gone, late = Captured(bench.memory, MEMORY), Captured(bench.memory, MEMORY)
    gone.fail("primary")
    gone.status = 499  # the client has left
    late.fail("timeout")
    bench.book.fail("timeout")
    bench.comparer.take(bench.trial(gone, late))  # there is nothing to hold it to

    assert (bench.pairs.answers, bench.pairs.shadow_errors, bench.pairs.number) == (1, 1, 0)
    assert bench.book.under_way == 0
    assert bench.memory.free == MEMORY


async def test_an_upstream_that_fails_is_an_error_of_the_clients_side() -> None:
    bench = Bench()
    broken = Captured(bench.memory, MEMORY)
    broken.fail("primary")  # without a status: it was not the client that left
    bench.comparer.take(bench.trial(broken, [1]))
    broken, lost = Captured(bench.memory, MEMORY), Captured(bench.memory, MEMORY)
    broken.fail("primary")
    lost.fail("lost")
    bench.book.fail("lost")
    bench.comparer.take(bench.trial(broken, lost))

    assert (bench.pairs.answers, bench.pairs.number) == (2, 0)
    assert (bench.pairs.primary_errors, bench.pairs.shadow_errors) == (1, 0)
    assert bench.pairs.both_errors == 1
    assert bench.book.uncompared == {"primary": 1}
    assert bench.memory.free == MEMORY


async def test_what_cannot_be_read_is_counted_by_its_cause() -> None:
    bench = Bench()
    bench.comparer.take(bench.trial(bench.captured(b"x", fields="content-encoding: br\r\n"), [1]))
    gone = Captured(bench.memory, MEMORY)
    gone.fail("primary")
    bench.comparer.take(bench.trial(gone, [1]))
    large = bench.captured([1])
    large.fail("size")
    bench.comparer.take(bench.trial([1], large))
    await settled(bench)

    assert bench.book.uncompared == {"encoding": 1, "primary": 1, "size": 1}
    assert bench.memory.free == MEMORY


async def test_a_fault_of_comparing_is_told_once_a_minute_and_loses_no_pair(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> Outcome:
        raise ZeroDivisionError

    monkeypatch.setattr(comparing, "compare", broken)
    bench = Bench()
    monkeypatch.setattr(faults, "PROCESS", faults.Faults(bench.clock.monotonic_s))
    bench.comparer.take(bench.trial([1], [1]))
    bench.comparer.take(bench.trial(LARGE, LARGE))
    await settled(bench)
    bench.clock.advance(60.0)
    bench.comparer.take(bench.trial([1], [1]))
    await settled(bench)

    assert bench.book.uncompared == {"fault": 3}
    assert bench.pairs.answers == 3  # whether they are errors is known
    told = [(one.message, one.__dict__["faults"], one.exc_info) for one in caplog.records]
    assert [(message, number) for message, number, _ in told] == [
        ("a fault of the sidecar", 1),
        ("a fault of the sidecar", 2),
    ]
    assert all(trace is not None and trace[2] is not None for _, _, trace in told)
    assert bench.memory.free == MEMORY
    await bench.comparer.close()


UNHEARD_OF = Comparison(ignore=(1,))  # type: ignore[arg-type]  # cannot be compiled
SCORED: dict[str, JSON] = {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 500, "completion_tokens": 100},
}


def unpriced(bench: Bench, size: int) -> Trial:
    """A pair whose tokens cannot be charged: its policy knows nothing of the version."""
    snapshot = compile_snapshot(make_policy(versions={"v1": VERSION}), {}, {})
    said = {**SCORED, "padding": "x" * size}
    return bench.trial(said, said, snapshot=snapshot)


def untold(bench: Bench, size: int) -> Trial:
    """A pair of which nobody knows how to compare it."""
    said: JSON = ["x" * size]
    return bench.trial(said, said, comparison=UNHEARD_OF)


@pytest.mark.parametrize("size", [0, SMALL_BYTES], ids=["small", "large"])
@pytest.mark.parametrize("faulty", [unpriced, untold])
async def test_a_pair_that_cannot_be_added_up_is_counted_and_those_behind_it_compared(
    caplog: pytest.LogCaptureFixture,
    faulty: Callable[[Bench, int], Trial],
    size: int,
    counted_faults: Counter[str],
) -> None:
    bench = Bench()
    for _ in range(2):
        bench.comparer.take(faulty(bench, size))
    said: JSON = ["x" * size]
    bench.comparer.take(bench.trial(said, said))
    await settled(bench)

    ledger = bench.book.ledger()
    assert (ledger.mirrored, ledger.compared, ledger.uncompared) == (3, 1, {"fault": 2})
    assert bench.pairs.number == 1
    assert counted_faults == {"comparing": 2}
    assert [one.message for one in caplog.records] == ["a fault of the sidecar"]
    assert bench.memory.free == MEMORY
    await bench.comparer.close()


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_fault_of_counting_never_reaches_who_hands_a_pair_over(
    *, monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(comparing, "add_statuses", broken)
    monkeypatch.setattr(comparing, "add_failure", broken)
    bench = Bench(share=0)
    shadow = bench.captured([1])
    if not is_whole:
        shadow.is_whole = False
        bench.book.fail("lost")
    bench.comparer.take(bench.trial([1], shadow))

    assert bench.book.under_way == 0
    assert bench.book.uncompared == ({"fault": 1} if is_whole else {})
    assert bench.memory.free == MEMORY


async def test_what_fails_at_the_end_is_counted_and_keeps_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    for trial in (unpriced(bench, SMALL_BYTES), bench.trial(LARGE, LARGE), untold(bench, 0)):
        bench.comparer.take(trial)
    await asyncio.sleep(0)  # the first one is in the thread
    monkeypatch.setattr(comparing, "add_statuses", None)

    await bench.comparer.close()

    assert bench.book.under_way == 0
    assert bench.book.uncompared == {"fault": 3}
    assert bench.memory.free == MEMORY


async def test_pairs_that_there_is_no_time_for_leave_the_queue_one_a_turn() -> None:
    used = count()
    bench = Bench(share=0.1, cpu_s=lambda: next(used) * 0.1)
    for _ in range(8):
        bench.comparer.take(bench.trial(LARGE, LARGE))
    seen = []
    async with asyncio.timeout(30):
        while bench.book.under_way:
            await asyncio.sleep(0)
            seen.append(bench.book.uncompared.get("budget", 0))

    assert seen[-1] == 7
    assert all(later - earlier <= 1 for earlier, later in pairwise(seen))
    assert bench.memory.free == MEMORY
    await bench.comparer.close()


async def test_what_is_left_at_the_end_is_counted_and_let_go() -> None:
    bench = Bench()
    bench.comparer.take(bench.trial([1], [1]))
    for _ in range(2):
        bench.comparer.take(bench.trial(LARGE, LARGE))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    await bench.comparer.close()
    bench.comparer.take(bench.trial([1], [1]))

    assert bench.book.under_way == 0
    assert bench.book.uncompared["shutdown"] >= 1
    assert bench.book.compared + bench.book.uncompared["shutdown"] == 4
    assert bench.memory.free == MEMORY


async def test_pairs_are_counted_by_the_segments_of_their_caller() -> None:
    bench = Bench()
    policy = Policy(
        model="tumor",
        versions={"v1": VERSION, "v2": VERSION},
        segments={
            "beta": Segment(include=("acme",)),
            "phone": Segment(when=({"header.x-device": "phone"},)),
        },
        default="v1",
    )
    snapshot = compile_snapshot(policy, {}, {})
    phone = make_head(headers=((b"x-device", b"phone"),))
    bench.comparer.take(bench.trial([1], [1], snapshot=snapshot))
    bench.comparer.take(bench.trial([1], [2], snapshot=snapshot, tenant="globex", head=phone))
    bench.comparer.take(bench.trial([1], [1], snapshot=snapshot, tenant="hooli"))
    await settled(bench)

    segments = bench.pairs.segments
    assert {name: (one.number, one.part) for name, one in segments.items()} == {
        "beta": (1, 1),
        "phone": (1, 0),
    }


async def test_tokens_that_an_answer_tells_of_are_charged() -> None:
    bench = Bench()
    price = Price(per_1k_input_tokens=2.0, per_1k_output_tokens=10.0)
    priced = Version(endpoints=VERSION.endpoints, price=price)
    snapshot = compile_snapshot(make_policy(versions={"v1": VERSION, "v2": priced}), {}, {})
    said: JSON = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 500, "completion_tokens": 100},
    }
    bench.comparer.take(bench.trial(said, said, snapshot=snapshot))
    await settled(bench)

    assert bench.tally.cost.price == {"acme/2027-01-15": 2.0}


@pytest.mark.parametrize("tokens", [10**400, -(10**400), -5], ids=["huge", "less", "negative"])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
async def test_no_number_of_tokens_loses_a_pair_or_gives_money_back(name: str, tokens: int) -> None:
    bench = Bench()
    price = Price(per_1k_input_tokens=2.0, per_1k_output_tokens=10.0)
    priced = Version(endpoints=VERSION.endpoints, price=price)
    snapshot = compile_snapshot(make_policy(versions={"v1": VERSION, "v2": priced}), {}, {})
    usage = {"prompt_tokens": 500, "completion_tokens": 100} | {name: tokens}
    choices = b'"choices":[{"index":0,"message":{"content":"hi"}}]'
    said = b'{"object":"chat.completion",%b,"usage":%b}' % (choices, json.dumps(usage).encode())
    kind = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    for _ in range(2):
        sides = bench.captured(said), bench.captured(said)
        sides[0].head = sides[1].head = kind
        bench.comparer.take(bench.trial(*sides, snapshot=snapshot))
    await settled(bench)

    assert bench.book.compared == 2
    assert bench.memory.free == MEMORY
    assert bench.tally.cost.price["acme/2027-01-15"] > 0


async def test_a_pair_is_large_by_both_its_bodies_together() -> None:
    bench = Bench()
    half = b"x" * (SMALL_BYTES // 2)

    bench.comparer.take(bench.trial(half, half))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert bench.book.compared == 1  # in turns of the loop alone
    bench.comparer.take(bench.trial(half + b"x", half, comparison=Comparison()))
    await settled(bench)
    assert bench.pairs.number == 2
    await bench.comparer.close()
