"""Adding pairs of answers up, and what workers have added up.

All of it is counts and sums. Adding pair by pair to one tally, or to several that are merged in
whatever order, comes to the same. Tables are bounded: what is new to a full one counts as `OTHER`.
"""

from __future__ import annotations

from math import isfinite, log2
from typing import TYPE_CHECKING, Final, TypeVar

from sidecar.model.shadow import (
    OTHER,
    PER_OCTAVE,
    Calibration,
    Control,
    Cost,
    FieldTally,
    Histogram,
    Ledger,
    Moments,
    Pairs,
    Share,
    Tally,
)
from sidecar.shadow.sequence import edge

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from sidecar.model.shadow import Answer, Outcome

    Key = TypeVar("Key", bound=Hashable)
    Value = TypeVar("Value")

MAX_VERSIONS: Final = 50  # that served; a rollout has two, a split seldom ten
MAX_FIELDS: Final = 200
MAX_MEASURES: Final = 100
MAX_LABELS: Final = 50  # of either side: at most 2,601 cells of the table
MAX_TENANTS: Final = 1000
MAX_SEGMENTS: Final = 200
MERGED: Final = 10  # times as many names has a sum, which many workers went into, one by one
MAX_PRICES: Final = 50_000  # of tenants and days, in a sum
MAX_NAME: Final = 200  # characters; a JSON pointer may be as long as the body that it points into

_LAST_BUCKET: Final = 40 * PER_OCTAVE  # twelve days
_TENTHS: Final = 10
# What is older than six hours is told by the hour, than a week by the day, than 60 days by 30.
# It goes by whole hours, days, months: whatever is folded first, it comes to the same.
COARSER: Final = ((60, 6), (1440, 7), (43_200, 2))
ERROR_STATUS: Final = 500


def add_pair(  # noqa: PLR0913  # what a pair is
    tally: Tally,
    *,
    primary_version: str,
    tenant: str,
    segments: Iterable[str],
    at_s: float,
    primary: Answer,
    shadow: Answer,
    outcome: Outcome,
    control: Outcome | None = None,
) -> None:
    """Add a pair of whole answers, and how the control's differed from the client's, if it ran.

    `at_s` is in epoch seconds. Where the outcome is `uncompared`, statuses, times and sizes count.
    """
    pairs = _pairs(tally, primary_version)
    _add_statuses(pairs, primary.status, shadow.status)
    _add_sides(pairs, primary, shadow)
    tally.until_s = max(tally.until_s, at_s)
    if outcome.uncompared is not None:
        return
    pairs.number += 1
    pairs.agreed += outcome.agrees
    _add_share(pairs.tenants, tenant, MAX_TENANTS, outcome)
    for segment in segments:
        _add_share(pairs.segments, segment, MAX_SEGMENTS, outcome)
    _add_minute(pairs.timeline, int(at_s // 60), outcome)
    _add_fields(pairs, outcome, control)
    _add_measures(pairs, outcome)


def add_failure(tally: Tally, *, primary_version: str, primary_status: int) -> None:
    """Add a copy that got no whole answer: an error of the shadow.

    The client's answer has a status of 0 if it was not whole for its upstream's sake.
    """
    _add_statuses(_pairs(tally, primary_version), primary_status, 0)


def add_statuses(
    tally: Tally, *, primary_version: str, primary_status: int, shadow_status: int
) -> None:
    """Add a pair of whole answers that are not compared: whether either is an error counts.

    Without them the share of errors would be one of the pairs that there was time for.
    """
    _add_statuses(_pairs(tally, primary_version), primary_status, shadow_status)


def merge(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies of one test, which stay as they are.

    In no order does the sum come out otherwise, for a table that is full keeps the names that come
    first in the alphabet.

    Raises:
        ValueError: there is none, or they are not of one test.
    """
    listed = list(tallies)
    if len({(one.model, one.version, one.test) for one in listed}) != 1:
        raise ValueError("only tallies of one shadow test can be merged")
    first = listed[0]
    total = Tally(first.model, first.version, first.test, first.since_s, workers=0)
    for one in listed:
        total.since_s = min(total.since_s, one.since_s)
        total.until_s = max(total.until_s, one.until_s)
        total.workers += one.workers
        _sum_ledger(total.ledger, one.ledger)
        _sum_names(total.pairs, one.pairs, MAX_VERSIONS, Pairs, sum_pairs)
        _sum_cost(total.cost, one.cost)
    return total


def sum_pairs(total: Pairs, one: Pairs) -> None:
    """Add the pairs of one tally, or of one serving version, to a total."""
    total.number += one.number
    total.agreed += one.agreed
    total.answers += one.answers
    total.primary_errors += one.primary_errors
    total.shadow_errors += one.shadow_errors
    total.both_errors += one.both_errors
    sum_histogram(total.primary_latency, one.primary_latency)
    sum_histogram(total.shadow_latency, one.shadow_latency)
    sum_histogram(total.primary_first_byte, one.primary_first_byte)
    sum_histogram(total.shadow_first_byte, one.shadow_first_byte)
    _sum_moments(total.primary_bytes, one.primary_bytes)
    _sum_moments(total.shadow_bytes, one.shadow_bytes)
    _sum_names(total.fields, one.fields, MAX_FIELDS, FieldTally, _sum_field)
    _sum_names(total.measures, one.measures, MAX_MEASURES, Moments, _sum_moments)
    _sum_names(total.confusion, one.confusion, MAX_LABELS, dict, _sum_labels)
    _sum_table(total.calibration, one.calibration, Calibration, _sum_calibration)
    _sum_control(total.control, one.control)
    _sum_names(total.tenants, one.tenants, MAX_TENANTS, Share, sum_share)
    _sum_names(total.segments, one.segments, MAX_SEGMENTS, Share, sum_share)
    _sum_table(total.timeline, one.timeline, Share, sum_share)
    _coarsen(total.timeline)


def sum_histogram(total: Histogram, one: Histogram) -> None:
    """Add times to a total."""
    total.number += one.number
    total.total_s += one.total_s
    _sum_counts(total.buckets, one.buckets)


def sum_share(total: Share, one: Share) -> None:
    """Add a share to a total."""
    total.number += one.number
    total.part += one.part


def note(histogram: Histogram, seconds: float) -> None:
    """Add a time; one that is no time at all, or negative, counts as the shortest."""
    micros = seconds * 1e6
    bucket = int(log2(micros) * PER_OCTAVE) if 1 < micros < 2**40 else 0
    if micros >= 2**40:
        bucket = _LAST_BUCKET
    histogram.number += 1
    histogram.total_s += seconds if isfinite(seconds) else 0.0
    histogram.buckets[bucket] = histogram.buckets.get(bucket, 0) + 1


def estimate(histogram: Histogram, q: float) -> float | None:
    """Return about where the quantile `q` is, in seconds; None of nothing.

    Within a bucket times are taken to be spread evenly.
    """
    rank = q * sum(histogram.buckets.values())
    seen, bucket = 0, None
    for bucket in sorted(histogram.buckets):
        count = histogram.buckets[bucket]
        if count and seen + count >= rank:
            low = edge(bucket)
            return low + (edge(bucket + 1) - low) * (rank - seen) / count
        seen += count
    return None if bucket is None else edge(bucket + 1)


def _pairs(tally: Tally, version: str) -> Pairs:
    return _entry(tally.pairs, version, MAX_VERSIONS, Pairs)


def _entry(table: dict[str, Value], name: str, limit: int, make: Callable[[], Value]) -> Value:
    """Return what a bounded table has of a name, or of `OTHER` where it has no room for that."""
    found = table.get(name)
    if found is not None:
        return found
    name = bounded(table, name, limit)
    return table.setdefault(name, make())


def bounded(table: Mapping[str, object], name: str, limit: int) -> str:
    """Return by what name a table of at most `limit` names, and `OTHER`, counts."""
    name = name[:MAX_NAME]
    return name if name in table or len(table) - (OTHER in table) < limit else OTHER


def _add_statuses(pairs: Pairs, primary: int, shadow: int) -> None:
    pairs.answers += 1
    primary_failed, shadow_failed = _is_error(primary), _is_error(shadow)
    pairs.both_errors += primary_failed and shadow_failed
    pairs.primary_errors += primary_failed and not shadow_failed
    pairs.shadow_errors += shadow_failed and not primary_failed


def _is_error(status: int) -> bool:
    return status == 0 or status >= ERROR_STATUS


def _add_sides(pairs: Pairs, primary: Answer, shadow: Answer) -> None:
    note(pairs.primary_latency, primary.duration_s)
    note(pairs.shadow_latency, shadow.duration_s)
    note(pairs.primary_first_byte, primary.first_byte_s)
    note(pairs.shadow_first_byte, shadow.first_byte_s)
    _add_moment(pairs.primary_bytes, len(primary.body))
    _add_moment(pairs.shadow_bytes, len(shadow.body))


def _add_share(table: dict[str, Share], name: str, limit: int, outcome: Outcome) -> None:
    share = _entry(table, name, limit, Share)
    share.number += 1
    share.part += outcome.agrees


def _add_minute(timeline: dict[int, Share], minute: int, outcome: Outcome) -> None:
    share = timeline.get(minute)
    is_new = share is None
    if share is None:
        share = timeline[minute] = Share()
    share.number += 1
    share.part += outcome.agrees
    if is_new:
        _coarsen(timeline)


def _coarsen(timeline: dict[int, Share]) -> None:
    """Tell what is long ago by the hour, the day, the month: it is about 700 entries at most."""
    newest = max(timeline, default=0)
    for span, kept in COARSER:
        for minute in [one for one in timeline if newest // span - one // span > kept]:
            if minute % span:
                share = timeline.pop(minute)
                sum_share(timeline.setdefault(minute - minute % span, Share()), share)


def _add_fields(pairs: Pairs, outcome: Outcome, control: Outcome | None) -> None:
    differing = _tallies(pairs.fields, outcome)
    for one in differing:
        one.raw += 1
    if control is None or control.uncompared is not None:
        return
    for one in differing:
        one.paired_raw += 1
    for one in _tallies(pairs.fields, control):
        one.noise += 1
        one.both += any(one is other for other in differing)
    seen = pairs.control
    seen.number += 1
    seen.shadow += not outcome.agrees
    seen.control += not control.agrees
    seen.shadow_only += control.agrees and not outcome.agrees
    seen.control_only += outcome.agrees and not control.agrees


def _tallies(fields: dict[str, FieldTally], outcome: Outcome) -> list[FieldTally]:
    """Return where the fields of one pair count: nowhere twice, not even in `OTHER`."""
    names: dict[str, None] = {}
    for name in outcome.fields:
        named = bounded(fields, name, MAX_FIELDS)
        fields.setdefault(named, FieldTally())
        names[named] = None
    return [fields[name] for name in names]


def _add_measures(pairs: Pairs, outcome: Outcome) -> None:
    for name, value in outcome.measures.items():
        _add_moment(_entry(pairs.measures, name, MAX_MEASURES, Moments), value)
    _add_row(pairs, outcome.labels, outcome.probabilities)
    for labels, probabilities in outcome.rows:
        _add_row(pairs, labels, probabilities)


def _add_row(
    pairs: Pairs, labels: tuple[str, str] | None, probabilities: tuple[float, float] | None
) -> None:
    if labels is not None:
        got, given = labels
        row = _entry(pairs.confusion, got, MAX_LABELS, dict[str, int])
        given = bounded(row, given, MAX_LABELS)
        row[given] = row.get(given, 0) + 1
    if probabilities is not None and all(map(isfinite, probabilities)):
        primary, shadow = probabilities
        tenth = min(max(int(primary * _TENTHS), 0), _TENTHS - 1)
        seen = pairs.calibration.setdefault(tenth, Calibration())
        seen.number += 1
        seen.primary += primary
        seen.shadow += shadow


def _add_moment(moments: Moments, value: float) -> None:
    """Add a number; JSON, in which tallies are kept, has no other than finite ones."""
    if not isfinite(value * value):
        return
    moments.number += 1
    moments.total += value
    moments.squares += value * value
    moments.least = value if moments.least is None else min(moments.least, value)
    moments.most = value if moments.most is None else max(moments.most, value)


def _sum_table(
    total: dict[Key, Value],
    one: Mapping[Key, Value],
    make: Callable[[], Value],
    add: Callable[[Value, Value], None],
) -> None:
    for key, value in one.items():
        if key not in total:
            total[key] = make()
        add(total[key], value)


def _sum_names(
    total: dict[str, Value],
    one: Mapping[str, Value],
    limit: int,
    make: Callable[[], Value],
    add: Callable[[Value, Value], None],
) -> None:
    """Add a bounded table: of too many names the last in the alphabet are counted as `OTHER`.

    A name that stays in the end stayed in every sum before, so that all of it is counted.
    """
    _sum_table(total, one, make, add)
    for name in _excess(total, limit):
        add(total.setdefault(OTHER, make()), total.pop(name))


def _excess(table: Mapping[str, object], limit: int) -> list[str]:
    if len(table) <= MERGED * limit:
        return []
    return sorted(name for name in table if name != OTHER)[MERGED * limit :]


def _sum_labels(total: dict[str, int], one: Mapping[str, int]) -> None:
    _sum_counts(total, one)
    for name in _excess(total, MAX_LABELS):
        total[OTHER] = total.get(OTHER, 0) + total.pop(name)


def _sum_counts(total: dict[Key, int], one: Mapping[Key, int]) -> None:
    for key, count in one.items():
        total[key] = total.get(key, 0) + count


def _sum_ledger(total: Ledger, one: Ledger) -> None:
    total.eligible += one.eligible
    total.sampled_out += one.sampled_out
    total.mirrored += one.mirrored
    total.compared += one.compared
    _sum_counts(total.skipped, one.skipped)
    _sum_counts(total.failed, one.failed)
    _sum_counts(total.uncompared, one.uncompared)
    _sum_table(total.sizes, one.sizes, Share, sum_share)
    _sum_names(total.tenants, one.tenants, MAX_TENANTS, Share, sum_share)


def _sum_moments(total: Moments, one: Moments) -> None:
    total.number += one.number
    total.total += one.total
    total.squares += one.squares
    least = [value for value in (total.least, one.least) if value is not None]
    most = [value for value in (total.most, one.most) if value is not None]
    total.least = min(least, default=None)
    total.most = max(most, default=None)


def _sum_field(total: FieldTally, one: FieldTally) -> None:
    total.raw += one.raw
    total.paired_raw += one.paired_raw
    total.noise += one.noise
    total.both += one.both


def _sum_calibration(total: Calibration, one: Calibration) -> None:
    total.number += one.number
    total.primary += one.primary
    total.shadow += one.shadow


def _sum_control(total: Control, one: Control) -> None:
    total.number += one.number
    total.shadow += one.shadow
    total.control += one.control
    total.shadow_only += one.shadow_only
    total.control_only += one.control_only


def _sum_cost(total: Cost, one: Cost) -> None:
    for key, price in one.price.items():
        total.price[key] = total.price.get(key, 0.0) + price
    if len(total.price) > MAX_PRICES:
        for key in sorted(key for key in total.price if not key.startswith(f"{OTHER}/"))[
            MAX_PRICES:
        ]:
            named = f"{OTHER}/{key.rpartition('/')[2]}"
            total.price[named] = total.price.get(named, 0.0) + total.price.pop(key)
    total.copy_s += one.copy_s
    total.copies_timed += one.copies_timed
    total.compare_s += one.compare_s
    sum_histogram(total.copied_latency, one.copied_latency)
    sum_histogram(total.spared_latency, one.spared_latency)
