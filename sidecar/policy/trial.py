"""What a policy makes of many callers: the shares that are to be expected, and those observed."""

from __future__ import annotations

from collections import defaultdict
from math import sqrt
from typing import TYPE_CHECKING

from msgspec import Struct

from sidecar.model.decision import Reason
from sidecar.policy.resolver import resolve
from sidecar.policy.trace import trace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.model.identity import Identity
    from sidecar.model.request import RequestHead
    from sidecar.policy.snapshot import Snapshot
    from sidecar.policy.trace import Trace

    Outcome = tuple[str, str]  # version and reason; no version where requests are refused
    Draw = tuple[str, str, tuple[tuple[str, int], ...]]  # reason, unit, arms that may serve

SIGMAS = 3.0  # chance alone leaves the interval once in 370 times


class Share(Struct, frozen=True):
    """The requests with one outcome: how many came, and what part of all they are.

    Chance keeps `observed` from `low` to `high` all but once in 370 times. Where nothing is drawn
    these are one number.
    """

    version: str
    reason: str
    requests: int
    expected: float
    observed: float
    low: float
    high: float

    @property
    def is_odd(self) -> bool:
        """Whether chance hardly explains what was observed."""
        return not self.low <= self.observed <= self.high


def shares(
    snapshot: Snapshot, requests: Iterable[tuple[Identity, RequestHead]]
) -> tuple[Share, ...]:
    """Decide every request, and tell the outcomes, the most frequent first.

    Callers with one value of a split's key are drawn together, so they count as one draw: with few
    tenants the interval is wide.
    """
    observed: dict[Outcome, int] = defaultdict(int)
    certain: dict[Outcome, int] = defaultdict(int)
    draws: dict[Draw, int] = defaultdict(int)
    for identity, head in requests:
        decision = resolve(snapshot, identity, head)
        outcome = decision.version, decision.reason
        observed[outcome] += 1
        draw = _draw(trace(snapshot, identity, head))
        if draw is None:
            certain[outcome] += 1
        else:
            draws[draw] += 1
    return _told(observed, certain, draws)


def _draw(found: Trace) -> Draw | None:
    """Return the draw that a decision ended with."""
    last = found.steps[-1]
    if last.draw is None or last.draw.drawn is None:
        return None
    reason = f"{Reason.SPLIT.value}:{last.of}"
    return reason, last.draw.unit or "", tuple(sorted(last.draw.arms.items()))


def _told(
    observed: dict[Outcome, int], certain: dict[Outcome, int], draws: dict[Draw, int]
) -> tuple[Share, ...]:
    mean: dict[Outcome, float] = defaultdict(float, certain)
    variance: dict[Outcome, float] = defaultdict(float)
    for (reason, _, arms), count in draws.items():
        whole = sum(weight for _, weight in arms)
        for version, weight in arms:
            chance = weight / whole
            mean[version, reason] += count * chance
            variance[version, reason] += count * count * chance * (1 - chance)
    total = sum(observed.values())
    found = [
        _share(outcome, observed.get(outcome, 0), mean[outcome], variance[outcome], total)
        for outcome in mean
    ]
    return tuple(sorted(found, key=lambda one: (-one.expected, one.version, one.reason)))


def _share(outcome: Outcome, count: int, mean: float, variance: float, total: int) -> Share:
    reach = SIGMAS * sqrt(variance)
    version, reason = outcome
    return Share(
        version,
        reason,
        count,
        mean / total,
        count / total,
        max(0.0, mean - reach) / total,
        min(float(total), mean + reach) / total,
    )
