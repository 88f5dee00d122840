"""What a shadow test has shown, as one struct: JSON as it is, Markdown and plots by others.

Intervals are those of `sequence`: they hold at all times, each by itself with the confidence that
the policy asks for; a verdict's checks share it. Times are in seconds, shares are fractions.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sidecar.model.comparison import Comparison
from sidecar.model.shadow import OTHER, FieldTally, Histogram
from sidecar.shadow.bias import Account, account
from sidecar.shadow.rows import (
    Against,
    Agreement,
    Errors,
    Expense,
    Field,
    Figure,
    Group,
    Labels,
    Latency,
    Measure,
    Moment,
    Price,
    Shift,
    Tenth,
)
from sidecar.shadow.sequence import (
    Interval,
    difference,
    mean,
    proportion,
    quantile,
    ratio,
)
from sidecar.shadow.tally import COARSER, estimate
from sidecar.shadow.verdict import (
    QUANTILES,
    Check,
    Finding,
    Verdict,
    agreement,
    conclude,
    group,
    latency_ratio,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sidecar.model.policy import Shadow
    from sidecar.model.shadow import Cost, Moments, Pairs, Share, Tally

MAX_ROWS: Final = 100  # of a table: the most telling ones; how many more there are is told
MAX_BINS: Final = 100  # of the timeline
_MINUTES: Final = (1, 5, 15, 60, 360, 1440, 43_200)  # that one bin may have


class Report(Struct, frozen=True):
    """All that one shadow test has shown so far.

    `percent` and `key` are how its sample is drawn, None and empty where the policy does not say.
    `since_s` and `until_s` are epoch seconds. `against` begins with the version of the most pairs.
    """

    model: str
    version: str
    test: str
    since_s: float
    until_s: float
    workers: int
    percent: float | None
    key: str
    confidence: float
    outcome: Finding
    why: str
    sample: Check
    account: Account
    against: tuple[Against, ...]
    expense: Expense


def plot_name(kind: str, number: int) -> str:
    """Return what the plot is called of the `number`th serving version, from 1 on.

    `kind` is `agreement`, `latency` or `fields`.
    """
    return f"{kind}-{number}.svg"


def make_report(tally: Tally, shadow: Shadow | None, currency: str = "") -> Report:
    """Return the report of a test, by what the policy says of its shadow; None if it has none.

    `currency` is of its version's price.

    Raises:
        ValueError: the tally has counts that cannot be, such as more pairs that agree than pairs.
    """
    comparison = (shadow and shadow.compare) or Comparison()
    conclusion = conclude(tally, shadow)
    made = [
        _against(name, pairs, comparison, conclusion.against.get(name))
        for name, pairs in sorted(tally.pairs.items(), key=lambda one: (-one[1].number, one[0]))
    ]
    return Report(
        model=tally.model,
        version=tally.version,
        test=tally.test,
        since_s=tally.since_s,
        until_s=tally.until_s,
        workers=tally.workers,
        percent=shadow.percent if shadow else None,
        key=shadow.key if shadow else "",
        confidence=comparison.thresholds.confidence,
        outcome=conclusion.outcome,
        why=conclusion.why,
        sample=conclusion.sample,
        account=account(tally.ledger, shadow.key if shadow else "request"),
        against=tuple(made),
        expense=_expense(tally, shadow, currency, 1 - comparison.thresholds.confidence),
    )


def _against(
    primary: str, pairs: Pairs, comparison: Comparison, verdict: Verdict | None
) -> Against:
    alpha = 1 - comparison.thresholds.confidence
    floor = comparison.thresholds.agreement
    has_noise = comparison.control is not None or pairs.control.number > 0
    tenants = _groups(pairs.tenants, floor, alpha, has_noise=has_noise)
    segments = _groups(pairs.segments, floor, alpha, has_noise=has_noise)
    fields = _fields(pairs, alpha)
    return Against(
        primary=primary,
        verdict=verdict or Verdict(Finding.INCONCLUSIVE, "nothing is asked for", ()),
        agreement=_agreement(pairs, alpha),
        errors=_errors(pairs, alpha),
        latency=_latencies(pairs.primary_latency, pairs.shadow_latency, alpha),
        first_byte=_latencies(pairs.primary_first_byte, pairs.shadow_first_byte, alpha),
        latencies=(pairs.primary_latency, pairs.shadow_latency),
        fields=fields[:MAX_ROWS],
        fields_left_out=len(fields[MAX_ROWS:]),
        measures=tuple(_measures(pairs, alpha)),
        shifts=tuple(_shifts(pairs, alpha)),
        labels=_labels(pairs, alpha),
        calibration=tuple(_tenths(pairs)),
        tenants=tenants[:MAX_ROWS],
        tenants_left_out=len(tenants[MAX_ROWS:]),
        segments=segments[:MAX_ROWS],
        segments_left_out=len(segments[MAX_ROWS:]),
        timeline=tuple(_timeline(pairs.timeline, alpha)),
    )


def _share(part: int, number: int, alpha: float) -> Figure:
    return Figure(part / number if number else None, proportion(part, number, alpha))


def _agreement(pairs: Pairs, alpha: float) -> Agreement:
    seen = pairs.control
    raw = _share(pairs.agreed, pairs.number, alpha)
    if not seen.number:
        return Agreement(pairs.number, pairs.agreed, raw, 0, None, None)
    _, net, interval = agreement(pairs, alpha, has_control=True)
    noise = _share(seen.control, seen.number, alpha)
    return Agreement(pairs.number, pairs.agreed, raw, seen.number, noise, Figure(net, interval))


def _errors(pairs: Pairs, alpha: float) -> Errors:
    number, both = pairs.answers, pairs.both_errors
    first, second = pairs.primary_errors, pairs.shadow_errors
    return Errors(
        answers=number,
        primary=_share(first + both, number, alpha),
        shadow=_share(second + both, number, alpha),
        increase=Figure(
            (second - first) / number if number else None,
            difference(first, second, number, alpha),
        ),
    )


def _latencies(first: Histogram, second: Histogram, alpha: float) -> tuple[Latency, ...]:
    if not first.number or not second.number:
        return ()
    return tuple(
        Latency(
            name,
            Figure(estimate(first, q), quantile(first, q, alpha)),
            Figure(estimate(second, q), quantile(second, q, alpha)),
            Figure(latency_ratio(first, second, q), ratio(first, second, q, alpha)),
        )
        for name, q in QUANTILES.items()
    )


def _fields(pairs: Pairs, alpha: float) -> tuple[Field, ...]:
    paired = pairs.control.number
    rows = []
    for name, found in pairs.fields.items():
        one = found if name != OTHER else _bounded(found, pairs.number, paired)
        noise = net = None
        if paired:
            only = one.noise - one.both, one.paired_raw - one.both
            noise = _share(one.noise, paired, alpha)
            net = Figure((only[1] - only[0]) / paired, difference(*only, paired, alpha))
        rows.append(Field(name, one.raw, _share(one.raw, pairs.number, alpha), noise, net))
    return tuple(sorted(rows, key=lambda row: (-_weight(row), row.name)))


def _bounded(other: FieldTally, number: int, paired: int) -> FieldTally:
    """Return what is known of `OTHER`: where sums were cut, it has pairs more than once."""
    raw, noise = min(other.paired_raw, paired), min(other.noise, paired)
    both = max(min(other.both, raw, noise), raw + noise - paired)
    return FieldTally(min(other.raw, number), raw, noise, both)


def _weight(row: Field) -> float:
    """Return by what a field is the more telling: what it differs in beside noise."""
    return (row.net or row.raw).estimate or 0.0


def _all_measures(pairs: Pairs) -> dict[str, Moments]:
    """Return the measures that have numbers, by name."""
    measures = {
        "body_bytes.primary": pairs.primary_bytes,
        "body_bytes.shadow": pairs.shadow_bytes,
        **pairs.measures,
    }
    return {name: one for name, one in sorted(measures.items()) if one.number}


def _measures(pairs: Pairs, alpha: float) -> Iterator[Measure]:
    for name, moments in _all_measures(pairs).items():
        yield _measure(name, moments, alpha)


def _shifts(pairs: Pairs, alpha: float) -> Iterator[Shift]:
    """Compare the means of both sides, each at half of the error."""
    measures = _all_measures(pairs)
    for name, first in measures.items():
        stem, _, side = name.rpartition(".")
        second = measures.get(f"{stem}.shadow")
        if side != "primary" or second is None:
            continue
        primary, shadow = first.total / first.number, second.total / second.number
        one, other = mean(first, alpha / 2), mean(second, alpha / 2)
        where = Interval(other.low - one.high, other.high - one.low)
        yield Shift(stem, primary, shadow, Figure(shadow - primary, where))


def _measure(name: str, moments: Moments, alpha: float) -> Measure:
    number = moments.number
    middle = moments.total / number
    variance = max(moments.squares / number - middle * middle, 0.0)
    return Measure(
        name,
        number,
        Figure(middle, mean(moments, alpha)),
        sqrt(variance * number / (number - 1)) if number > 1 else None,
        moments.least,
        moments.most,
    )


def _labels(pairs: Pairs, alpha: float) -> Labels | None:
    """Return the labels' table; of `OTHER` on both sides it is not known whether they agree."""
    number = sum(sum(row.values()) for row in pairs.confusion.values())
    if not number:
        return None
    same = sum(row.get(label, 0) for label, row in pairs.confusion.items() if label != OTHER)
    return Labels(number, _share(same, number, alpha), pairs.confusion)


def _tenths(pairs: Pairs) -> Iterator[Tenth]:
    for tenth, seen in sorted(pairs.calibration.items()):
        if seen.number:
            primary, shadow = seen.primary / seen.number, seen.shadow / seen.number
            yield Tenth(tenth / 10, seen.number, primary, shadow, shadow - primary)


def _groups(
    shares: Mapping[str, Share], floor: float | None, alpha: float, *, has_noise: bool
) -> tuple[Group, ...]:
    """Judge every row, the error divided among them; those that fail stand first."""
    rows = []
    for name, share in shares.items():
        interval, outcome = group(share, floor, alpha / len(shares), has_noise=has_noise)
        seen = share.part / share.number if share.number else None
        rows.append(Group(name, share.number, share.part, Figure(seen, interval), outcome))
    return tuple(
        sorted(rows, key=lambda row: (row.outcome is not Finding.FAIL, -row.number, row.name))
    )


def _timeline(timeline: Mapping[int, Share], alpha: float) -> Iterator[Moment]:
    """Put minutes into bins, none finer than what old ones are folded to."""
    if not timeline:
        return
    span = _bin(max(timeline) - min(timeline))
    bins: dict[int, tuple[int, int]] = {}
    for minute, share in timeline.items():
        number, agreed = bins.get(minute // span, (0, 0))
        bins[minute // span] = number + share.number, agreed + share.part
    total, all_agreed = 0, 0
    for start, (number, agreed) in sorted(bins.items()):
        total, all_agreed = total + number, all_agreed + agreed
        yield Moment(
            start * span * 60.0,
            span,
            number,
            agreed,
            _share(agreed, number, alpha),
            _share(all_agreed, total, alpha),
        )


def _bin(span: int) -> int:
    """Return how many minutes a bin has, of a timeline of so many."""
    folded = max((coarse for coarse, kept in COARSER if span > coarse * kept), default=1)
    fitting = [one for one in _MINUTES if one >= folded and span / one <= MAX_BINS]
    return fitting[0] if fitting else max(_MINUTES[-1], span // MAX_BINS)


def _expense(tally: Tally, shadow: Shadow | None, currency: str, alpha: float) -> Expense:
    cost, compared = tally.cost, tally.ledger.compared
    prices = _prices(cost)
    return Expense(
        copy_us=cost.copy_s / cost.copies_timed * 1e6 if cost.copies_timed else None,
        compare_us=cost.compare_s / compared * 1e6 if compared and cost.compare_s else None,
        latency=_latencies(cost.spared_latency, cost.copied_latency, alpha),
        currency=currency,
        total=sum(cost.price.values()),
        cost_per_day=shadow.cost_per_day if shadow is not None else None,
        prices=prices[:MAX_ROWS],
        prices_left_out=len(prices[MAX_ROWS:]),
    )


def _prices(cost: Cost) -> tuple[Price, ...]:
    """Return the newest day first, and of a day the dearest tenant."""
    rows = []
    for key, price in cost.price.items():
        tenant, _, day = key.rpartition("/")
        rows.append(Price(day, tenant, price))
    rows.sort(key=lambda row: (-row.price, row.tenant))
    return tuple(sorted(rows, key=lambda row: row.day, reverse=True))
