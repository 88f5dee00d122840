"""Intervals hold at every look: what is not so is found, what is so is hardly ever denied."""

from __future__ import annotations

from math import inf, isclose, sqrt
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.shadow import Histogram, Moments
from sidecar.shadow.sequence import (
    difference,
    edge,
    mean,
    proportion,
    quantile,
    ratio,
    refutes,
)
from sidecar.shadow.tally import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sidecar.shadow.sequence import Interval

ALPHA = 0.05
TESTS = 200
MAY_ERR = TESTS * ALPHA

COUNTS = st.integers(0, 10**9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
ALPHAS = st.floats(1e-6, 0.5)


class Refuted:
    """Which counts refute a mean, by how many draws: what a look costs is one comparison."""

    def __init__(self, mean: float, alpha: float, looks: int) -> None:
        self.least: list[int] = []
        self.most: list[int] = []
        least, most = 0, 0
        for number in range(looks + 1):
            most += 1
            while most < number and not refutes(most + 1, number, mean, alpha):
                most += 1
            most = min(most, number)
            while most and refutes(most, number, mean, alpha):
                most -= 1
            while refutes(least, number, mean, alpha):
                least += 1
            self.least.append(least)
            self.most.append(most)

    def ever(self, draws: Iterable[bool]) -> bool:
        part = 0
        for number, draw in enumerate(draws, 1):
            part += draw
            if not self.least[number] <= part <= self.most[number]:
                return True
        return False


def errs(run: Callable[[Random], bool]) -> int:
    """How many of the simulated tests err, be it at one look only."""
    return sum(run(Random(seed)) for seed in range(TESTS))  # noqa: S311  # no secret


def excludes(interval: Interval, value: float) -> bool:
    return not interval.low <= value <= interval.high


@given(COUNTS, ALPHAS)
def test_what_was_seen_is_always_in_the_interval(counts: tuple[int, int], alpha: float) -> None:
    part, number = counts
    low, high = proportion(part, number, alpha)

    assert 0 <= low <= high <= 1
    if number:
        assert low <= part / number <= high


@given(COUNTS, ALPHAS, st.floats(0, 1))
def test_an_interval_is_the_means_that_are_not_refuted(
    counts: tuple[int, int], alpha: float, mean: float
) -> None:
    low, high = proportion(*counts, alpha)

    if min(abs(mean - low), abs(mean - high)) > 1e-9:
        assert refutes(*counts, mean, alpha) == (not low < mean < high)


@given(COUNTS, ALPHAS)
def test_counting_the_others_mirrors_the_interval(counts: tuple[int, int], alpha: float) -> None:
    part, number = counts
    low, high = proportion(part, number, alpha)
    mirrored = proportion(number - part, number, alpha)

    assert isclose(mirrored.low, 1 - high, abs_tol=1e-12)
    assert isclose(mirrored.high, 1 - low, abs_tol=1e-12)


@given(COUNTS, ALPHAS)
def test_less_error_never_makes_an_interval_narrower(counts: tuple[int, int], alpha: float) -> None:
    wide, narrow = proportion(*counts, alpha / 2), proportion(*counts, alpha)

    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


def test_nothing_seen_says_nothing() -> None:
    assert proportion(0, 0, ALPHA) == (0, 1)
    assert difference(0, 0, 0, ALPHA) == (-1, 1)
    assert quantile(Histogram(), 0.5, ALPHA) == (0, inf)
    assert ratio(Histogram(), Histogram(), 0.5, ALPHA) == (0, inf)


def test_a_thousand_million_draws_are_told_to_four_digits() -> None:
    low, high = proportion(500_000_000, 10**9, ALPHA)

    assert 0.4999 < low < 0.5 < high < 0.5001
    assert proportion(0, 10**9, ALPHA).high < 2e-8
    assert proportion(10**9, 10**9, ALPHA).low > 1 - 2e-8


@pytest.mark.parametrize(("part", "number"), [(-1, 3), (4, 3), (1, 0)])
def test_counts_that_cannot_be_are_refused(part: int, number: int) -> None:
    with pytest.raises(ValueError, match="cannot be a part of"):
        proportion(part, number, ALPHA)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1])
def test_an_error_that_is_no_probability_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        proportion(1, 2, alpha)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
def test_a_true_share_is_hardly_ever_denied_however_often_one_looks(share: float) -> None:
    looks = 1500
    refuted = Refuted(share, ALPHA, looks)

    def run(random: Random) -> bool:
        return refuted.ever(random.random() < share for _ in range(looks))

    assert errs(run) <= MAY_ERR


def test_an_interval_of_a_fixed_sample_would_err_in_these_tests() -> None:
    def run(random: Random) -> bool:
        part, mean = 0, 0.5
        for number in range(1, 1500):
            part += random.random() < mean
            if number > 30 and abs(part - number * mean) > 1.96 * sqrt(number) / 2:
                return True
        return False

    assert errs(run) > 5 * MAY_ERR  # so that they would find it


def test_a_look_in_the_tests_is_a_look_at_the_interval() -> None:
    refuted = Refuted(0.3, ALPHA, 200)
    for number in range(0, 201, 8):
        for part in range(number + 1):
            is_in = refuted.least[number] <= part <= refuted.most[number]
            assert is_in != excludes(proportion(part, number, ALPHA), 0.3)


def test_equal_sides_are_hardly_ever_told_apart_however_often_one_looks() -> None:
    looks, rate = 3000, 0.1  # of pairs that are unlike: only they can change the sign
    refuted = Refuted(0.5, ALPHA / 2, looks)

    def run(random: Random) -> bool:
        unlike = sum(random.random() < rate for _ in range(looks))
        return refuted.ever(random.random() < 0.5 for _ in range(unlike))

    assert errs(run) <= MAY_ERR


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 10_000))
def test_a_difference_has_a_sign_when_the_unlike_pairs_lean(
    first: int, second: int, alike: int
) -> None:
    low, high = difference(first, second, first + second + alike, ALPHA)

    assert (low > 0 or high < 0) == refutes(second, first + second, 0.5, ALPHA / 2)
    assert low - 1e-12 <= (second - first) / max(first + second + alike, 1) <= high + 1e-12


def test_a_planted_difference_stays_in_its_interval() -> None:
    first, second, looks = 0.02, 0.07, 40

    def run(random: Random) -> bool:
        counts = [0, 0]
        for look in range(1, looks + 1):
            for _ in range(50):
                draw = random.random()
                counts[0] += draw < first
                counts[1] += first <= draw < first + second
            if excludes(difference(counts[0], counts[1], look * 50, ALPHA), second - first):
                return True
        return False

    assert sum(run(Random(seed)) for seed in range(50)) <= 50 * ALPHA  # noqa: S311


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_a_true_quantile_is_hardly_ever_denied_however_often_one_looks(q: float) -> None:
    looks = 1000
    refuted = Refuted(q, ALPHA, looks)

    def run(random: Random) -> bool:
        return refuted.ever(random.random() < q for _ in range(looks))

    assert errs(run) <= MAY_ERR


@given(st.lists(st.floats(1e-6, 5e-5), min_size=1, max_size=60), st.sampled_from([0.5, 0.9]))
def test_a_quantile_is_where_the_count_below_is_not_refuted(times: list[float], q: float) -> None:
    histogram = Histogram()
    for time in times:
        note(histogram, time)
    low, high = quantile(histogram, q, ALPHA)

    cumulated = 0
    for bucket in range(max(histogram.buckets) + 1):
        below, cumulated = cumulated, cumulated + histogram.buckets.get(bucket, 0)
        share = proportion(below, len(times), ALPHA).low, proportion(cumulated, len(times), ALPHA)
        may_be_here = share[0] < q < share[1].high
        assert may_be_here == (low <= edge(bucket) and edge(bucket + 1) <= high)


def test_equal_latencies_are_hardly_ever_told_apart_however_often_one_looks() -> None:
    def run(random: Random) -> bool:
        first, second = Histogram(), Histogram()
        for _ in range(12):
            for _ in range(50):
                note(first, random.lognormvariate(-4, 1))
                note(second, random.lognormvariate(-4, 1))
            if excludes(ratio(first, second, 0.5, ALPHA), 1.0):
                return True
        return False

    assert errs(run) <= MAY_ERR


def test_a_planted_slowdown_is_found_and_lies_in_its_interval() -> None:
    random = Random(7)  # noqa: S311
    first, second = Histogram(), Histogram()
    for _ in range(4000):
        note(first, random.lognormvariate(-4, 0.5))
        note(second, 1.5 * random.lognormvariate(-4, 0.5))

    for q in (0.5, 0.95):
        low, high = ratio(first, second, q, ALPHA)
        assert 1 < low < 1.5 < high < 2.2


def test_a_mean_is_hardly_ever_denied_however_often_one_looks() -> None:
    def run(random: Random) -> bool:
        seen = Moments()
        for number in range(1, 800):
            value = random.expovariate(1)
            seen.number += 1
            seen.total += value
            seen.squares += value * value
            if number % 10 == 0 and excludes(mean(seen, ALPHA), 1.0):
                return True
        return False

    assert errs(run) <= MAY_ERR


def test_of_few_numbers_no_mean_is_known() -> None:
    assert mean(Moments(), ALPHA) == (-inf, inf)
    assert mean(Moments(99, 99.0, 99.0), ALPHA) == (-inf, inf)
    assert mean(Moments(100, 100.0, 100.0), ALPHA) == (1, 1)


def test_a_shadow_that_is_always_the_same_time_is_known_to_a_bucket() -> None:
    histogram = Histogram()
    for _ in range(100_000):
        note(histogram, 0.01)

    low, high = quantile(histogram, 0.99, ALPHA)

    assert low <= 0.01 < high
    assert high / low < 1.05
