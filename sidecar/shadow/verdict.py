"""Whether a shadow holds what is asked of it, and whether its sample is the one that was asked for.

A bound is held when the whole interval holds it, violated when the whole interval violates it, and
otherwise not settled. Intervals are confidence sequences (`sequence`), so that one may look at any
time, and stop when one likes.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from sidecar.model.shadow import OTHER, Uncompared
from sidecar.shadow.bias import hindrance
from sidecar.shadow.sequence import Interval, difference, proportion, ratio
from sidecar.shadow.spelling import between, percent, points, times
from sidecar.shadow.tally import estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sidecar.model.comparison import Thresholds
    from sidecar.model.policy import Shadow
    from sidecar.model.shadow import Histogram, Ledger, Pairs, Share, Tally

# An alarm says that the sampling itself is broken, and every test is watched: a false one is rare.
SAMPLE_RATIO_ALPHA: Final = 0.001

# What may be the shadow's doing; memory, time and clients that leave are not.
_UNREAD: Final = tuple(
    cause.value
    for cause in (Uncompared.SIZE, Uncompared.ENCODING, Uncompared.MALFORMED, Uncompared.FAULT)
)

ERROR_INCREASE: Final = "error increase"
QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Finding(Enum):
    """What became of one thing that is asked, or of all."""

    PASS = "pass"  # noqa: S105  # no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    UNCHECKED = "unchecked"  # what is counted cannot tell


class Check(Struct, frozen=True):
    """One bound: what was seen, where the truth is, and in words what follows.

    An end of the interval that is infinite, as at first that of a latency, is null in JSON.
    """

    name: str
    estimate: float | None
    interval: Interval
    bound: float
    outcome: Finding
    why: str


class Verdict(Struct, frozen=True):
    """What is asked of a shadow, and whether all of it holds."""

    outcome: Finding
    why: str
    checks: tuple[Check, ...]


class Conclusion(Struct, frozen=True):
    """What follows from a whole test: the verdicts by serving version, and the sample's check."""

    outcome: Finding
    why: str
    sample: Check
    against: dict[str, Verdict]


def conclude(tally: Tally, shadow: Shadow | None) -> Conclusion:
    """Judge a whole test by what the policy says of its shadow; None if it has no such shadow.

    Each serving version is a question of its own: may the shadow replace it? It fails if any of
    them fails, and passes if one passes and of the others there are too few pairs to tell. It does
    not pass if its sample is not the one that was asked for, nor if more answers could not be read
    than may disagree: a shadow that says too much, or what nobody can read, would pass by it.
    """
    if shadow is None or shadow.compare is None:
        why = "answers are not compared, as the shadow has no compare"
        if shadow is None:
            why = "the test is over: the policy has another one of this shadow, or none"
        return Conclusion(Finding.INCONCLUSIVE, why, _unchecked(0.0, why), {})
    sample = sample_ratio(tally.ledger, shadow.percent, shadow.key)
    asked = shadow.compare.thresholds
    has_control = shadow.compare.control is not None
    against = {
        name: judge(pairs, asked, has_control=has_control) for name, pairs in tally.pairs.items()
    }
    enough = {name for name, pairs in tally.pairs.items() if pairs.answers >= asked.min_pairs}
    outcome, why = _sum_up({name: one for name, one in against.items() if name in enough})
    if outcome is Finding.PASS and sample.outcome is Finding.FAIL:
        outcome, why = Finding.INCONCLUSIVE, sample.why
    if outcome is Finding.PASS and (unread := _unread(tally.ledger, asked.agreement)):
        outcome, why = Finding.INCONCLUSIVE, unread
    if not enough:
        number = max((pairs.answers for pairs in tally.pairs.values()), default=0)
        why = f"{number:,} answers of the {asked.min_pairs:,} that it needs"
        why = "; ".join(filter(None, (why, hindrance(tally.ledger))))
    return Conclusion(outcome, why, sample, against)


def _unread(ledger: Ledger, agreement: float | None) -> str:
    """Return that more answers could not be read than may disagree, or nothing."""
    unread = sum(ledger.uncompared.get(cause, 0) for cause in _UNREAD)
    number = ledger.compared + unread
    if agreement is None or unread <= (1 - agreement) * number:
        return ""
    return (
        f"{unread:,} of {number:,} answers are too large to be compared, cannot be read, or met a "
        f"fault of the sidecar: more than may disagree where {percent(agreement)} have to agree"
    )


def judge(pairs: Pairs, thresholds: Thresholds, *, has_control: bool = False) -> Verdict:
    """Hold the pairs with one serving version against what is asked.

    All that is asked is judged at once: the error that `confidence` leaves is divided among the
    bounds. Of pairs that had a control, agreement is net of noise: 1 less by how much more often
    the shadow disagreed than the control; only of these there must be `min_pairs` then. Where a
    control is asked for (`has_control`) but has not run yet, nothing is known of agreement.

    A bound that nothing can be beyond, as an agreement of 1, can be violated and never held: no
    number of pairs proves that none will ever disagree.
    """
    alpha = error_of(thresholds)
    has_control = has_control or pairs.control.number > 0
    checks = tuple(_checks(pairs, thresholds, alpha, has_control=has_control))
    if not checks:
        return Verdict(Finding.INCONCLUSIVE, "no bound is asked for", ())
    outcome = _worst(check.outcome for check in checks)
    why = "; ".join(check.why for check in checks if check.outcome is outcome)
    return Verdict(outcome, why, checks)


def spelling_of(check: str) -> Callable[[float], str]:
    """Return how the figures of the check of this name are spelled."""
    if check.startswith("latency"):
        return times
    return points if check == ERROR_INCREASE else percent


def error_of(thresholds: Thresholds) -> float:
    """Return what error each of the bounds may have, all together that of the confidence."""
    asked = [thresholds.agreement, thresholds.error_increase, *_latency_bounds(thresholds).values()]
    return (1 - thresholds.confidence) / max(sum(bound is not None for bound in asked), 1)


def agreement(
    pairs: Pairs, alpha: float, *, has_control: bool
) -> tuple[int, float | None, Interval]:
    """Return of how many pairs, and what share of them agreed, net of noise if there is a control.

    Net of noise it may seem to be over 1, where the control disagreed more often; 1 is told then.
    """
    if not has_control:
        interval = proportion(pairs.agreed, pairs.number, alpha)
        return pairs.number, pairs.agreed / pairs.number if pairs.number else None, interval
    seen = pairs.control
    worse = difference(seen.control_only, seen.shadow_only, seen.number, alpha)
    net = 1 - (seen.shadow_only - seen.control_only) / seen.number if seen.number else None
    interval = Interval(*(min(max(1 - end, 0.0), 1.0) for end in reversed(worse)))
    return seen.number, None if net is None else min(net, 1.0), interval


def latency_ratio(primary: Histogram, shadow: Histogram, q: float) -> float | None:
    """Return about what the shadow's quantile is of the client's."""
    first, second = estimate(primary, q), estimate(shadow, q)
    return None if first is None or second is None or not first else second / first


def _latency_bounds(thresholds: Thresholds) -> dict[str, float]:
    bounds = {
        "p50": thresholds.latency_p50_ratio,
        "p95": thresholds.latency_p95_ratio,
        "p99": thresholds.latency_p99_ratio,
    }
    return {name: bound for name, bound in bounds.items() if bound is not None}


def held(interval: Interval, bound: float, *, at_least: bool) -> Finding:
    """Return whether all of an interval holds a bound, or none of it does."""
    low, high = interval
    if low >= bound if at_least else high <= bound:
        return Finding.PASS
    if high < bound if at_least else low > bound:
        return Finding.FAIL
    return Finding.INCONCLUSIVE


def group(
    share: Share, floor: float | None, alpha: float, *, has_noise: bool
) -> tuple[Interval, Finding]:
    """Return how many pairs of a tenant or segment agreed, and what of the least agreement.

    Noise is not counted by tenant. Where a control shows that there is some, a group in which too
    few agree may owe that to it: only what holds in spite of noise is told.
    """
    interval = proportion(share.part, share.number, alpha)
    if floor is None:
        return interval, Finding.UNCHECKED
    found = held(interval, floor, at_least=True)
    is_open = has_noise and found is Finding.FAIL
    return interval, Finding.UNCHECKED if is_open else found


def sample_ratio(ledger: Ledger, percent: float, key: str) -> Check:
    """Return whether as many were drawn as should have been.

    If not, the pairs are not the sample that they are taken for, and no figure of the test counts.
    With the key `request` it is requests that are drawn, each by itself. With any other it is
    units, of which one may send very many requests: they are told from each other only if they are
    tenants and the ledger has the names of all. Where all are to be drawn, units are no matter.
    """
    bound = percent / 100
    if key == "request" or bound == 1:
        drawn = ledger.eligible - ledger.sampled_out
        interval = proportion(drawn, ledger.eligible, SAMPLE_RATIO_ALPHA)
        return _sample_check("requests", drawn, ledger.eligible, interval, bound)
    if key != "tenant":
        return _unchecked(bound, f"units of {key!r} are drawn, not requests, and are not counted")
    if OTHER in ledger.tenants:
        return _unchecked(bound, "tenants are drawn, not requests, and there are too many to count")
    return _tenant_ratio(ledger, bound)


class _Bound(NamedTuple):
    """What is asked: a least or a most number, and of so many pairs at least."""

    name: str
    bound: float
    pairs: int
    at_least: bool = False

    def check(self, seen: float | None, interval: Interval, number: int) -> Check:
        """Hold what is known of a number, by so many pairs, against the bound."""
        outcome = held(interval, self.bound, at_least=self.at_least)
        spell = spelling_of(self.name)
        asked = f"{'at least' if self.at_least else 'at most'} {spell(self.bound)}"
        where = f"{self.name} is {between(interval, spell)}"
        if number < self.pairs:
            outcome = Finding.INCONCLUSIVE
            why = f"{self.name} has {number:,} pairs of the {self.pairs:,} that it needs"
        elif outcome is Finding.PASS:
            why = f"{where}, which holds {asked}"
        elif outcome is Finding.FAIL:
            why = f"{where}, which violates {asked}"
        else:
            why = f"{where}, so that {number:,} pairs do not settle {asked}"
        return Check(self.name, seen, interval, self.bound, outcome, why)


def _checks(
    pairs: Pairs, thresholds: Thresholds, alpha: float, *, has_control: bool
) -> Iterator[Check]:
    least = thresholds.min_pairs
    if thresholds.agreement is not None:
        number, share, interval = agreement(pairs, alpha, has_control=has_control)
        name = "agreement net of noise" if has_control else "agreement"
        floor = _Bound(name, thresholds.agreement, least, at_least=True)
        held_to = floor.check(share, interval, number)
        if number < least <= pairs.number:  # the shadow has answered often enough
            why = f"{held_to.why}: the control has answered {number:,} of {pairs.number:,}"
            held_to = replace(held_to, why=why)
        yield held_to
    if thresholds.error_increase is not None:
        number = pairs.answers
        only = pairs.primary_errors, pairs.shadow_errors
        yield _Bound(ERROR_INCREASE, thresholds.error_increase, least).check(
            (only[1] - only[0]) / number if number else None,
            difference(*only, number, alpha),
            number,
        )
    first, second = pairs.primary_latency, pairs.shadow_latency
    for name, bound in _latency_bounds(thresholds).items():
        q = QUANTILES[name]
        yield _Bound(f"latency {name} ratio", bound, least).check(
            latency_ratio(first, second, q), ratio(first, second, q, alpha), first.number
        )


def _worst(outcomes: Iterable[Finding]) -> Finding:
    """Return what all of them come to; nothing comes to nothing."""
    found = set(outcomes)
    if Finding.FAIL in found:
        return Finding.FAIL
    return Finding.PASS if found == {Finding.PASS} else Finding.INCONCLUSIVE


def _sum_up(verdicts: Mapping[str, Verdict]) -> tuple[Finding, str]:
    outcome = _worst(verdict.outcome for verdict in verdicts.values())
    of = {name: verdict for name, verdict in verdicts.items() if verdict.outcome is outcome}
    return outcome, "; ".join(f"against {name} {one.why}" for name, one in of.items())


def _sample_check(what: str, drawn: int, number: int, interval: Interval, bound: float) -> Check:
    outcome = Finding.PASS if interval.low <= bound <= interval.high else Finding.FAIL
    seen = drawn / number if number else None
    asked = f"{percent(bound)} of the {what} should be drawn"
    if seen is None:
        outcome, why = Finding.INCONCLUSIVE, f"{asked}; there were none yet"
    elif outcome is Finding.PASS:
        why = f"{asked}; {drawn:,} of {number:,} were, which fits"
    else:
        why = f"{asked}; {drawn:,} of {number:,} were, which does not happen by chance"
    return Check("sample ratio", seen, interval, bound, outcome, why)


def _tenant_ratio(ledger: Ledger, bound: float) -> Check:
    """Judge by tenants: those with a copy were drawn, and others may have been if some skipped.

    A request without a tenant is never drawn, and tells nothing.
    """
    shares = [share for tenant, share in ledger.tenants.items() if tenant]
    drawn, number = sum(share.part > 0 for share in shares), len(shares)
    hidden = min(number - drawn, sum(ledger.skipped.values()))
    interval = Interval(
        proportion(drawn, number, SAMPLE_RATIO_ALPHA).low,
        proportion(drawn + hidden, number, SAMPLE_RATIO_ALPHA).high,
    )
    return _sample_check("tenants", drawn, number, interval, bound)


def _unchecked(bound: float, why: str) -> Check:
    return Check("sample ratio", None, Interval(0, 1), bound, Finding.UNCHECKED, why)
