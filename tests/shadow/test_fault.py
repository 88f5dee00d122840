"""A tally that nobody can have counted is told, before a report of it is made."""

from __future__ import annotations

from unittest.mock import patch

import msgspec
import pytest

from sidecar.model.shadow import OTHER, Control, FieldTally, Ledger, Pairs, Share, Tally
from sidecar.shadow.fault import fault
from sidecar.shadow.report import make_report
from sidecar.shadow.tally import merge
from tests.shadow.tallies import HOSTILE, PLAIN, SHADOW, planted

NAMES = [[f"/{side}{n}" for n in range(20)] for side in "ab"]
FALSE = [
    (Ledger(1, 2), Pairs(), "sampled_out has 2 of 1"),
    (Ledger(sizes={3: Share(1, 2)}), Pairs(), "ledger.sizes.3 has 2 of 1"),
    (Ledger(tenants={"a": Share(1, 2)}), Pairs(), "ledger.tenants.a has 2 of 1"),
    (Ledger(), Pairs(number=1, agreed=2), "agreed has 2 of 1"),
    (Ledger(), Pairs(answers=2, primary_errors=2, both_errors=1), "errors has 3 of 2"),
    (Ledger(), Pairs(control=Control(1, 2)), "control has 2 of 1"),
    (Ledger(), Pairs(control=Control(1, 1, 1, 1, 1)), "control.one has 2 of 1"),
    (Ledger(), Pairs(tenants={"a": Share(1, 2)}), "tenants.a has 2 of 1"),
    (Ledger(), Pairs(segments={"a": Share(1, 2)}), "segments.a has 2 of 1"),
    (Ledger(), Pairs(timeline={7: Share(1, 2)}), "timeline.7 has 2 of 1"),
    (Ledger(), Pairs(fields={"/a": FieldTally(1)}), "fields./a.raw has 1 of 0"),
    (Ledger(), Pairs(fields={"/a": FieldTally(0, 1)}), "fields./a has 1 of 0"),
    (Ledger(), Pairs(fields={"/a": FieldTally(0, 1, 0, 1)}), "fields./a.both has 1 of 0"),
]


@pytest.mark.parametrize(("ledger", "pairs", "why"), FALSE)
def test_a_part_that_is_more_than_the_whole_is_told(ledger: Ledger, pairs: Pairs, why: str) -> None:
    assert fault(Tally("m", "v2", "t", 0.0, ledger=ledger, pairs={"v1": pairs})) == why


def test_what_was_counted_is_true_and_so_are_its_sums() -> None:
    one = planted(300, {"/a": 0.5, HOSTILE: 0.3}, {"/a": 0.5, "/b": 0.3})

    assert fault(one) == ""
    assert fault(merge([one, planted(100), one])) == ""


def test_sums_that_were_cut_are_true_and_can_be_reported() -> None:
    parts = [planted(50, dict.fromkeys(names, 1.0), dict.fromkeys(names, 0.9)) for names in NAMES]
    with patch.multiple("sidecar.shadow.tally", MERGED=1, MAX_FIELDS=4):
        total = merge(parts)
    pairs = total.pairs["v1"]

    assert pairs.fields[OTHER].raw > pairs.number
    assert fault(total) == ""
    (one,) = make_report(total, SHADOW).against
    other = next(row for row in one.fields if row.name == OTHER)
    assert other.raw.estimate == 1
    assert other.net is not None
    assert other.net.estimate == 0


@pytest.mark.parametrize(("ledger", "pairs", "_why"), FALSE)
def test_all_that_a_report_would_refuse_is_told(ledger: Ledger, pairs: Pairs, _why: str) -> None:
    tally = Tally("m", "v2", "t", 0.0, ledger=ledger, pairs={"v1": pairs})
    try:
        assert msgspec.json.encode(make_report(tally, PLAIN))
        assert msgspec.json.encode(make_report(tally, SHADOW))
    except ValueError:
        assert fault(tally)
