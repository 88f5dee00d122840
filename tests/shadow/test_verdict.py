"""A verdict is given when the counts prove it, and is hardly ever wrong however often one looks."""

from __future__ import annotations

from math import inf
from random import Random
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.comparison import Comparison, Thresholds
from sidecar.model.policy import Shadow
from sidecar.model.shadow import OTHER, Control, Ledger, Pairs, Share, Tally
from sidecar.shadow.sequence import Interval
from sidecar.shadow.tally import note
from sidecar.shadow.verdict import (
    Conclusion,
    Finding,
    agreement,
    conclude,
    error_of,
    group,
    held,
    judge,
    sample_ratio,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = 200
ALL = Thresholds(
    agreement=0.95,
    error_increase=0.0,
    latency_p50_ratio=1.0,
    latency_p95_ratio=1.0,
    min_pairs=1,
)
AGREEMENT = Thresholds(agreement=0.95, error_increase=None, min_pairs=100)


def pairs(number: int = 0, agreed: int = 0, first: int = 0, second: int = 0) -> Pairs:
    return Pairs(
        number=number,
        agreed=agreed,
        answers=number,
        primary_errors=first,
        shadow_errors=second,
    )


def outcomes(of: Pairs, thresholds: Thresholds) -> dict[str, Finding]:
    return {check.name: check.outcome for check in judge(of, thresholds).checks}


def ever_fails(add: Callable[[Random, Pairs], None], thresholds: Thresholds, looks: int) -> int:
    """How many of the tests fail at one of their looks."""
    failed = 0
    for seed in range(TESTS):
        random, seen = Random(seed), Pairs()  # noqa: S311  # no secret
        for _ in range(looks):
            add(random, seen)
            if judge(seen, thresholds).outcome is Finding.FAIL:
                failed += 1
                break
    return failed


def test_what_the_whole_interval_holds_passes() -> None:
    verdict = judge(pairs(2000, 1995), AGREEMENT)

    assert verdict.outcome is Finding.PASS
    assert verdict.why == ("agreement is 99.07% to 99.98%, which holds at least 95%")


def test_what_the_whole_interval_violates_fails() -> None:
    verdict = judge(pairs(2000, 1600), AGREEMENT)

    assert verdict.outcome is Finding.FAIL
    assert "which violates at least 95%" in verdict.why


def test_what_the_interval_straddles_is_not_settled() -> None:
    verdict = judge(pairs(2000, 1900), AGREEMENT)

    assert verdict.outcome is Finding.INCONCLUSIVE
    assert "2,000 pairs do not settle at least 95%" in verdict.why


@pytest.mark.parametrize("agreed", [0, 99])
def test_nothing_is_concluded_before_there_are_enough_pairs(agreed: int) -> None:
    verdict = judge(pairs(99, agreed), AGREEMENT)

    assert verdict.outcome is Finding.INCONCLUSIVE
    assert verdict.why == "agreement has 99 pairs of the 100 that it needs"


def test_one_violated_bound_fails_whatever_else_is_not_settled() -> None:
    seen = pairs(2000, 1900, first=0, second=400)
    both = Thresholds(agreement=0.95, error_increase=0.01)

    assert outcomes(seen, both) == {
        "agreement": Finding.INCONCLUSIVE,
        "error increase": Finding.FAIL,
    }
    assert judge(seen, both).outcome is Finding.FAIL


def test_one_bound_that_is_not_settled_keeps_all_from_passing() -> None:
    seen = pairs(2000, 2000, first=10, second=20)

    assert judge(seen, Thresholds(error_increase=0.01)).outcome is Finding.INCONCLUSIVE


def test_a_test_that_asks_nothing_concludes_nothing() -> None:
    nothing = Thresholds(agreement=None, error_increase=None)

    assert judge(pairs(5000, 0), nothing).outcome is Finding.INCONCLUSIVE


def test_the_error_is_divided_among_what_is_asked() -> None:
    assert error_of(AGREEMENT) == pytest.approx(0.05)
    assert error_of(ALL) == pytest.approx(0.05 / 4)


def test_a_test_without_pairs_can_be_judged_and_written_as_json() -> None:
    verdict = judge(Pairs(), ALL)

    assert {check.outcome for check in verdict.checks} == {Finding.INCONCLUSIVE}
    assert {check.estimate for check in verdict.checks} == {None}
    assert verdict.checks[2].interval == (0, inf)
    assert b'"interval":[0.0,null]' in msgspec.json.encode(verdict)


def test_latencies_are_judged_by_their_ratio() -> None:
    seen, random = pairs(3000, 3000), Random(3)  # noqa: S311
    for _ in range(3000):
        note(seen.primary_latency, random.lognormvariate(-4, 0.3))
        note(seen.shadow_latency, 2 * random.lognormvariate(-4, 0.3))

    twice = msgspec.structs.replace(
        ALL, latency_p50_ratio=1.5, latency_p95_ratio=2.9, latency_p99_ratio=2.0
    )

    found = outcomes(seen, twice)
    assert found["latency p50 ratio"] is Finding.FAIL
    assert found["latency p95 ratio"] is Finding.PASS
    assert found["latency p99 ratio"] is Finding.INCONCLUSIVE


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_a_bound_is_never_both_held_and_violated(
    one: float, other: float, bound: float, at_least: bool
) -> None:
    interval = Interval(min(one, other), max(one, other))
    found = held(interval, bound, at_least=at_least)

    assert (found is Finding.INCONCLUSIVE) == (
        interval.low < bound <= interval.high if at_least else interval.low <= bound < interval.high
    )


def test_a_shadow_that_is_just_good_enough_hardly_ever_fails_however_often_one_looks() -> None:
    def add(random: Random, seen: Pairs) -> None:
        for _ in range(40):
            seen.number += 1
            seen.answers += 1
            seen.agreed += random.random() < 0.95
            draw = random.random()
            seen.primary_errors += draw < 0.05
            seen.shadow_errors += draw > 0.95
            note(seen.primary_latency, random.expovariate(100))
            note(seen.shadow_latency, random.expovariate(100))

    assert ever_fails(add, ALL, looks=20) <= TESTS * 0.05


def test_noise_on_both_sides_is_no_difference_however_often_one_looks() -> None:
    def add(random: Random, seen: Pairs) -> None:
        for _ in range(40):
            shadow, control = random.random() < 0.2, random.random() < 0.2
            seen.number += 1
            seen.agreed += not shadow
            seen.control.number += 1
            seen.control.shadow_only += shadow and not control
            seen.control.control_only += control and not shadow

    no_worse = Thresholds(agreement=1.0, error_increase=None, min_pairs=1)
    assert ever_fails(add, no_worse, looks=40) <= TESTS * 0.05


def test_five_percent_more_errors_are_found_within_a_thousand_pairs() -> None:
    def add(random: Random, seen: Pairs) -> None:
        for _ in range(50):
            draw = random.random()
            seen.answers += 1
            seen.primary_errors += draw < 0.01
            seen.shadow_errors += draw > 0.94

    no_worse = Thresholds(agreement=None, error_increase=0.0, min_pairs=100)
    assert ever_fails(add, no_worse, looks=20) >= TESTS * 0.95


def test_what_noise_hides_is_found_net_of_it() -> None:
    random, seen = Random(5), Pairs()  # noqa: S311
    for _ in range(4000):
        noisy, worse, control = (random.random() < rate for rate in (0.2, 0.05, 0.2))
        shadow = noisy or worse
        seen.number += 1
        seen.agreed += not shadow
        seen.control.number += 1
        seen.control.shadow_only += shadow and not control
        seen.control.control_only += control and not shadow

    number, share, interval = agreement(seen, 0.05, has_control=True)

    assert number == 4000
    assert share is not None
    assert interval.low <= 1 - 0.05 * 0.8 <= interval.high < 1
    assert judge(seen, Thresholds(agreement=0.999, error_increase=None)).outcome is Finding.FAIL
    assert judge(seen, Thresholds(agreement=0.9, error_increase=None)).outcome is Finding.PASS


def test_a_control_that_has_not_run_yet_leaves_agreement_open() -> None:
    asked = Thresholds(agreement=0.9, error_increase=None, min_pairs=10)

    assert judge(pairs(1000, 0), asked).outcome is Finding.FAIL
    assert judge(pairs(1000, 0), asked, has_control=True).outcome is Finding.INCONCLUSIVE


def test_a_control_that_disagrees_more_than_the_shadow_makes_no_more_than_all_agree() -> None:
    seen = pairs(1000, 900)
    seen.control = Control(1000, 100, 300, 0, 200)

    assert agreement(seen, 0.05, has_control=True)[1:] == (1.0, (1.0, 1.0))


@pytest.mark.parametrize(
    ("share", "has_noise", "found"),
    [
        (Share(1000, 1000), False, Finding.PASS),
        (Share(1000, 1000), True, Finding.PASS),
        (Share(1000, 500), False, Finding.FAIL),
        (Share(1000, 500), True, Finding.UNCHECKED),
        (Share(10, 9), False, Finding.INCONCLUSIVE),
        (Share(), False, Finding.INCONCLUSIVE),
    ],
)
def test_a_group_fails_by_itself_but_not_by_noise(
    share: Share, has_noise: bool, found: Finding
) -> None:
    assert group(share, 0.95, 0.05, has_noise=has_noise)[1] is found


@pytest.mark.parametrize(
    ("ledger", "percent", "found"),
    [
        (Ledger(10_000, 9_010), 10, Finding.PASS),
        (Ledger(10_000, 8_500), 10, Finding.FAIL),
        (Ledger(10_000, 9_500), 10, Finding.FAIL),
        (Ledger(10_000, 0), 100, Finding.PASS),
        (Ledger(10_000, 1), 100, Finding.FAIL),
        (Ledger(), 10, Finding.INCONCLUSIVE),
    ],
)
def test_requests_are_drawn_as_often_as_they_should_be(
    ledger: Ledger, percent: float, found: Finding
) -> None:
    assert sample_ratio(ledger, percent, "request").outcome is found


def test_a_true_sample_is_hardly_ever_alarmed_at_however_often_one_looks() -> None:
    alarms = 0
    for seed in range(TESTS):
        random, ledger = Random(seed), Ledger()  # noqa: S311
        for _ in range(25):
            ledger.eligible += 40
            ledger.sampled_out += sum(random.random() >= 0.1 for _ in range(40))
            if sample_ratio(ledger, 10, "request").outcome is Finding.FAIL:
                alarms += 1
                break
    assert alarms <= 1  # of 200, at one of a thousand


def test_tenants_are_counted_where_tenants_are_drawn() -> None:
    half = {f"t{n}": Share(1000, 1000 if n % 2 else 0) for n in range(300)}
    ledger = Ledger(300_000, 150_000, tenants={"": Share(99, 0), **half})

    assert sample_ratio(ledger, 50, "tenant").outcome is Finding.PASS
    assert sample_ratio(ledger, 10, "tenant").outcome is Finding.FAIL
    assert sample_ratio(ledger, 90, "tenant").outcome is Finding.FAIL


def test_where_all_are_drawn_units_are_no_matter() -> None:
    assert sample_ratio(Ledger(100, 0), 100, "subject").outcome is Finding.PASS
    assert sample_ratio(Ledger(100, 1), 100, "subject").outcome is Finding.FAIL


def test_a_bound_that_nothing_is_beyond_is_never_held() -> None:
    all_agree = Thresholds(agreement=1.0, error_increase=None)

    assert judge(pairs(10**9, 10**9), all_agree).outcome is Finding.INCONCLUSIVE
    assert judge(pairs(10**9, 10**9 - 1), all_agree).outcome is Finding.FAIL


def test_tenants_of_whom_all_was_skipped_may_have_been_drawn() -> None:
    half = {f"t{n}": Share(1000, 1000 if n % 2 else 0) for n in range(300)}
    ledger = Ledger(300_000, 9, skipped={"size": 150_000}, tenants=half)

    assert sample_ratio(ledger, 99, "tenant").outcome is Finding.PASS


@pytest.mark.parametrize("key", ["subject", "header:x-session", "tenant"])
def test_units_that_are_not_counted_are_not_checked(key: str) -> None:
    ledger = Ledger(10, 5, tenants={"a": Share(5, 5), OTHER: Share(5, 0)})
    check = sample_ratio(ledger, 50, key)

    assert check.outcome is Finding.UNCHECKED
    assert "drawn, not requests" in check.why


@pytest.mark.parametrize("cause", ["size", "encoding", "malformed", "fault"])
def test_a_shadow_does_not_pass_by_answers_that_cannot_be_read(cause: str) -> None:
    shadow = Shadow("v2", compare=Comparison(thresholds=AGREEMENT))
    tally = Tally("m", "v2", "0123456789ab", 0.0, pairs={"v1": pairs(9_500, 9_500)})

    def concluded(unread: int, **others: int) -> Conclusion:
        number = 9_500 + unread + sum(others.values())
        uncompared = {cause: unread, **others}
        tally.ledger = Ledger(number, 0, number, compared=9_500, uncompared=uncompared)
        return conclude(tally, shadow)

    assert concluded(500, budget=90_000).outcome is Finding.PASS  # as many as may disagree
    assert concluded(501).outcome is Finding.INCONCLUSIVE
    assert concluded(501).why.startswith("501 of 10,001 answers are too large to be compared")
    tally.pairs["v1"].agreed = 0
    assert concluded(501).outcome is Finding.FAIL
