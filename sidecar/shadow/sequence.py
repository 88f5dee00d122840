"""What counts prove, however often one looks: intervals that hold at all times at once.

A confidence interval of a fixed sample errs far more often than it says if one looks again and
again and stops at what one likes. Those here are confidence sequences (H. Robbins, "Statistical
methods related to the law of the iterated logarithm", Ann. Math. Statist. 41, 1970; S. Howard,
A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Ann. Statist. 49, 2021): with probability 1 - alpha the truth is in all of them.

For each mean p that a coin may have, the likelihood of what was seen, mixed over all means by the
density Beta(1/2, 1/2), divided by its likelihood under p, is a martingale that starts at 1 if p is
the truth. So it ever reaches 1/alpha with probability alpha at most (J. Ville, 1939), and the
interval is all p that have not reached it. It needs counts alone, so the sums of many workers do.

It assumes that no draw knows of the others. Where requests of one caller fail or differ together,
intervals are narrower than they should be. Where the mean drifts they are about its past as well.
"""

from __future__ import annotations

from math import ceil, inf, lgamma, log, log1p, pi, sqrt
from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.model.shadow import PER_OCTAVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model.shadow import Histogram, Moments

_HALVINGS: Final = 50  # of what is searched: as far as a float tells numbers below 1 apart
_FEW: Final = 100  # below it a sum is hardly like the normal distribution
_TYPICAL: Final = 2000  # pairs, when a test is looked at
_LOG_PI: Final = log(pi)  # the logarithm of the beta function of 1/2 and 1/2


class Interval(NamedTuple):
    """Where a number is, ends included; an end may be infinite."""

    low: float
    high: float


def proportion(part: int, number: int, alpha: float) -> Interval:
    """Return where the mean of a coin is that fell `part` times out of `number`.

    Raises:
        ValueError: there are not so many, or `alpha` is no probability.
    """
    if not 0 <= part <= number:
        raise ValueError(f"{part} cannot be a part of {number}")
    if not 0 < alpha < 1:
        raise ValueError(f"an error of {alpha} is not between 0 and 1")
    return Interval(_low(part, number, alpha), 1 - _low(number - part, number, alpha))


def refutes(part: int, number: int, share: float, alpha: float) -> bool:
    """Return whether the counts refute a mean: whether it is outside of their `proportion`."""
    return _log_evidence(part, number, share) >= -log(alpha)


def difference(first_only: int, second_only: int, number: int, alpha: float) -> Interval:
    """Return where the second of two paired shares less the first is.

    Of `number` pairs, `first_only` were counted on the first side alone, `second_only` on the
    second alone; pairs that are alike on both sides say nothing of the difference. It is the share
    of pairs that are unlike, times how lopsided these are: two proportions at half of `alpha` each,
    which is narrower than a proportion for either side.

    Raises:
        ValueError: as `proportion`.
    """
    unlike = first_only + second_only
    share = proportion(unlike, number, alpha / 2)
    lean = proportion(second_only, unlike, alpha / 2)
    low, high = 2 * lean.low - 1, 2 * lean.high - 1
    return Interval(
        low * (share.high if low < 0 else share.low),
        high * (share.high if high > 0 else share.low),
    )


def mean(moments: Moments, alpha: float) -> Interval:
    """Return about where the mean of a measure is.

    Nothing bounds a measure, so that this one only comes to hold as numbers grow: an asymptotic
    confidence sequence (I. Waudby-Smith, D. Arbour, R. Sinha, E. Kennedy, A. Ramdas, "Time-uniform
    central limit theory and asymptotic confidence sequences", Ann. Statist. 52, 2024), narrowest at
    `_TYPICAL` numbers. Of fewer than `_FEW` it says nothing, and it says too much where nearly all
    numbers are the same and a few are far off.
    """
    number = moments.number
    if number < _FEW:
        return Interval(-inf, inf)
    middle = moments.total / number
    variance = max(moments.squares / number - middle * middle, 0.0) * number / (number - 1)
    doubt = -2 * log(alpha)
    scale = number * (doubt + log(doubt + 1)) / _TYPICAL
    reach = sqrt(variance * 2 * (scale + 1) / (number * scale) * log(sqrt(scale + 1) / alpha))
    return Interval(middle - reach, middle + reach)


def quantile(histogram: Histogram, q: float, alpha: float) -> Interval:
    """Return where the quantile `q` of times is, in seconds, to whole buckets.

    Whether a time is below the quantile is a coin of mean `q`: the quantile is where the count
    below does not refute that (S. Howard, A. Ramdas, "Sequential estimation of quantiles with
    applications to A/B testing and best-arm identification", Bernoulli 28, 2022).
    """
    number = sum(histogram.buckets.values())
    least, most = _counts(number, q, alpha)
    low, high, seen = 0.0, inf, 0
    for bucket in sorted(histogram.buckets):
        if seen < least <= seen + histogram.buckets[bucket]:
            low = edge(bucket)
        seen += histogram.buckets[bucket]
        if seen > most:
            high = edge(bucket + 1)
            break
    return Interval(low, high)


def ratio(first: Histogram, second: Histogram, q: float, alpha: float) -> Interval:
    """Return where the quantile `q` of the second divided by that of the first is."""
    one, other = quantile(first, q, alpha / 2), quantile(second, q, alpha / 2)
    return Interval(
        other.low / one.high,  # nothing, if that is infinite
        other.high / one.low if one.low else inf,
    )


def edge(bucket: int) -> float:
    """Return where a bucket of a `Histogram` begins, in seconds."""
    return 2.0 ** (bucket / PER_OCTAVE) * 1e-6 if bucket > 0 else 0.0


def _log_evidence(part: int, number: int, share: float) -> float:
    """Return the logarithm of the martingale against a coin's mean."""
    return _log_mixed(part, number) - _log_likelihood(part, number, share)


def _log_mixed(part: int, number: int) -> float:
    return lgamma(part + 0.5) + lgamma(number - part + 0.5) - lgamma(number + 1) - _LOG_PI


def _log_likelihood(part: int, number: int, share: float) -> float:
    rest = number - part
    if (part and share <= 0) or (rest and share >= 1):
        return -inf
    return (part * log(share) if part else 0.0) + (rest * log1p(-share) if rest else 0.0)


def _low(part: int, number: int, alpha: float) -> float:
    """Return the least mean that is not refuted: likelihood falls from the share seen to 0."""
    if not part:
        return 0.0
    rest, least = number - part, _log_mixed(part, number) + log(alpha)
    low, high = 0.0, part / number
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        if part * log(share) + rest * log1p(-share) > least:
            high = share
        else:
            low = share
    return low


def _counts(number: int, q: float, alpha: float) -> Interval:
    """Return the least and the most of `number` draws that do not refute a mean of `q`.

    Evidence is convex in the count, so that they have no gap.
    """

    def is_refuted(part: int) -> bool:
        return refutes(part, number, q, alpha)

    middle = min(int(number * q), ceil(number * q), key=lambda n: _log_evidence(n, number, q))
    if is_refuted(middle):
        return Interval(0, number)
    return Interval(_last(is_refuted, middle, 0), _last(is_refuted, middle, number))


def _last(is_refuted: Callable[[int], bool], inside: int, end: int) -> int:
    """Return the last count from `inside` towards `end` that is not refuted."""
    if not is_refuted(end):
        return end
    outside = end
    while abs(outside - inside) > 1:
        middle = (outside + inside) // 2
        if is_refuted(middle):
            outside = middle
        else:
            inside = middle
    return inside
