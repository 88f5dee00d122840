"""The plots of a report, as SVG; the same report makes the same files, byte by byte."""

from __future__ import annotations

from itertools import accumulate
from math import ceil, exp2, floor, log2, log10
from typing import TYPE_CHECKING, Final

from sidecar.model.shadow import PER_OCTAVE
from sidecar.shadow.canvas import WIDTH, Page, Scale
from sidecar.shadow.report import plot_name
from sidecar.shadow.spelling import moment, percent, plain, points, seconds

if TYPE_CHECKING:
    from sidecar.model.shadow import Histogram
    from sidecar.shadow.report import Report
    from sidecar.shadow.rows import Against, Field

_HEIGHT: Final = 320
_TOP: Final = 58
_BOTTOM: Final = 270
_LEFT: Final = 70
_RIGHT: Final = WIDTH - 24
_BUCKETS: Final = PER_OCTAVE // 4  # to a bar of the histogram: 19 % wide
_TAIL: Final = 0.002  # of the times, at either end, which would only make the rest narrow

_MAX_TITLE: Final = 24  # characters of each name that fit above
_ROW: Final = 30  # of the table of fields
_MAX_ROWS: Final = 20
_MAX_NAME: Final = 38  # characters that fit before the bars
_BARS: Final = (260, 560)


def plots(report: Report) -> dict[str, str]:
    """Return the plots by the names of their files, which the Markdown refers to.

    Of each serving version there are those that have something to show.
    """
    made: dict[str, str] = {}
    for n, against in enumerate(report.against, 1):
        names = [plain(one, _MAX_TITLE) for one in (report.model, report.version, against.primary)]
        what = "{} {} against {}".format(*names)
        for kind, plot in (("agreement", agreement), ("latency", latency), ("fields", fields)):
            drawn = plot(against, what)
            if drawn:
                made[plot_name(kind, n)] = drawn
    return made


def agreement(against: Against, what: str) -> str:
    """Plot raw agreement over time, and where that of all pairs so far is; nothing without pairs.

    A dot is one bin of the timeline. The band is the confidence sequence: all of it holds at once.
    """
    timeline = against.timeline
    if not timeline:
        return ""
    seen = [one.running.estimate or 0.0 for one in timeline]
    dots = [one.agreement.estimate or 0.0 for one in timeline]
    settled = timeline[len(timeline) // 3].running.interval.low  # at first it is anywhere
    bounds = [check.bound for check in against.verdict.checks if check.name == "agreement"]
    least = max(min(*seen, *dots, *bounds, settled) - 0.01, 0.0)
    width = timeline[0].minutes * 60
    x = Scale(timeline[0].at_s, timeline[-1].at_s + width, _LEFT, _RIGHT)
    y = Scale(least, 1.0, _BOTTOM, _TOP)

    page = Page(_HEIGHT, f"Agreement over time: {what}", "raw; dots: alone, line: all so far")
    _percents(page, y, (_LEFT, _RIGHT))
    for at_s, kind in ((x.low, ""), ((x.low + x.high) / 2, "middle"), (x.high, "end")):
        page.text((x.at(at_s), _BOTTOM + 20), f"{moment(at_s)} UTC", kind)
    ends = [_LEFT, *(x.at(one.at_s + width) for one in timeline)]
    highs = [y.at(one.running.interval.high) for one in (timeline[0], *timeline)]
    lows = [y.at(one.running.interval.low) for one in (timeline[0], *timeline)]
    band = [*zip(ends, highs, strict=True)], [*zip(ends, lows, strict=True)]
    page.area("one-area", band[0] + band[1][::-1])
    page.line("one", [*zip(ends, map(y.at, [seen[0], *seen]), strict=True)])
    for one, share in zip(timeline, dots, strict=True):
        page.dot("dot", (x.at(one.at_s + width / 2), y.at(share)))
    for bound in bounds:
        page.line("bound", [(_LEFT, y.at(bound)), (_RIGHT, y.at(bound))])
        page.text((_LEFT + 4, y.at(bound) - 4), f"at least {percent(bound)}")
    return page.end()


def latency(against: Against, what: str) -> str:
    """Plot both latency distributions: how often each time was, and how often it was less."""
    first, second = against.latencies
    if not any(first.buckets.values()) or not any(second.buckets.values()):
        return ""
    ends = [_ends(first), _ends(second)]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    page = Page(_HEIGHT, f"Latency: {what}")
    page.text((_LEFT, 42), "how often each time was")
    page.text((WIDTH / 2 + 50, 42), "how often it was less")
    for kind, words, at in (("one", "client's", WIDTH - 190), ("two", "shadow's", WIDTH - 100)):
        page.bar(f"{kind}-area", (at, 32), (12, 12))
        page.text((at + 18, 42), words)

    left = Scale(low, high, _LEFT, WIDTH / 2 - 20)
    right = Scale(low, high, WIDTH / 2 + 50, _RIGHT)
    shares = [_shares(one, low, high) for one in against.latencies]
    most = max(max(one) for one in shares)
    density = Scale(0.0, most or 1.0, _BOTTOM, _TOP)
    cumulated = Scale(0.0, 1.0, _BOTTOM, _TOP)
    _percents(page, density, (left.start, left.end))
    _percents(page, cumulated, (right.start, right.end))
    _times(page, left)
    _times(page, right)
    for kind, share in zip(("one", "two"), shares, strict=True):
        steps = [
            (left.at(low + n + side), density.at(one))
            for n, one in enumerate(share)
            for side in (0, 1)
        ]
        outline = [(left.start, density.start), *steps, (left.end, density.start)]
        page.area(f"{kind}-area", outline)
        page.line(kind, outline)
        sums = enumerate(accumulate(share, initial=0.0), low)
        page.line(kind, [(right.at(bar), cumulated.at(total)) for bar, total in sums])
    return page.end()


def fields(against: Against, what: str) -> str:
    """Draw a table of the fields that differ: bars of how often, whiskers of where that is.

    With a control the bar behind is raw, and the one before it, with whiskers, net of noise.
    """
    rows = against.fields[:_MAX_ROWS]
    if not rows:
        return ""
    figures = [row.net or row.raw for row in rows]
    low = min(0.0, *(figure.interval.low for figure in figures))
    high = max(*(figure.interval.high for figure in figures), *(r.raw.estimate or 0 for r in rows))
    scale = Scale(low, high, *_BARS)
    has_noise = any(row.net for row in rows)
    note = "bar: raw, line: net of noise with its interval" if has_noise else "with its interval"
    page = Page(_TOP + _ROW * len(rows) + 34, f"Fields that differ: {what}", note)
    bottom = _TOP + _ROW * len(rows)
    for tick in scale.ticks(4):
        page.line("grid", [(scale.at(tick), _TOP - 6), (scale.at(tick), bottom)])
        page.text((scale.at(tick), bottom + 18), percent(tick), "middle")
    for n, row in enumerate(rows):
        _field(page, scale, row, _TOP + _ROW * n)
    return page.end()


def _field(page: Page, scale: Scale, row: Field, top: float) -> None:
    middle, zero = top + _ROW / 2, scale.at(0.0)
    page.text((_BARS[0] - 12, middle + 4), plain(row.name, _MAX_NAME), "end")
    page.bar("two-area", (zero, top + 5), (scale.at(row.raw.estimate or 0.0) - zero, _ROW - 10))
    figure = row.net or row.raw
    low, high = map(scale.at, figure.interval)
    page.line("whisker", [(low, middle), (high, middle)])
    for end in (low, high):
        page.line("whisker", [(end, middle - 4), (end, middle + 4)])
    seen = percent(row.raw.estimate or 0.0)
    if row.net is not None:
        page.dot("two", (scale.at(row.net.estimate or 0.0), middle))
        seen += f" raw, {points(row.net.estimate or 0.0)} net"
    page.text((_BARS[1] + 14, middle + 4), seen)


def _percents(page: Page, y: Scale, ends: tuple[float, float]) -> None:
    """Draw the lines of an axis of shares."""
    for tick in y.ticks(5):
        page.line("grid", [(ends[0], y.at(tick)), (ends[1], y.at(tick))])
        page.text((ends[0] - 8, y.at(tick) + 4), percent(tick), "end")


def _times(page: Page, x: Scale) -> None:
    """Draw the marks of an axis of times, whose numbers are bars of the histogram."""
    least, most = _micros(x.low), _micros(x.high)
    decades = range(floor(log10(least)), ceil(log10(most)) + 1)
    marks = [10.0**power for power in decades]
    if len([mark for mark in marks if least <= mark <= most]) < 3:  # noqa: PLR2004
        marks = [factor * mark for mark in marks for factor in (1, 2, 5)]
    shown = [mark for mark in marks if least <= mark <= most] or [least]
    for mark in shown[:: ceil(len(shown) / 5)]:
        at = x.at(_bar(mark))
        page.line("grid", [(at, _BOTTOM), (at, _BOTTOM + 5)])
        page.text((at, _BOTTOM + 20), seconds(mark * 1e-6), "middle")


def _ends(histogram: Histogram) -> tuple[int, int]:
    """Return the first bar and the one past the last, but for what is in the tails."""
    number, seen = sum(histogram.buckets.values()), 0
    inside = []
    for bucket, count in sorted(histogram.buckets.items()):
        if seen + count > _TAIL * number and seen < (1 - _TAIL) * number:
            inside.append(bucket // _BUCKETS)
        seen += count
    return inside[0], inside[-1] + 1


def _shares(histogram: Histogram, low: int, high: int) -> list[float]:
    """Return the share of each bar; the outer ones have the tails."""
    number = sum(histogram.buckets.values())
    shares = [0.0] * (high - low)
    for bucket, count in histogram.buckets.items():
        shares[min(max(bucket // _BUCKETS, low), high - 1) - low] += count / number
    return shares


def _micros(bar: float) -> float:
    return exp2(bar * _BUCKETS / PER_OCTAVE)


def _bar(micros: float) -> float:
    return log2(micros) * PER_OCTAVE / _BUCKETS
