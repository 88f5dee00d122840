"""A report can be read by people, and nothing foreign in it is markup."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.comparison import Comparison, Thresholds
from sidecar.model.policy import Shadow
from sidecar.model.shadow import Ledger, Pairs, Share, Tally
from sidecar.shadow.markdown import render, text
from sidecar.shadow.report import make_report, plot_name
from tests.shadow.tallies import HOSTILE, PLAIN, SHADOW, planted

GOLDEN = Path(__file__).parent / "golden" / "report.md"
CELLS = re.compile(r"(?<!\\)\|")


def page(plots: tuple[str, ...] = ()) -> str:
    tally = planted(shadow={"/a": 0.02, HOSTILE: 1.0}, noise={HOSTILE: 1.0})
    return render(make_report(tally, SHADOW, "USD"), plots)


def tables(of: str) -> list[list[str]]:
    """The lines of each table."""
    found: list[list[str]] = [[]]
    for line in of.splitlines():
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_every_row_of_every_table_has_the_cells_of_its_head() -> None:
    found = tables(page())

    assert len(found) == 16
    for table in found:
        widths = {len(CELLS.split(line)) for line in table}
        assert len(widths) == 1
        assert set(table[1]) <= set("|-: ")


def test_nothing_foreign_is_markup() -> None:
    told = page()

    assert "script" in told
    assert "<" not in told.replace(r"\<", "")
    assert "\x00" not in told
    assert "\ud800" not in told
    assert told.encode()
    assert "\n# &" not in told


@given(st.text(max_size=300))
def test_any_text_fits_into_a_cell(foreign: str) -> None:
    cell = text(foreign)

    assert cell
    assert cell.isprintable()
    assert len(CELLS.split(re.sub(r"\\\\", "", cell))) == 1
    assert cell.encode()


def test_a_day_that_is_none_is_no_markup() -> None:
    tally = planted()
    tally.cost.price = {"acme/<b>|\x1b[2J\x9b": 1.0, "acme/2026-11-23": 2.0}

    made = render(make_report(tally, PLAIN, "USD"))

    assert "| 2026-11-23 | acme | 2.0000 |" in made
    assert "| \\<b\\>\\|\\\\u001b\\[2J\\\\u009b | acme | 1.0000 |" in made


def test_a_page_says_what_it_is_about_and_what_was_left_out() -> None:
    told = page()

    assert told.startswith("# Shadow test of tumor v2\n\n**FAIL**: against v1 error increase is ")
    assert "About 100% of the bodies of 1 MiB and more were not copied" in told
    assert "| skipped: size | 750 | 8.3% |" in told
    assert "25% of the requests should be drawn; 2,250 of 9,000 were, which fits" in told
    assert "| 1 MiB to 2 MiB | 3,000 | 0 | 0% |" in told


def test_a_page_has_raw_noise_and_net() -> None:
    told = page()

    assert "| raw | 1,485 | 0% | 0% to " in told
    assert "| noise: the control disagrees | 1,485 | 100% | " in told
    assert "| net of noise | 1,485 | 100% | " in told
    assert "Noise is not counted by row: agreement is raw." in told


def test_a_page_without_a_control_has_no_noise() -> None:
    told = render(make_report(planted(200, {"/a": 0.1}), PLAIN))

    assert "noise" not in told
    assert "| field | pairs | raw | interval |\n" in told


def test_a_page_shows_the_plots_that_there_are() -> None:
    names = (plot_name("agreement", 1), plot_name("fields", 1))
    told = page(names)

    assert all(f"]({name})" in told for name in names)
    assert "latency-1.svg" not in told
    assert ".svg" not in page()


def test_a_test_without_a_pair_has_a_page() -> None:
    told = render(make_report(Tally("m", "v2", "t", 0.0), PLAIN))

    assert "**INCONCLUSIVE**: 0 answers of the 1,000 that it needs." in told
    assert "No request was eligible yet." in told


def test_a_test_that_nobody_has_told_of_has_no_dates() -> None:
    told = render(make_report(Tally("m", "v2", "t", 0.0, workers=0), PLAIN))

    assert "- No sidecar has told of copies yet; test t\n" in told
    assert "1970" not in told


def test_a_page_tells_of_a_cap_and_of_a_price_that_nothing_counts_towards() -> None:
    capped = msgspec.structs.replace(PLAIN, cost_per_day=20.0)
    tally = planted(200)

    assert "USD; at most 20.00 a day\n" in render(make_report(tally, capped, "USD"))
    tally.cost.price.clear()
    told = render(make_report(tally, capped, "EUR"))
    assert "- The shadow's answers: 0.00 EUR; at most 20.00 a day\n" in told
    assert "**Nothing counts towards the price**" in told
    assert "The shadow's answers" not in render(make_report(tally, PLAIN))


def test_growth_of_errors_is_told_in_points() -> None:
    told = page()

    assert "against v1 error increase is +1.06 pp to " in told
    assert re.search(r"\| error increase \| at most \+1 pp \| \+\S+ pp \| ", told)


def test_a_small_test_is_told_to_the_letter() -> None:
    ledger = Ledger(100, mirrored=100, compared=100, sizes={1: Share(100, 100)})
    pairs = Pairs(number=100, agreed=98, answers=100, tenants={"acme": Share(100, 98)})
    tally = Tally("m", "v2", "0123456789ab", 0.0, 60.0, ledger, {"v1": pairs})
    asked = Thresholds(agreement=0.9, error_increase=None, min_pairs=100)

    assert (
        render(make_report(tally, Shadow("v2", compare=Comparison(thresholds=asked))))
        == GOLDEN.read_text()
    )


@pytest.mark.parametrize("broken", [Ledger(10, 0, 5), Ledger(1, 0, 1, 2)])
def test_a_ledger_that_does_not_add_up_is_told_on_the_page(broken: Ledger) -> None:
    told = render(make_report(Tally("m", "v2", "t", 0.0, ledger=broken), PLAIN))

    assert "**The ledger does not add up**" in told
