"""The expositions of workers become one that adds up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.decision import Decision
from sidecar.telemetry.merge import merge
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
