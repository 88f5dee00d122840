"""What a policy makes of many callers: the shares that are to be expected, and those observed."""

from __future__ import annotations

from collections import defaultdict
from math import sqrt
from typing import TYPE_CHECKING

from msgspec import Struct

from sidecar.model.decision import Reason
from sidecar.policy.resolver import resolve
from sidecar.policy.sticky import compile_unit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.model.identity import Identity
    from sidecar.model.policy import Split
    from sidecar.model.request import RequestHead
    from sidecar.policy.snapshot import Snapshot

    Outcome = tuple[str, str]  # version and reason; no version where requests are refused
    Draw = tuple[str, bytes, tuple[tuple[str, int], ...]]  # reason, unit, arms that may serve

DECIMALS = 9  # of a part; the rest of a sum of floats is dust
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
    splits = {
        f"{Reason.SPLIT.value}:{rule.id}": rule.split
        for rule in snapshot.policy.rules
        if rule.split is not None
    }
    for identity, head in requests:
        decision = resolve(snapshot, identity, head)
        outcome = decision.version, decision.reason
        observed[outcome] += 1
        split = splits.get(decision.reason)
        if split is None:
            certain[outcome] += 1
        else:
            draws[_draw(snapshot, decision.reason, split, identity, head)] += 1
    return _told(observed, certain, draws)


def _draw(
    snapshot: Snapshot, reason: str, split: Split, identity: Identity, head: RequestHead
) -> Draw:
    """Return what a decision was drawn by, and the arms that it was drawn from."""
    if identity.grants is not None:
        snapshot = snapshot.granting(identity.grants)
    weights = {snapshot.compiled.names[arm]: weight for arm, weight in split.arms.items() if weight}
    arms = tuple(
        (name, weights[name])
        for name in sorted(weights)
        if snapshot.versions[name].cause_to_pass(identity, head) is None
    )
    return reason, compile_unit(split.key)(identity, head), arms


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
    parts = mean, count, max(0.0, mean - reach), min(float(total), mean + reach)
    return Share(*outcome, count, *(round(part / total, DECIMALS) for part in parts))
