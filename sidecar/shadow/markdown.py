"""A report as Markdown (CommonMark, with GitHub's tables), for people who decide.

What came from elsewhere, as names of fields and tenants, is escaped: nothing of it is markup.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sidecar.model.shadow import OTHER
from sidecar.shadow.report import plot_name
from sidecar.shadow.spelling import (
    between,
    moment,
    number,
    part,
    percent,
    plain,
    points,
    seconds,
    size,
    times,
)
from sidecar.shadow.verdict import spelling_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from sidecar.shadow.report import Report
    from sidecar.shadow.rows import (
        Against,
        Agreement,
        Expense,
        Figure,
        Group,
        Labels,
        Latency,
    )
    from sidecar.shadow.verdict import Check

_MARKUP: Final = re.compile(r"([\\`*\[\]<>|&~$#!]|\b_|_\b|(?<=_)_)")
_MOST_LABELS: Final = 12  # columns that a page is wide enough for
_MOST_WORDS: Final = 4000  # characters of a sentence: more than five bounds of fifty versions take
_CAVEATS: Final = (
    "An interval holds at all times at once: looking often, and stopping when one likes, makes no "
    "finding wrong more often than its confidence says.",
    "It takes requests to be drawn independently. Where one caller sends many alike, it is "
    "narrower than it should be: see the rows by tenant.",
    "Latencies are of pairs in which both answers were whole. Copies without an answer, as those "
    "that timed out, are in the error rates and not in the latencies.",
    "The bounds of a verdict share its confidence. So the intervals beside them are wider than "
    "those of the same figures below, each of which has all of it.",
    "Intervals of means of measures only come to hold as numbers grow, and are too narrow where "
    "nearly all numbers are the same and a few are far off.",
)


def render(report: Report, plots: Collection[str] = ()) -> str:
    """Return the report as a page; it shows those of its `plots` that are named."""
    lines = [*_head(report), *_sample(report)]
    for n, against in enumerate(report.against, 1):
        lines += _against(
            report, against, {name for name in plots if name.endswith(f"-{n}.svg")}, n
        )
    lines += _cost(report.expense, report.key)
    lines += ["## How to read this", "", *(f"- {caveat}" for caveat in _CAVEATS)]
    return "\n".join(lines) + "\n"


def text(foreign: str) -> str:
    """Return a foreign text so that it is read as it is."""
    return _MARKUP.sub(r"\\\1", plain(foreign)) or "(none)"


def _head(report: Report) -> Iterator[str]:
    yield f"# Shadow test of {text(report.model)} {text(report.version)}"
    yield ""
    yield f"**{report.outcome.value.upper()}**: {_sentence(report.why)}"
    yield ""
    period = f"From {moment(report.since_s)} to {moment(report.until_s)} UTC"
    since = period if report.workers else "No sidecar has told of copies yet"
    yield f"- {since}; test {text(report.test)}"
    if report.percent is not None:
        by = "each request by itself" if report.key == "request" else f"by {text(report.key)}"
        yield f"- Sample: {number(report.percent)}% of what is eligible, drawn {by}"
    sums = f"{report.workers:,} worker{'s' if report.workers != 1 else ''}"
    yield f"- Confidence: {percent(report.confidence)}; sums of {sums}"
    yield ""


def _sample(report: Report) -> Iterator[str]:
    account = report.account
    ledger = account.ledger
    yield "## What this report is about"
    yield ""
    yield from (f"- {_sentence(word)}" for word in account.words)
    yield f"- Sample ratio: {_sentence(report.sample.why)}"
    if not account.is_exact:
        yield "- **The ledger does not add up**: some of its sums are missing or damaged."
    yield ""
    rows = [
        ("eligible", ledger.eligible, ""),
        ("sampled out", ledger.sampled_out, part(ledger.sampled_out, ledger.eligible)),
        *_causes("skipped", ledger.skipped, ledger.eligible),
        ("**copied**", ledger.mirrored, part(ledger.mirrored, ledger.eligible)),
        ("compared", ledger.compared, part(ledger.compared, ledger.mirrored)),
        *_causes("failed", ledger.failed, ledger.mirrored),
        *_causes("uncompared", ledger.uncompared, ledger.mirrored),
        ("under way", account.under_way, part(account.under_way, ledger.mirrored)),
    ]
    yield from _table(
        ("requests", "number", "share"), [(a, f"{b:,}", c) for a, b, c in rows], "lrr"
    )
    if any(ledger.skipped.values()):
        sizes = [
            (
                f"{size(one.least)} to {size(one.below)}" if one.least else "none",
                f"{one.eligible:,}",
                f"{one.mirrored:,}",
                part(one.mirrored, one.eligible),
            )
            for one in account.sizes
        ]
        yield from _table(("body", "eligible", "copied", "share"), sizes, "lrrr")


def _causes(name: str, counts: dict[str, int], of: int) -> Iterator[tuple[str, int, str]]:
    for cause, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        if count:
            yield f"{name}: {text(cause)}", count, part(count, of)


def _against(report: Report, one: Against, plots: Collection[str], n: int) -> Iterator[str]:
    def plot(kind: str, words: str) -> Iterator[str]:
        name = plot_name(kind, n)
        if name in plots:
            yield from (f"![{words}]({name})", "")

    yield f"## Against {text(one.primary)}"
    yield ""
    yield f"**{one.verdict.outcome.value}**: {_sentence(one.verdict.why)}"
    yield ""
    yield from _checks(one.verdict.checks)
    yield "### Agreement"
    yield ""
    yield from _agreement(one.agreement)
    yield from plot("agreement", "Agreement over time with its interval")
    yield "### Errors and latency"
    yield ""
    yield from _errors(one)
    yield from _latencies("latency to the last byte", "client's", "shadow's", one.latency)
    yield from _latencies("latency to the first byte", "client's", "shadow's", one.first_byte)
    yield from plot("latency", "Latency distributions of both sides")
    yield from _fields(one, plot("fields", "Fields that differ"))
    yield from _measures(one)
    if one.labels is not None:
        yield from _labels(one.labels)
    yield from _calibration(one)
    yield from _groups("tenant", one.tenants, one.tenants_left_out, one)
    yield from _groups("segment", one.segments, one.segments_left_out, one)
    if not report.account.ledger.compared:
        yield from ("No pair was compared yet.", "")


def _checks(checks: Sequence[Check]) -> Iterator[str]:
    rows = []
    for check in checks:
        spell = spelling_of(check.name)
        least = "at least" if check.name.startswith("agreement") else "at most"
        rows.append(
            (
                check.name,
                f"{least} {spell(check.bound)}",
                _seen(check.estimate, spell),
                between(check.interval, spell),
                check.outcome.value,
            )
        )
    yield from _table(("asked", "bound", "seen", "interval", "finding"), rows, "lrrrl")


def _agreement(one: Agreement) -> Iterator[str]:
    rows = [("raw", f"{one.number:,}", *_figure(one.raw, percent))]
    if one.noise is not None and one.net is not None:
        rows.append(
            ("noise: the control disagrees", f"{one.paired:,}", *_figure(one.noise, percent))
        )
        rows.append(("net of noise", f"{one.paired:,}", *_figure(one.net, percent)))
    yield from _table(("agreement", "pairs", "seen", "interval"), rows, "lrrr")


def _errors(one: Against) -> Iterator[str]:
    errors = one.errors
    rows = [
        ("client's answers", f"{errors.answers:,}", *_figure(errors.primary, percent)),
        ("shadow's answers", f"{errors.answers:,}", *_figure(errors.shadow, percent)),
        ("increase", f"{errors.answers:,}", *_figure(errors.increase, points)),
    ]
    yield from _table(("errors", "copies", "seen", "interval"), rows, "lrrr")


def _latencies(title: str, first: str, second: str, rows: Sequence[Latency]) -> Iterator[str]:
    yield from _table(
        (title, first, "interval", second, "interval", "ratio", "interval"),
        [
            (
                row.quantile,
                *_figure(row.first, seconds),
                *_figure(row.second, seconds),
                *_figure(row.ratio, times),
            )
            for row in rows
        ],
        "lrrrrrr",
    )


def _fields(one: Against, plot: Iterator[str]) -> Iterator[str]:
    if not one.fields:
        return
    yield from ("### Fields that differ", "")
    yield from plot
    has_noise = any(row.net is not None for row in one.fields)
    titles = ("field", "pairs", "raw", "interval", "noise", "interval", "net", "interval")
    rows = []
    for row in one.fields:
        cells = [text(row.name), f"{row.pairs:,}", *_figure(row.raw, percent)]
        if row.noise is not None and row.net is not None:
            cells += [*_figure(row.noise, percent), *_figure(row.net, points)]
        rows.append(tuple(cells))
    width = len(titles) if has_noise else 4
    yield from _table(titles[:width], rows, "lrrrrrrr"[:width])
    yield from _left_out(one.fields_left_out, "fields")


def _measures(one: Against) -> Iterator[str]:
    if not one.measures:
        return
    yield from ("### Measures", "")
    shifts = [
        (
            text(shift.name),
            number(shift.primary),
            number(shift.shadow),
            *_figure(shift.difference, number),
        )
        for shift in one.shifts
    ]
    titles = ("mean", "client's", "shadow's", "difference", "interval")
    yield from _table(titles, shifts, "lrrrr")
    rows = [
        (
            text(measure.name),
            f"{measure.number:,}",
            *_figure(measure.mean, number),
            _seen(measure.deviation, number),
            _seen(measure.least, number),
            _seen(measure.most, number),
        )
        for measure in one.measures
    ]
    titles_of_each = ("measure", "pairs", "mean", "interval", "deviation", "least", "most")
    yield from _table(titles_of_each, rows, "lrrrrrr")


def _labels(labels: Labels) -> Iterator[str]:
    yield from ("### Labels", "")
    seen, interval = _figure(labels.same, percent)
    yield from (f"The same label in {seen} of {labels.number:,} pairs ({interval}).", "")
    totals = {name: sum(row.values()) for name, row in labels.confusion.items()}
    for row in labels.confusion.values():
        for name, count in row.items():
            totals[name] = totals.get(name, 0) + count
    shown = sorted(totals, key=lambda name: (name == OTHER, -totals[name], name))
    left_out, shown = len(shown[_MOST_LABELS:]), shown[:_MOST_LABELS]
    rows = [
        (text(got), *(f"{labels.confusion.get(got, {}).get(given, 0):,}" for given in shown))
        for got in shown
    ]
    titles = ("client's, then shadow's", *map(text, shown))
    yield from _table(titles, rows, "l" + "r" * len(shown))
    yield from _left_out(left_out, "labels")


def _calibration(one: Against) -> Iterator[str]:
    rows = [
        (
            f"{row.least:.1f} to {row.least + 0.1:.1f}",
            f"{row.number:,}",
            f"{row.primary:.4f}",
            f"{row.shadow:.4f}",
            f"{row.shift:+.4f}",
        )
        for row in one.calibration
    ]
    titles = ("client's probability", "pairs", "client's mean", "shadow's mean", "shift")
    yield from _table(titles, rows, "lrrrr")


def _groups(name: str, rows: Sequence[Group], left_out: int, one: Against) -> Iterator[str]:
    if not rows:
        return
    yield from (f"### By {name}", "")
    if one.agreement.paired:
        yield "Noise is not counted by row: agreement is raw. What is below the bound may be so"
        yield from ("by noise, and is unchecked.", "")
    cells = [
        (
            text(row.name),
            f"{row.number:,}",
            part(row.number, one.agreement.number),
            *_figure(row.agreement, percent),
            row.outcome.value,
        )
        for row in rows
    ]
    yield from _table(
        (name, "pairs", "of all", "agreement", "interval", "finding"), cells, "lrrrrl"
    )
    yield from _left_out(left_out, f"{name}s")


def _cost(expense: Expense, key: str) -> Iterator[str]:
    if not (expense.copy_us or expense.compare_us or expense.latency or expense.prices):
        return
    has_price = bool(expense.prices or expense.currency)
    yield from ("## What it costs", "")
    if expense.copy_us is not None:
        yield f"- CPU time of the sidecar to copy a request: {number(expense.copy_us)} µs"
    if expense.compare_us is not None:
        yield f"- CPU time of the sidecar to compare a pair: {number(expense.compare_us)} µs"
    if has_price:
        cap = "" if expense.cost_per_day is None else f"; at most {expense.cost_per_day:,.2f} a day"
        yield f"- The shadow's answers: {expense.total:,.2f} {expense.currency}".rstrip() + cap
    if has_price and not expense.prices:
        yield "- **Nothing counts towards the price**: of one by tokens it is what compared answers"
        yield "  tell of them, as `usage`."
    if expense.latency:
        others = "" if key == "request" else f", or that others are drawn by {text(key)}"
        yield "- Clients' latency, of requests that were copied and of those that were not drawn:"
        yield f"  what it differs by is what copying costs{others}"
    yield ""
    yield from _latencies("clients' latency", "not drawn", "copied", expense.latency)
    days = [(text(row.day), text(row.tenant), f"{row.price:,.4f}") for row in expense.prices]
    yield from _table(("day (UTC)", "tenant", expense.currency or "price"), days, "llr")
    yield from _left_out(expense.prices_left_out, "days and tenants")


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], aligned: str) -> Iterator[str]:
    """Yield a table and a blank line; nothing if it has no rows."""
    if not rows:
        return
    yield f"| {' | '.join(titles)} |"
    yield f"| {' | '.join('---:' if one == 'r' else '---' for one in aligned)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _figure(figure: Figure, spell: Callable[[float], str]) -> tuple[str, str]:
    return _seen(figure.estimate, spell), between(figure.interval, spell)


def _seen(value: float | None, spell: Callable[[float], str]) -> str:
    return "" if value is None else spell(value)


def _left_out(count: int, what: str) -> Iterator[str]:
    if count:
        yield from (f"{count:,} more {what} are not shown.", "")


def _sentence(words: str) -> str:
    """Return words that may hold foreign names as a sentence."""
    return _MARKUP.sub(r"\\\1", plain(words if words.endswith(".") else f"{words}.", _MOST_WORDS))
