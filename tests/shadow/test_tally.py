"""Sums of workers are the sums of one, and no table grows for ever."""

from __future__ import annotations

from math import inf, isclose, nan
from typing import TYPE_CHECKING
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.shadow import (
    OTHER,
    Answer,
    Cost,
    Histogram,
    Ledger,
    Outcome,
    Share,
    Tally,
    Uncompared,
)
from sidecar.shadow.sequence import edge
from sidecar.shadow.tally import (
    MAX_FIELDS,
    MAX_LABELS,
    MAX_MEASURES,
    MAX_NAME,
    MAX_SEGMENTS,
    MAX_TENANTS,
    MAX_VERSIONS,
    add_failure,
    add_pair,
    estimate,
    merge,
    note,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.model.shadow import Pairs

EXACT = st.integers(0, 4000).map(lambda n: n / 1024)  # sums of these round nothing
FIELDS = st.lists(st.sampled_from(["/a", "/b", "status"]), unique=True).map(tuple)
OUTCOMES = st.builds(
    Outcome,
    st.just("json"),
    fields=FIELDS,
    measures=st.dictionaries(st.sampled_from(["tokens.primary", "tokens.shadow"]), EXACT),
    labels=st.none() | st.tuples(st.sampled_from("xy"), st.sampled_from("xyz")),
    probabilities=st.none() | st.tuples(st.sampled_from([0.0, 0.25, 1.0]), EXACT),
    uncompared=st.none() | st.none() | st.sampled_from(Uncompared),
)
ANSWERS = st.builds(
    Answer, st.sampled_from([200, 404, 500, 503]), st.just(()), st.binary(max_size=9), EXACT, EXACT
)


class Pair(msgspec.Struct):
    version: str
    tenant: str
    segments: tuple[str, ...]
    at_s: float
    primary: Answer
    shadow: Answer
    outcome: Outcome
    control: Outcome | None


PAIRS = st.builds(
    Pair,
    st.sampled_from(["v1", "v3"]),
    st.sampled_from(["acme", "globex", ""]),
    st.lists(st.sampled_from(["gold", "eu"]), unique=True).map(tuple),
    st.integers(0, 1000).map(float),
    ANSWERS,
    ANSWERS,
    OUTCOMES,
    st.none() | OUTCOMES,
)
LEDGERS = st.builds(
    Ledger,
    st.integers(0, 99),
    st.integers(0, 99),
    skipped=st.dictionaries(st.sampled_from(["size", "queue"]), st.integers(0, 9)),
    failed=st.dictionaries(st.sampled_from(["lost", "timeout"]), st.integers(0, 9)),
    sizes=st.dictionaries(st.integers(0, 3), st.builds(Share, st.integers(0, 9))),
    tenants=st.dictionaries(st.sampled_from("ab"), st.builds(Share, st.integers(0, 9))),
)
COSTS = st.builds(Cost, st.dictionaries(st.sampled_from(["a/2026-11-23", "b/2026-11-23"]), EXACT))


def tally(pairs: Iterable[Pair] = (), workers: int = 1) -> Tally:
    made = Tally("m", "v2", "0123456789ab", 100.0, workers=workers)
    for pair in pairs:
        add(made, pair)
    return made


def add(to: Tally, pair: Pair) -> None:
    add_pair(
        to,
        primary_version=pair.version,
        tenant=pair.tenant,
        segments=pair.segments,
        at_s=pair.at_s,
        primary=pair.primary,
        shadow=pair.shadow,
        outcome=pair.outcome,
        control=pair.control,
    )


def answer(status: int = 200, seconds: float = 1 / 64) -> Answer:
    return Answer(status, (), b"{}", seconds, seconds)


def add_one(to: Tally, outcome: Outcome, *, tenant: str = "t", at_s: float = 0.0) -> Pairs:
    add(to, Pair("v1", tenant, (), at_s, answer(), answer(), outcome, None))
    return to.pairs["v1"]


@given(st.lists(PAIRS, max_size=12), st.integers(1, 4), st.randoms(use_true_random=False))
def test_workers_add_up_to_what_one_alone_would_have(
    pairs: list[Pair], workers: int, random: object
) -> None:
    parts = [tally(pairs[n::workers]) for n in range(workers)]
    parts.reverse()

    assert merge(parts) == tally(pairs, workers)


@given(st.lists(st.tuples(st.lists(PAIRS, max_size=4), LEDGERS, COSTS), min_size=3, max_size=3))
def test_in_whatever_order_tallies_are_merged_the_sum_is_the_same(
    parts: list[tuple[list[Pair], Ledger, Cost]],
) -> None:
    tallies = [tally(pairs) for pairs, _, _ in parts]
    for made, (_, ledger, cost) in zip(tallies, parts, strict=True):
        made.ledger, made.cost = ledger, cost
    before = msgspec.json.encode(tallies)
    one, two, three = tallies

    total = merge(tallies)

    assert merge([merge([one, two]), three]) == total
    assert merge([one, merge([two, three])]) == total
    assert merge([three, one, two]) == total
    assert msgspec.json.encode(tallies) == before
    assert msgspec.json.decode(msgspec.json.encode(total), type=Tally) == total


def test_a_sum_shares_nothing_with_what_it_was_made_of() -> None:
    one = tally()
    add_one(one, Outcome("json", fields=("/a",)))
    before = msgspec.json.encode(one)

    add_one(merge([one]), Outcome("json", fields=("/a",)))

    assert msgspec.json.encode(one) == before


def test_tallies_of_two_tests_are_not_merged() -> None:
    other = Tally("m", "v2", "ba9876543210", 0.0)

    with pytest.raises(ValueError, match="one shadow test"):
        merge([tally(), other])
    with pytest.raises(ValueError, match="one shadow test"):
        merge([])


def test_a_pair_counts_once_wherever_it_counts() -> None:
    made = tally()
    outcome = Outcome(
        "json",
        fields=("/a", "/a", "/b"),
        measures={"tokens.primary": 5.0, "broken": nan, "endless": inf, "huge": 1e200},
        labels=("cat", "dog"),
        probabilities=(1.0, 0.5),
    )
    noise = Outcome("json", fields=("/b",))
    add(made, Pair("v1", "acme", ("gold",), 125.0, answer(), answer(500, 0.02), outcome, noise))
    add_failure(made, primary_version="v1", primary_status=200)
    add_failure(made, primary_version="v1", primary_status=503)
    pairs = made.pairs["v1"]

    assert (pairs.number, pairs.agreed, pairs.answers) == (1, 0, 3)
    assert (pairs.primary_errors, pairs.shadow_errors, pairs.both_errors) == (0, 2, 1)
    assert {name: (one.raw, one.noise, one.both) for name, one in pairs.fields.items()} == {
        "/a": (1, 0, 0),
        "/b": (1, 1, 1),
    }
    assert (pairs.control.number, pairs.control.shadow, pairs.control.control) == (1, 1, 1)
    assert (pairs.control.shadow_only, pairs.control.control_only) == (0, 0)
    assert list(pairs.measures) == ["tokens.primary", "broken", "endless", "huge"]
    assert pairs.measures["broken"].number == 0
    assert pairs.measures["huge"].number == 0
    assert pairs.confusion == {"cat": {"dog": 1}}
    assert list(pairs.calibration) == [9]
    assert pairs.tenants == {"acme": Share(1, 0)}
    assert pairs.segments == {"gold": Share(1, 0)}
    assert pairs.timeline == {2: Share(1, 0)}
    assert made.until_s == 125.0


def test_every_row_of_a_classification_counts() -> None:
    made = tally()
    rows = ((("cat", "dog"), (0.15, 0.25)), (("dog", "dog"), None))
    add_one(made, Outcome("classification", labels=("cat", "cat"), rows=rows))
    pairs = made.pairs["v1"]

    assert pairs.confusion == {"cat": {"cat": 1, "dog": 1}, "dog": {"dog": 1}}
    assert {tenth: one.number for tenth, one in pairs.calibration.items()} == {1: 1}


def test_what_could_not_be_compared_is_no_pair_but_has_statuses_and_times() -> None:
    pairs = add_one(tally(), Outcome("json", uncompared=Uncompared.BUDGET))

    assert (pairs.number, pairs.answers, pairs.primary_latency.number) == (0, 1, 1)
    assert not pairs.tenants
    assert not pairs.timeline


def test_a_control_that_could_not_be_compared_is_none() -> None:
    made = tally()
    no = Outcome("json", uncompared=Uncompared.SIZE)
    add(made, Pair("v1", "", (), 0.0, answer(), answer(), Outcome("json"), no))

    assert made.pairs["v1"].control.number == 0


def test_no_table_grows_for_ever() -> None:
    made = tally()
    many = 1200
    for n in range(many):
        outcome = Outcome(
            "json",
            fields=(f"/{n}", f"/{n}/more", "/" + "x" * 1000 + str(n)),
            measures={f"m{n}": 1.0},
            labels=("one" if n % 2 else str(n), str(n)),
        )
        add(made, Pair("v1", f"t{n}", (f"s{n}",), 60.0 * n, answer(), answer(), outcome, outcome))
        add_failure(made, primary_version=f"w{n}", primary_status=200)
    pairs = made.pairs["v1"]

    assert len(made.pairs) == MAX_VERSIONS + 1
    assert len(pairs.fields) == MAX_FIELDS + 1
    assert max(map(len, pairs.fields)) == MAX_NAME
    assert max(one.raw for one in pairs.fields.values()) <= many
    assert len(pairs.measures) == MAX_MEASURES + 1
    assert len(pairs.tenants) == MAX_TENANTS + 1
    assert pairs.tenants[OTHER].number == many - MAX_TENANTS
    assert len(pairs.segments) == MAX_SEGMENTS + 1
    assert len(pairs.confusion) == MAX_LABELS + 1
    assert max(map(len, pairs.confusion.values())) == MAX_LABELS + 1
    assert len(pairs.timeline) <= 700


def test_what_is_known_to_a_full_table_still_counts_by_its_name() -> None:
    made = tally()
    for n in range(MAX_TENANTS + 10):
        add_one(made, Outcome("json"), tenant=f"t{n}")

    assert add_one(made, Outcome("json"), tenant="t3").tenants["t3"].number == 2


def test_a_long_timeline_loses_detail_and_no_pair() -> None:
    made = tally()
    for n in range(2000):
        add_one(made, Outcome("json"), at_s=60.0 * n)
    for n in range(800):
        add_one(made, Outcome("json"), at_s=86_400.0 * n)
    timeline = made.pairs["v1"].timeline

    assert sum(share.number for share in timeline.values()) == 2800
    assert len(timeline) < 150
    assert max(timeline) == 1440 * 799


@given(st.lists(st.integers(0, 400_000), max_size=30), st.lists(st.booleans(), min_size=30))
def test_a_timeline_folds_to_the_same_in_whatever_order(
    minutes: list[int], is_first: list[bool]
) -> None:
    one, two, alone = tally(), tally(), tally()
    for minute, first in zip(minutes, is_first, strict=False):
        add_one(one if first else two, Outcome("json"), at_s=60.0 * minute)
        add_one(alone, Outcome("json"), at_s=60.0 * minute)
    total, same = merge([one, two]), merge([alone])

    assert {name: of.timeline for name, of in total.pairs.items()} == {
        name: of.timeline for name, of in same.pairs.items()
    }


def test_sums_of_many_workers_do_not_grow_for_ever_in_whatever_order() -> None:
    parts = [tally() for _ in range(6)]
    for n, part in enumerate(parts):
        for k in range(n * 300, n * 300 + 500):
            add_one(part, Outcome("json", fields=(f"/{k}",)), tenant=f"t{k}")
            part.ledger.tenants[f"t{k}"] = Share(1, 1)
            part.cost.price[f"t{k}/2026-11-23"] = 1.0
    with patch("sidecar.shadow.tally.MERGED", 1), patch("sidecar.shadow.tally.MAX_PRICES", 700):
        total = merge(parts)
        other = merge([merge(parts[3:]), merge(reversed(parts[:3]))])

    assert total == other
    assert len(total.pairs["v1"].tenants) == len(total.ledger.tenants) == MAX_TENANTS + 1
    assert len(total.pairs["v1"].fields) == MAX_FIELDS + 1
    assert sum(share.number for share in total.ledger.tenants.values()) == 3000
    assert len(total.cost.price) == 701
    assert sum(total.cost.price.values()) == 3000


@given(st.floats(0, 1e5))
def test_a_time_lies_in_its_bucket(seconds: float) -> None:
    histogram = Histogram()
    note(histogram, seconds)
    (bucket,) = histogram.buckets

    assert edge(bucket) * (1 - 1e-9) <= seconds <= edge(bucket + 1) * (1 + 1e-9)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, nan, inf, 1e300])
def test_what_is_hardly_a_time_breaks_nothing(seconds: float) -> None:
    histogram = Histogram()
    note(histogram, seconds)

    assert histogram.number == sum(histogram.buckets.values()) == 1
    assert msgspec.json.decode(msgspec.json.encode(histogram), type=Histogram) == histogram


def test_a_quantile_is_estimated_within_its_bucket() -> None:
    histogram = Histogram()
    for n in range(1, 1001):
        note(histogram, n / 1000)

    for q in (0.5, 0.95, 0.99):
        seen = estimate(histogram, q)
        assert seen is not None
        assert isclose(seen, q, rel_tol=0.03)
    assert estimate(Histogram(), 0.5) is None
