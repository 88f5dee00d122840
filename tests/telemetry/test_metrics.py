"""What is counted, and that Prometheus can read it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.decision import Decision
from sidecar.telemetry.metrics import MAX_SERIES, Metrics
from tests.telemetry.prometheus import Exposition
from tests.telemetry.records import record

DURATIONS = st.floats(0, 200, allow_nan=False)


def test_nothing_counted_is_a_text_all_the_same() -> None:
    assert Exposition(Metrics().exposition()) == []


def test_exchanges_are_counted_by_decision_status_and_code() -> None:
    metrics = Metrics()

    metrics.observe([record(), record(), record(status=502, code="upstream-failed")])

    text = Exposition(metrics.exposition())
    same = {"model": "m", "version": "v1", "reason": "SPLIT"}
    assert text.value("rmv_requests_total", **same, status="200", code="") == 2
    assert text.value("rmv_requests_total", **same, status="502", code="upstream-failed") == 1


def test_a_reason_is_counted_without_what_follows_it() -> None:
    metrics = Metrics()

    metrics.observe(
        [record(decision=Decision("m", "v1", f"RULE:{rule}", 1)) for rule in ("a", "b")]
    )

    assert Exposition(metrics.exposition()).value("rmv_requests_total", reason="RULE") == 2


@pytest.mark.parametrize(
    ("name", "observed"),
    [("rmv_request_duration_seconds", "duration_s"), ("rmv_first_byte_seconds", "first_byte_s")],
)
@given(durations=st.lists(DURATIONS, min_size=1))
def test_histograms_are_cumulative_and_agree_with_what_was_observed(
    name: str, observed: str, durations: list[float]
) -> None:
    metrics = Metrics()

    metrics.observe([record(**{observed: one}) for one in durations])

    text = Exposition(metrics.exposition())
    assert text.check_histograms() == 2
    assert {one.label("version") for one in text.find(f"{name}_count")} == {"v1"}
    assert text.value(f"{name}_count") == len(durations)
    assert text.value(f"{name}_sum") == pytest.approx(sum(durations), abs=1e-5)
    for bucket in text.find(f"{name}_bucket"):
        bound = float(bucket.label("le"))
        below = sum(one < bound * 0.999_99 for one in durations)
        near = sum(one <= bound * 1.000_01 for one in durations)
        assert below <= bucket.value <= near


def test_an_exchange_without_a_response_has_no_first_byte() -> None:
    metrics = Metrics()

    metrics.observe([record(first_byte_s=-1.0)])

    text = Exposition(metrics.exposition())
    assert text.value("rmv_first_byte_seconds_count") == 0
    assert text.value("rmv_request_duration_seconds_count") == 1


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "\\n", "\\", '"', "é\x85\u2028", "a b"])
def test_label_values_read_as_they_were(value: str) -> None:
    metrics = Metrics()

    metrics.count("rmv_odd_total", "label", value)
    metrics.observe([record(decision=Decision(value, "v1", "DEFAULT", 1))])

    text = Exposition(metrics.exposition())
    assert text.value("rmv_odd_total", label=value) == 1
    assert len(text.find("rmv_requests_total", model=value)) == 1


def test_counters_and_gauges_are_told_with_their_type() -> None:
    metrics = Metrics()

    metrics.count("rmv_plain_total")
    metrics.count("rmv_labelled_total", "a", "1")
    metrics.count("rmv_labelled_total", "a", "2")
    metrics.count("rmv_labelled_total", "a", "2")
    metrics.gauges["rmv_level"] = 1.5
    metrics.levels["rmv_labelled_level", "a", "1"] = 0
    metrics.levels["rmv_labelled_level", "a", "2"] = 2.5

    text = Exposition(metrics.exposition())
    assert text.types["rmv_plain_total"] == text.types["rmv_labelled_total"] == "counter"
    assert text.types["rmv_level"] == "gauge"
    assert text.value("rmv_plain_total") == 1
    assert text.value("rmv_labelled_total", a="2") == 2
    assert text.value("rmv_level") == 1.5
    assert text.types["rmv_labelled_level"] == "gauge"
    assert text.value("rmv_labelled_level", a="2") == 2.5


def test_series_are_bounded_and_no_exchange_is_lost() -> None:
    metrics = Metrics()

    metrics.observe(
        [record(decision=Decision(f"m{n}", "v", "D", 1)) for n in range(MAX_SERIES + 20)]
    )

    counts = re.findall(r'^rmv_requests_total\{model="(\w+)".* (\d+)$', metrics.exposition(), re.M)
    assert len(counts) == MAX_SERIES + 1
    assert dict(counts)["other"] == "20"
    assert {number for model, number in counts if model != "other"} == {"1"}
