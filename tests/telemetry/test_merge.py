"""The expositions of workers become one that adds up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.model.decision import Decision
from sidecar.telemetry.merge import Ledger, merge
from sidecar.telemetry.metrics import Metrics
from tests.telemetry.prometheus import Exposition
from tests.telemetry.records import record

if TYPE_CHECKING:
    from sidecar.model.record import ExchangeRecord

MODELS = st.sampled_from(["a", "b", 'q"\\\n', "line\x85\u2028\x0b", "two words"])
RECORDS = st.builds(
    lambda model, duration_s: record(decision=Decision(model, "v", "D", 1), duration_s=duration_s),
    MODELS,
    st.sampled_from([0.0001, 0.01, 1.0, 100.0]),
)


def exposition(*models: str, **gauges: float) -> str:
    metrics = Metrics()
    metrics.observe([record(decision=Decision(model, "v", "D", 1)) for model in models])
    metrics.gauges.update(gauges)
    return metrics.exposition()


def test_merging_one_changes_nothing() -> None:
    text = exposition("a", "b", rmv_connections=3)

    assert Exposition(merge([text])) == Exposition(text)


def test_merging_none_is_empty() -> None:
    assert merge([]).strip() == merge(["", "\n"]).strip() == ""


@given(workers=st.lists(st.lists(RECORDS, max_size=5), min_size=1, max_size=4))
def test_every_sample_is_the_sum_over_the_workers(workers: list[list[ExchangeRecord]]) -> None:
    texts = []
    for records in workers:
        metrics = Metrics()
        metrics.observe(records)
        texts.append(metrics.exposition())

    merged = Exposition(merge(texts))

    merged.check_histograms()
    sums: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for text in texts:
        for one in Exposition(text):
            sums[one.name, one.labels] = sums.get((one.name, one.labels), 0) + one.value
    assert {(one.name, one.labels): one.value for one in merged} == pytest.approx(sums, abs=1e-5)


def test_what_only_a_later_worker_counts_joins_its_family() -> None:
    merged = Exposition(merge([exposition("a"), exposition("a", "b")]))

    assert merged.value("rmv_requests_total", model="a") == 2
    assert merged.value("rmv_requests_total", model="b") == 1


def test_shared_gauges_are_not_added_up() -> None:
    texts = [
        exposition(rmv_connections=2, rmv_policies=5),
        exposition(rmv_connections=3, rmv_policies=4),
    ]

    merged = Exposition(merge(texts, shared={"rmv_policies"}))

    assert merged.value("rmv_connections") == 5
    assert merged.value("rmv_policies") == 5


def test_a_shared_gauge_with_labels_is_not_added_up() -> None:
    texts = []
    for value in (1, 0, 1):
        metrics = Metrics()
        metrics.levels["rmv_up", "endpoint", "http://a"] = value
        texts.append(metrics.exposition())

    assert Exposition(merge(texts, shared={"rmv_up"})).value("rmv_up", endpoint="http://a") == 1


@settings(max_examples=30)
@given(steps=st.lists(st.tuples(st.sampled_from("abc"), RECORDS | st.none()), max_size=8))
def test_a_ledger_never_counts_down_whoever_ends(
    steps: list[tuple[str, ExchangeRecord | None]],
) -> None:
    ledger, everything = Ledger(), Metrics()
    workers: dict[str, Metrics] = {}
    seen: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for worker, one in [("a", record()), *steps]:
        if one is None:
            ledger.close(worker)
            workers.pop(worker, None)
        else:
            everything.observe([one])
            workers.setdefault(worker, Metrics()).observe([one])
            ledger.note(worker, workers[worker].exposition())
        told = Exposition(ledger.exposition(workers))
        now = {(one.name, one.labels): one.value for one in told}
        assert all(now[key] >= value - 1e-6 for key, value in seen.items())
        seen = now

    wanted = Exposition(everything.exposition())
    assert seen == pytest.approx({(one.name, one.labels): one.value for one in wanted}, abs=1e-4)


def test_a_last_word_counts_instead_of_what_was_read_before() -> None:
    ledger = Ledger()
    ledger.note("w", exposition("a"))

    ledger.close("w", exposition("a", "a", "b"))

    told = Exposition(ledger.exposition([]))
    assert told.value("rmv_requests_total", model="a") == 2
    assert told.value("rmv_requests_total", model="b") == 1


def test_gauges_of_those_who_do_not_answer_are_not_kept() -> None:
    ledger = Ledger()
    ledger.note("up", exposition("a", rmv_connections=2))
    ledger.note("silent", exposition("a", rmv_connections=3))
    ledger.note("gone", exposition("a", rmv_connections=4))
    ledger.close("gone")

    told = Exposition(ledger.exposition(["up"]))

    assert told.value("rmv_connections") == 2
    assert told.value("rmv_requests_total", model="a") == 3


def test_past_its_bound_a_ledger_counts_what_is_new_as_other() -> None:
    ledger = Ledger(max_lines=1)
    for worker in range(50):
        ledger.close("w", exposition("a", f'm"{worker}', f"n{worker}"))

    told = Exposition(ledger.exposition([]))

    told.check_histograms()
    assert told.value("rmv_requests_total", model="a") == 50
    assert told.value("rmv_requests_total", model='m"0') == 1
    assert told.value("rmv_requests_total", model="other", version="other") == 98
    assert len(told.find("rmv_requests_total")) == 4
