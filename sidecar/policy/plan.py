"""What another policy would change: contexts of real requests, replayed through both.

Requests are counted as many times as their contexts stand for. A context that does not tell what
one of the policies asks for is unknown, unless that cannot matter to its decision; it is counted as
such and nowhere else. What is ready, the snapshots say.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from sidecar.policy.attributes import head_of, identity_of
from sidecar.policy.gaps import Gaps
from sidecar.policy.resolver import resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sidecar.model.context import Context
    from sidecar.model.decision import Decision
    from sidecar.policy.snapshot import Snapshot

DECIMALS = 9  # of what is added up: the rest of a sum of floats is dust
MIN_SPAN_S = 1.0  # of contexts that came at once, to tell a rate of


class Side(Struct, frozen=True):
    """What a version has by one of the policies; nothing in particular for the version "".

    `concurrency` is how many requests it has at a time, on average: rate times latency (Little's
    law), of the sidecar that has most.
    """

    requests: float = 0.0
    share: float = 0.0
    tenants: int = 0
    concurrency: float = 0.0
    max_concurrency: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether the version would have more than its limit."""
        return self.max_concurrency is not None and self.concurrency > self.max_concurrency


class Change(Struct, frozen=True):
    """A version before and after; the version "" is for requests that are refused."""

    version: str
    before: Side
    after: Side


class Move(Struct, frozen=True):
    """Requests of one tenant that another version would serve; one of both is "" when refused.

    `reason` is why, and `detail` what a caller that is refused would read.
    """

    tenant: str
    before: str
    after: str
    requests: float
    reason: str
    detail: str = ""


class Unknown(Struct, frozen=True):
    """Contexts whose decision hangs on an attribute that they do not tell."""

    attribute: str
    contexts: int
    requests: float


class Plan(Struct, frozen=True):
    """What would change for one model, estimated from so many contexts of so many requests.

    `decided_otherwise` requests got another version when they came than they would get now by the
    policy `before`: another revision decided, or pins, kills or endpoints were not what they are.
    """

    model: str
    contexts: int
    requests: float
    instances: int
    from_s: float
    until_s: float
    versions: tuple[Change, ...]
    moves: tuple[Move, ...]
    unknown: tuple[Unknown, ...]
    unknown_contexts: int
    unknown_requests: float
    decided_otherwise: float

    @property
    def refused(self) -> tuple[Move, ...]:
        """The moves of requests that would be refused."""
        return tuple(move for move in self.moves if not move.after)

    @property
    def over(self) -> tuple[Change, ...]:
        """The versions that would have more than their limit."""
        return tuple(one for one in self.versions if one.after.is_over)


class Replayed(NamedTuple):
    """A context and what both policies make of its request."""

    context: Context
    before: Decision
    after: Decision


def plan(model: str, contexts: Sequence[Context], before: Snapshot, after: Snapshot) -> Plan:
    """Return what `after` in the place of `before` would change for the requests of `contexts`."""
    known: list[Replayed] = []
    gaps: dict[str, list[Context]] = defaultdict(list)
    unknown: list[Context] = []
    judges = _Judge(before), _Judge(after)
    for context in contexts:
        decisions, missing = zip(*(judge.decide(context) for judge in judges), strict=True)
        lacking = sorted(missing[0] | missing[1])
        if not lacking:
            known.append(Replayed(context, *decisions))
            continue
        unknown.append(context)
        for attribute in lacking:
            gaps[attribute].append(context)
    return Plan(
        model=model,
        contexts=len(contexts),
        requests=_requests(contexts),
        instances=len({one.instance for one in contexts}),
        from_s=min((one.at_s for one in contexts), default=0.0),
        until_s=max((one.at_s for one in contexts), default=0.0),
        versions=_versions(known, _Loads(contexts), before, after),
        moves=_moves(known),
        unknown=tuple(
            Unknown(attribute, len(found), _requests(found))
            for attribute, found in sorted(gaps.items())
        ),
        unknown_contexts=len(unknown),
        unknown_requests=_requests(unknown),
        decided_otherwise=_requests(
            one.context for one in known if one.context.version != one.before.version
        ),
    )


class _Judge:
    """Decides by one snapshot, and says what it would have needed to know."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._gaps: dict[frozenset[str], Gaps] = {}

    def decide(self, context: Context) -> tuple[Decision, frozenset[str]]:
        identity, head = identity_of(context), head_of(context)
        decision = resolve(self._snapshot, identity, head)
        told = frozenset(context.attributes)
        gaps = self._gaps.get(told)
        if gaps is None:
            gaps = self._gaps[told] = Gaps(self._snapshot.policy, told)
        return decision, gaps.met(identity, head, decision)


def _requests(contexts: Iterable[Context]) -> float:
    return round(sum(one.stands_for for one in contexts), DECIMALS)


def _moves(known: Iterable[Replayed]) -> tuple[Move, ...]:
    moved: dict[tuple[str, str, str, str, str], float] = defaultdict(float)
    for one in known:
        before, after = one.before, one.after
        if before.version != after.version:
            key = one.context.tenant, before.version, after.version, after.reason, after.detail
            moved[key] += one.context.stands_for
    moves = [
        Move(tenant, source, target, round(requests, DECIMALS), reason, detail)
        for (tenant, source, target, reason, detail), requests in moved.items()
    ]
    return tuple(sorted(moves, key=lambda move: (-move.requests, move.tenant, move.after)))


def _versions(
    known: Sequence[Replayed], loads: _Loads, before: Snapshot, after: Snapshot
) -> tuple[Change, ...]:
    sides = (
        _sides([(one.context, one.before.version) for one in known], loads, before),
        _sides([(one.context, one.after.version) for one in known], loads, after),
    )
    names = sorted(sides[0].keys() | sides[1].keys(), key=lambda name: (not name, name))
    return tuple(
        Change(name, sides[0].get(name, Side()), sides[1].get(name, Side())) for name in names
    )


def _sides(
    served: Sequence[tuple[Context, str]], loads: _Loads, snapshot: Snapshot
) -> dict[str, Side]:
    """Return what each version of a policy gets, and under "" what is refused."""
    by_version: dict[str, list[Context]] = {name: [] for name in snapshot.policy.versions}
    for context, version in served:
        by_version.setdefault(version, []).append(context)
    whole = _requests(context for context, _ in served)
    versions = snapshot.policy.versions
    return {
        name: Side(
            requests=_requests(found),
            share=round(_requests(found) / whole, DECIMALS) if whole else 0.0,
            tenants=len({one.tenant for one in found}),
            concurrency=loads.concurrency(name, found) if name else 0.0,
            max_concurrency=versions[name].max_concurrency if name in versions else None,
        )
        for name, found in by_version.items()
    }


class _Loads:
    """How long sidecars were watched, and how long versions took for a request."""

    def __init__(self, contexts: Sequence[Context]) -> None:
        times: dict[str, list[float]] = defaultdict(list)
        served: dict[str, list[Context]] = defaultdict(list)
        for one in contexts:
            times[one.instance].append(one.at_s)
            if one.version:
                served[one.version].append(one)
        self._spans_s = {
            instance: max(max(found) - min(found), MIN_SPAN_S) for instance, found in times.items()
        }
        self._means_s = {version: _mean_s(found) for version, found in served.items()}
        self._mean_s = _mean_s([one for found in served.values() for one in found])

    def concurrency(self, version: str, contexts: Iterable[Context]) -> float:
        """Return how many of these requests a version would have at a time, where it has most."""
        busy: dict[str, float] = defaultdict(float)
        for one in contexts:
            seconds = one.stands_for * self._latency_s(version, one)
            busy[one.instance] += seconds / self._spans_s[one.instance]
        return round(max(busy.values(), default=0.0), DECIMALS)

    def _latency_s(self, version: str, context: Context) -> float:
        """Return the version's own latency; else the request's, or of one refused the mean."""
        if version in self._means_s:
            return self._means_s[version]
        return context.duration_s if context.version else self._mean_s


def _mean_s(contexts: Sequence[Context]) -> float:
    requests = _requests(contexts)
    return sum(one.duration_s * one.stands_for for one in contexts) / requests if requests else 0.0
