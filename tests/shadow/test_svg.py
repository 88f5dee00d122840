"""Plots are whole SVG files that stand alone, whatever is in the report."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.shadow import FieldTally, Histogram, Pairs, Share, Tally
from sidecar.shadow.canvas import WIDTH, Page, Scale
from sidecar.shadow.report import make_report
from sidecar.shadow.svg import plots
from tests.shadow.tallies import HOSTILE, PLAIN, SHADOW, planted

if TYPE_CHECKING:
    from sidecar.model.policy import Shadow

SVG = "{http://www.w3.org/2000/svg}"


def drawn(shadow: Shadow = SHADOW) -> dict[str, str]:
    tally = planted(shadow={"/a": 0.02, HOSTILE: 0.5}, noise={HOSTILE: 0.5})
    return plots(make_report(tally, shadow))


def of(pairs: Pairs) -> dict[str, str]:
    return plots(make_report(Tally("m", "v2", "t", 0.0, pairs={"v1": pairs}), PLAIN))


def parsed(svg: str) -> ET.Element:
    """The file, if it is one, and all of it is on the page."""
    root = ET.fromstring(svg)  # noqa: S314  # our own files
    height = float(root.attrib["height"])
    assert root.tag == f"{SVG}svg"
    for element in root.iter():
        for point in element.get("points", "").split():
            x, y = map(float, point.split(","))
            assert_inside(x, y, height)
        if element.tag in {f"{SVG}text", f"{SVG}rect"}:
            assert_inside(float(element.attrib["x"]), float(element.attrib["y"]), height)
        if element.tag == f"{SVG}circle":
            assert_inside(float(element.attrib["cx"]), float(element.attrib["cy"]), height)
    return root


def assert_inside(x: float, y: float, height: float) -> None:
    assert 0 <= x <= WIDTH
    assert 0 <= y <= height


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_there_is_a_plot_of_agreement_latency_and_fields() -> None:
    made = drawn()

    assert list(made) == ["agreement-1.svg", "latency-1.svg", "fields-1.svg"]
    for svg in made.values():
        root = parsed(svg)
        assert root.find(f"{SVG}title") is not None
        assert "prefers-color-scheme:dark" in svg


def test_the_same_report_makes_the_same_files() -> None:
    assert drawn() == drawn()


def test_nothing_foreign_is_markup() -> None:
    for svg in drawn().values():
        root = parsed(svg)
        tags = {element.tag.removeprefix(SVG) for element in root.iter()}
        assert tags <= {"svg", "title", "style", "rect", "text", "polyline", "polygon", "circle"}
        assert svg.encode()
    assert any("script" in text for text in texts(parsed(drawn()["fields-1.svg"])))


def test_fields_are_rows_with_their_rates() -> None:
    words = texts(parsed(drawn()["fields-1.svg"]))

    assert "/a" in words
    assert any(re.fullmatch(r"[\d.]+% raw, \+[\d.]+ pp net", text) for text in words)


def test_agreement_shows_the_bound_that_is_asked_for() -> None:
    tally = planted(shadow={"/a": 0.02})
    words = texts(parsed(plots(make_report(tally, PLAIN))["agreement-1.svg"]))

    assert "at least 99%" in words
    assert "100%" in words


def test_latencies_of_both_sides_are_drawn_as_histogram_and_sum() -> None:
    root = parsed(drawn()["latency-1.svg"])
    lines = [line.get("class") for line in root.iter(f"{SVG}polyline")]

    assert lines.count("one") == lines.count("two") == 2
    assert "client's" in texts(root)
    assert any(text.endswith(" ms") for text in texts(root))


def test_without_pairs_there_are_no_plots() -> None:
    assert of(Pairs()) == {}


@given(
    st.dictionaries(st.integers(0, 640), st.integers(1, 10**9), min_size=1, max_size=8),
    st.dictionaries(st.integers(0, 640), st.integers(1, 10**9), min_size=1, max_size=8),
)
def test_any_latencies_can_be_drawn(first: dict[int, int], second: dict[int, int]) -> None:
    sides = [Histogram(sum(one.values()), 1.0, one) for one in (first, second)]

    assert parsed(of(Pairs(primary_latency=sides[0], shadow_latency=sides[1]))["latency-1.svg"])


@given(
    st.dictionaries(
        st.integers(0, 10**8),
        st.integers(1, 10**6).flatmap(lambda n: st.builds(Share, st.just(n), st.integers(0, n))),
        min_size=1,
        max_size=8,
    )
)
def test_any_timeline_can_be_drawn(timeline: dict[int, Share]) -> None:
    assert parsed(of(Pairs(timeline=timeline))["agreement-1.svg"])


@given(st.dictionaries(st.text(), st.integers(0, 1000), min_size=1, max_size=30))
def test_any_fields_can_be_drawn(fields: dict[str, int]) -> None:
    rows = {name: FieldTally(raw) for name, raw in fields.items()}

    assert parsed(of(Pairs(number=1000, fields=rows))["fields-1.svg"])


@given(st.text())
def test_any_text_can_be_written(words: str) -> None:
    page = Page(100, words)
    page.text((5, 5), words)

    assert parsed(page.end()) is not None


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.985, 1), (0, 3e-5), (-0.2, 0.31), (2, 2)])
def test_marks_of_a_scale_are_few_and_on_it(low: float, high: float) -> None:
    ticks = Scale(low, high, 0, 100).ticks(5)

    assert 1 <= len(ticks) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
