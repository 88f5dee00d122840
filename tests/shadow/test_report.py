"""A report tells what was planted, within its intervals, and what it is not about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.comparison import Comparison, Thresholds
from sidecar.model.policy import Shadow
from sidecar.model.shadow import Calibration, Pairs, Share, Tally
from sidecar.shadow.report import MAX_BINS, MAX_ROWS, make_report
from sidecar.shadow.tally import merge
from sidecar.shadow.verdict import Finding
from tests.shadow.tallies import AT_S, HOSTILE, PLAIN, SHADOW, planted

if TYPE_CHECKING:
    from sidecar.shadow.rows import Figure

RATES = {"/score": 0.05, "/id": 1.0, "/noisy": 0.3}
NOISE = {"/id": 1.0, "/noisy": 0.3}


def test_planted_rates_lie_within_their_intervals() -> None:
    (one,) = make_report(planted(shadow={"/a": 0.08, "/b": 0.02}), PLAIN).against

    assert holds(one.agreement.raw, 0.92 * 0.98)
    assert [row.name for row in one.fields] == ["/a", "/b"]
    assert holds(one.fields[0].raw, 0.08)
    assert holds(one.fields[1].raw, 0.02)
    assert one.fields[0].net is None
    assert one.errors.answers == 1500
    assert holds(one.errors.shadow, 0.03)
    assert one.errors.increase.interval.low > 0
    assert holds(one.latency[0].ratio, 1.2)
    assert one.latency[0].ratio.interval.low > 1


def test_net_of_noise_only_what_is_planted_is_left() -> None:
    (one,) = make_report(planted(shadow=RATES, noise=NOISE), SHADOW).against
    rows = {row.name: row for row in one.fields}

    for name, net in (("/score", 0.05), ("/id", 0.0), ("/noisy", 0.0)):
        figure = rows[name].net
        assert figure is not None
        assert holds(figure, net)
    assert one.fields[0].name == "/score"  # the others are noise, and told after it
    score, noise = rows["/score"].net, rows["/score"].noise
    assert score is not None
    assert noise is not None
    assert score.interval.low > 0
    assert noise.estimate == 0
    assert one.agreement.raw.estimate == 0
    assert one.agreement.net is not None
    assert one.agreement.net.estimate == 1


def holds(figure: Figure, truth: float) -> bool:
    return figure.interval.low <= truth <= figure.interval.high


def test_labels_and_probabilities_are_told() -> None:
    (one,) = make_report(planted(1000), PLAIN).against

    assert one.labels is not None
    assert one.labels.number == 990
    assert one.labels.same.estimate == pytest.approx(900 / 990)
    assert len(one.calibration) == 10
    assert one.calibration[9].least == 0.9
    assert one.calibration[9].shift == pytest.approx(-0.095, abs=0.01)


def test_a_measure_has_a_mean_that_is_about_right() -> None:
    (one,) = make_report(planted(), PLAIN).against
    measures = {measure.name: measure for measure in one.measures}

    assert holds(measures["first_token_s.primary"].mean, 0.5)
    assert holds(measures["first_token_s.shadow"].mean, 1.0)
    assert measures["body_bytes.primary"].deviation == 0


def test_what_both_sides_measure_is_compared() -> None:
    (one,) = make_report(planted(), PLAIN).against
    shifts = {shift.name: shift for shift in one.shifts}

    assert list(shifts) == ["body_bytes", "first_token_s"]
    assert holds(shifts["first_token_s"].difference, 0.5)
    assert shifts["first_token_s"].difference.interval.low > 0
    assert holds(shifts["body_bytes"].difference, 0)


def test_time_adds_up_to_all_pairs() -> None:
    (one,) = make_report(planted(shadow={"/a": 0.1}), PLAIN).against

    assert sum(moment.number for moment in one.timeline) == one.agreement.number
    assert sum(moment.agreed for moment in one.timeline) == one.agreement.agreed
    assert one.timeline[-1].running == one.agreement.raw
    assert one.timeline[0].at_s <= AT_S


@given(st.lists(st.integers(0, 50_000_000), min_size=1, max_size=50))
def test_a_timeline_of_any_length_fits(minutes: list[int]) -> None:
    tally = Tally("m", "v2", "t", 0.0)
    tally.pairs["v1"] = Pairs(timeline={minute: Share(1, 1) for minute in minutes})
    (one,) = make_report(merge([tally]), PLAIN).against

    assert sum(moment.number for moment in one.timeline) == len(set(minutes))
    assert len(one.timeline) <= MAX_BINS + 1
    starts = [moment.at_s for moment in one.timeline]
    assert starts == sorted(set(starts))


def test_long_tables_are_cut_and_say_so() -> None:
    tally = Tally("m", "v2", "t", 0.0)
    pairs = tally.pairs["v1"] = Pairs(number=1000, agreed=900)
    pairs.tenants = {f"t{n}": Share(n, n) for n in range(MAX_ROWS + 20)}
    pairs.tenants["bad"] = Share(90, 0)
    (one,) = make_report(tally, PLAIN).against

    assert len(one.tenants) == MAX_ROWS
    assert one.tenants_left_out == 21
    assert (one.tenants[0].name, one.tenants[0].outcome) == ("bad", Finding.FAIL)
    assert one.tenants[1].number == MAX_ROWS + 19


def test_a_test_without_a_pair_can_be_reported() -> None:
    report = make_report(Tally("m", "v2", "t", 0.0), PLAIN)

    assert report.outcome is Finding.INCONCLUSIVE
    assert report.why == "0 answers of the 1,000 that it needs"
    assert report.account.words == ("No request was eligible yet.",)
    assert msgspec.json.encode(report)


def test_every_table_may_be_empty() -> None:
    tally = Tally("m", "v2", "t", 0.0, pairs={"v1": Pairs(calibration={3: Calibration()})})
    (one,) = make_report(tally, SHADOW).against

    assert (one.latency, one.fields, one.measures, one.timeline) == ((), (), (), ())
    assert (one.labels, one.calibration) == (None, ())
    assert msgspec.json.encode(one)


@pytest.mark.parametrize(
    ("shadow", "why"),
    [
        (None, "the test is over: the policy has another one of this shadow, or none"),
        (Shadow("v2"), "answers are not compared, as the shadow has no compare"),
    ],
)
def test_what_is_not_asked_for_is_not_judged(shadow: Shadow | None, why: str) -> None:
    report = make_report(planted(200), shadow)

    assert (report.outcome, report.why) == (Finding.INCONCLUSIVE, why)
    assert report.against[0].verdict.checks == ()


def test_each_serving_version_is_a_question_of_its_own() -> None:
    easy = Shadow("v2", compare=Comparison(thresholds=Thresholds(0.9, 0.1, min_pairs=500)))
    tally = merge([planted(), planted(50, {"/a": 1.0}, primary="v0")])
    tally.ledger.sampled_out, tally.ledger.eligible = 0, tally.ledger.mirrored
    report = make_report(tally, easy)

    assert [one.primary for one in report.against] == ["v1", "v0"]
    assert report.outcome is Finding.PASS
    assert report.why.startswith("against v1 agreement is ")

    bad = merge([planted(), planted(1500, {"/a": 1.0}, primary="v0")])
    assert make_report(bad, easy).outcome is Finding.FAIL


def test_a_sample_that_was_not_asked_for_cannot_pass() -> None:
    easy = Comparison(thresholds=Thresholds(0.9, 0.1, min_pairs=500))
    right, wrong = Shadow("v2", percent=25, compare=easy), Shadow("v2", percent=50, compare=easy)

    assert make_report(planted(), right).outcome is Finding.PASS
    report = make_report(planted(), wrong)
    assert report.outcome is Finding.INCONCLUSIVE
    assert report.why.endswith("which does not happen by chance")


def test_costs_are_told_by_day_and_tenant() -> None:
    expense = make_report(planted(200), PLAIN, "EUR").expense

    assert expense.copy_us == pytest.approx(200)
    assert expense.compare_us == pytest.approx(0.15 / 190 * 1e6)
    assert (expense.total, expense.currency) == (6.5, "EUR")
    assert [(row.day, row.tenant) for row in expense.prices] == [
        ("2026-11-23", "globex"),
        ("2026-11-23", "acme"),
        ("2026-11-22", "acme"),
    ]
    assert [row.quantile for row in expense.latency] == ["p50", "p95", "p99"]


def test_counts_that_cannot_be_are_refused() -> None:
    tally = Tally("m", "v2", "t", 0.0, pairs={"v1": Pairs(number=1, agreed=2)})

    with pytest.raises(ValueError, match="2 cannot be a part of 1"):
        make_report(tally, PLAIN)


def test_foreign_names_stay_as_they_are_in_json() -> None:
    (one,) = make_report(planted(200), PLAIN).against

    assert HOSTILE in [row.name for row in one.tenants]
