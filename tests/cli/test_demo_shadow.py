"""The demo finds fault with a shadow report that is not what its models say."""

from __future__ import annotations

import pytest

from sidecar.cli.demo import shadow as shadows
from sidecar.cli.demo.checkout import Trained
from sidecar.cli.demo.shadow import compute, find_faults, find_gaps, read_report, show
from sidecar.model.comparison import Comparison, Kind
from sidecar.model.policy import Policy, Shadow, Version
from sidecar.model.shadow import Answer, Outcome, Tally, Uncompared
from sidecar.shadow.naming import test_of as digest_of
from sidecar.shadow.report import Report, make_report
from sidecar.shadow.tally import add_pair
from sidecar.store.memory import MemoryStore

V1 = Trained("logistic", 0.98, expected=(0.25, 0.75, 0.5))
V3 = Trained("logistic", 0.94, expected=(0.125, 0.375, 0.5))
ROWS = (0, 0, 1, 2)
SHADOW = Shadow("v3", compare=Comparison(kind=Kind.CLASSIFICATION, label="/label"))
POLICY = Policy(
    "tumor",
    {name: Version((f"http://127.0.0.1:900{name[1]}",)) for name in ("v1", "v3")},
    default="v1",
    shadows=(SHADOW,),
)
ANSWER = Answer(200, (), b"{}", first_byte_s=0.001, duration_s=0.002)


def counted(*outcomes: Outcome, version: str = "v1") -> Tally:
    """Return what a worker counts of such pairs."""
    tally = Tally("tumor", "v3", digest_of(POLICY, SHADOW), since_s=0.0)
    ledger = tally.ledger
    for outcome in outcomes:
        add_pair(
            tally,
            primary_version=version,
            tenant="acme",
            segments=(),
            at_s=60.0,
            primary=ANSWER,
            shadow=ANSWER,
            outcome=outcome,
        )
        ledger.eligible += 1
        ledger.mirrored += 1
        if outcome.uncompared is None:
            ledger.compared += 1
        else:
            cause = outcome.uncompared.value
            ledger.uncompared[cause] = ledger.uncompared.get(cause, 0) + 1
    return tally


def pair(mine: str, theirs: str, apart: float) -> Outcome:
    fields = () if mine == theirs else ("label",)
    measures = {"probability_error": apart}
    return Outcome("classification", fields=fields, measures=measures, labels=(mine, theirs))


TRUE = (
    pair("benign", "benign", 0.125),
    pair("benign", "benign", 0.125),
    pair("malignant", "benign", 0.375),
    pair("malignant", "malignant", 0.0),
)


def report(*outcomes: Outcome, version: str = "v1") -> Report:
    return make_report(counted(*outcomes, version=version), SHADOW)


def faults(made: Report) -> list[str]:
    return list(find_faults(made, {"v1": compute(ROWS, V1, V3)}))


def test_a_report_that_says_what_the_models_say_has_no_fault() -> None:
    made = report(*TRUE)

    assert faults(made) == []
    assert list(find_gaps(made, copies=4)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        report(*TRUE[:-1]),
        report(*TRUE, TRUE[0]),
        report(*TRUE[:-1], pair("benign", "benign", 0.0)),
        report(*TRUE[:-1], pair("malignant", "malignant", 0.0001)),
        report(*TRUE[:2], pair("benign", "malignant", 0.375), TRUE[3]),
        report(*(Outcome("classification", fields=one.fields) for one in TRUE)),
        report(*TRUE, version="v2"),
    ],
    ids=["one less", "one twice", "a label", "a shift", "sides", "no labels", "whose answers"],
)
def test_a_report_that_says_something_else_has_a_fault(wrong: Report) -> None:
    assert faults(wrong)


def test_a_fault_tells_both_sides() -> None:
    assert faults(report(*TRUE[:-1])) == [
        "v1: 3 of 4 agree (benign/benign 2, malignant/benign 1, malignant/malignant 1), "
        "mean shift 0.15625 computed",
        "    2 of 3 agree (benign/benign 2, malignant/benign 1), "
        "mean shift 0.20833333333333334 in the report",
    ]


def test_copies_that_are_missing_or_not_compared_are_gaps() -> None:
    made = report(*TRUE, Outcome("", uncompared=Uncompared.BUDGET))

    assert list(find_gaps(made, copies=6)) == [
        "5 requests were eligible, and 6 were served",
        "4 of 6 were compared; {} were skipped, {} failed, {'budget': 1} were not compared",
    ]


def test_it_shows_the_ledger_the_labels_and_the_verdict() -> None:
    lines = show(report(*TRUE))

    assert lines[:2] == [
        "4 eligible = 0 sampled out + 4 copied + 0 skipped",
        "4 copied = 4 compared + 0 failed + 0 uncompared + 0 under way",
    ]
    assert "v1: malignant           1              1" in lines
    assert lines[-1] == "Verdict: inconclusive. 4 answers of the 1,000 that it needs"


async def test_workers_are_summed_and_the_report_waits_for_all_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    await store.commit(POLICY, expected=None, actor="test", comment="")
    await store.put_tally(counted(*TRUE[:3]), "a/1")
    await store.put_tally(counted(*TRUE[3:]), "a/2")

    whole = await read_report(store, "tumor", "v3", copies=4)
    monkeypatch.setattr(shadows, "TOLD_S", 0.01)
    partly = await read_report(store, "tumor", "v3", copies=5)

    assert faults(whole) == []
    assert list(find_gaps(partly, copies=5))


async def test_counts_that_never_come_are_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "TOLD_S", 0.01)
    store = MemoryStore()
    await store.commit(POLICY, expected=None, actor="test", comment="")

    made = await read_report(store, "tumor", "v3", copies=4)

    assert next(find_gaps(made, copies=4)) == "0 requests were eligible, and 4 were served"
    assert faults(made) == ["v1: no pairs in the report"]
