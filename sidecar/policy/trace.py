"""A decision told step by step: everything that was asked on the way to it, and what was found.

It walks the document as it stands, one condition at a time, where the resolver takes short cuts.
`tests/policy/test_trace.py` holds both to the same decision.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from sidecar.errors import Code
from sidecar.model.decision import Cause, Decision, Reason, Rejected
from sidecar.model.identity import JSON
from sidecar.model.policy import State
from sidecar.policy import bucket
from sidecar.policy.barrier import Barrier, Barriers
from sidecar.policy.match import compile_matcher, reader, segments_named
from sidecar.policy.segment import compile_segments
from sidecar.policy.sticky import compile_unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.model.identity import Identity
    from sidecar.model.policy import Condition, Rule, Split
    from sidecar.model.request import RequestHead
    from sidecar.policy.snapshot import Snapshot


class Asked(Enum):
    """What a step is about; a decision asks them in this order."""

    KILL = "kill"
    EXPLICIT = "explicit"
    PIN = "pin"
    RULE = "rule"
    DEFAULT = "default"
    FALLBACK = "fallback"


class Outcome(Enum):
    """What came of a step: it ends the search by a version or a refusal, or the next is asked."""

    NO = "no"  # it does not concern this request
    PASSED_OVER = "passed over"  # it does, but its versions may not serve
    SERVES = "serves"
    REFUSES = "refuses"


class Checked(Struct, frozen=True, omit_defaults=True):
    """One condition: what it wants of an attribute, the values seen, and whether it holds.

    `excluded` are the segments asked for whose `exclude` decides that the caller is not in them.
    """

    attribute: str
    wanted: JSON
    seen: list[JSON]
    holds: bool
    excluded: tuple[str, ...] = ()


class Draw(Struct, frozen=True):
    """A split's draw: the value of its key, the arms that may serve with weights, the one drawn.

    `unit` is None for a request without the key.
    """

    key: str
    unit: str | None
    arms: dict[str, int]
    drawn: str | None


class Step(Struct, frozen=True, omit_defaults=True):
    """One thing that was asked; `of` is the rule's id, or the version as it was named."""

    asked: Asked
    outcome: Outcome
    of: str = ""
    version: str = ""
    conditions: tuple[Checked, ...] = ()
    draw: Draw | None = None
    rejected: tuple[Rejected, ...] = ()


class Standing(Struct, frozen=True):
    """A version as this request finds it: why it may not serve, by name and by a rule.

    `barrier` says more of one that the caller is not entitled to.
    """

    version: str
    state: State
    labels: tuple[str, ...]
    by_name: Cause | None
    by_rule: Cause | None
    barrier: Barrier | None = None


class Trace(Struct, frozen=True):
    """All that led to a decision, whose `detail` is left empty.

    `unreached` is the number of rules that were not asked any more.
    """

    versions: tuple[Standing, ...]
    steps: tuple[Step, ...]
    unreached: int
    decision: Decision


def trace(snapshot: Snapshot, identity: Identity, head: RequestHead) -> Trace:
    """Return every step of the decision that `resolve` takes for a request."""
    if identity.grants is not None:
        snapshot = snapshot.granting(identity.grants)
    walk = _Walk(snapshot, identity, head)
    decision = walk.decide()
    rules = sum(step.asked is Asked.RULE for step in walk.steps)
    unreached = len(snapshot.policy.rules) - rules
    return Trace(tuple(walk.standings()), tuple(walk.steps), unreached, decision)


class _Walk:
    """One request on its way through one document."""

    def __init__(self, snapshot: Snapshot, identity: Identity, head: RequestHead) -> None:
        self._snapshot = snapshot
        self._policy = snapshot.policy
        self._segments = compile_segments(snapshot.policy.segments)
        self._identity = identity
        self._head = head
        self._rejected: list[Rejected] = []
        self.steps: list[Step] = []

    def standings(self) -> Iterator[Standing]:
        """Yield each version with what keeps it from serving this request."""
        barriers = Barriers(self._policy)
        for name, version in self._policy.versions.items():
            candidate = self._snapshot.versions[name]
            labels = tuple(
                one for one, of in self._snapshot.compiled.names.items() if of == name != one
            )
            by_name = candidate.cause(self._identity, self._head)
            by_rule = candidate.cause_to_pass(self._identity, self._head)
            barrier = barriers.met(name, self._identity, self._head)
            yield Standing(name, version.state, labels, by_name, by_rule, barrier)

    def decide(self) -> Decision:
        if self._snapshot.model_killed is not None:
            self._step(Asked.KILL, Outcome.REFUSES)
            return self._refuse(Code.NO_ELIGIBLE_VERSION, Reason.KILLED.value)
        self._step(Asked.KILL, Outcome.NO)
        asked = self._head.asked_version
        if asked is not None:
            return self._explicit(asked.decode("utf-8", "replace"))
        self._step(Asked.EXPLICIT, Outcome.NO)
        pin = self._snapshot.pins.get(self._identity.tenant)
        if pin is not None:
            return self._pinned(pin)
        self._step(Asked.PIN, Outcome.NO)
        return self._by_rules()

    def _explicit(self, asked: str) -> Decision:
        candidate = self._snapshot.named(asked)
        if candidate is None:
            self._step(Asked.EXPLICIT, Outcome.REFUSES, asked)
            return self._denied(Code.NO_SUCH_VERSION, Cause.UNKNOWN)
        return self._by_name(Asked.EXPLICIT, Reason.EXPLICIT, asked, candidate.name)

    def _pinned(self, pin: str) -> Decision:
        candidate = self._snapshot.named(pin)
        if candidate is None:
            self._rejected.append(Rejected(pin, Cause.UNKNOWN))
            self._step(Asked.PIN, Outcome.REFUSES, pin, rejected=tuple(self._rejected))
            return self._denied(Code.VERSION_UNAVAILABLE, Cause.UNKNOWN)
        return self._by_name(Asked.PIN, Reason.PINNED, pin, candidate.name)

    def _by_name(self, asked: Asked, reason: Reason, named: str, version: str) -> Decision:
        """Serve the version that was named, or refuse: no rule is asked any more."""
        cause = self._snapshot.versions[version].cause(self._identity, self._head)
        if cause is None:
            self._step(asked, Outcome.SERVES, named, version)
            return self._serve(version, reason.value)
        failed = Rejected(version, cause)
        self._rejected = [failed]
        if asked is Asked.PIN and self._snapshot.compiled.pins_fall_back:
            self._step(asked, Outcome.PASSED_OVER, named, version, rejected=(failed,))
            decision = self._fall_back((failed,))
            if decision is not None:
                return decision
            self._rejected = [failed]
        else:
            self._step(asked, Outcome.REFUSES, named, version, rejected=(failed,))
        is_barred = cause is Cause.NOT_ENTITLED
        code = Code.VERSION_FORBIDDEN if is_barred else Code.VERSION_UNAVAILABLE
        return self._denied(code, cause)

    def _by_rules(self) -> Decision:
        for rule in self._policy.rules:
            decision = self._rule(rule)
            if decision is not None:
                return decision
        default = self._snapshot.default
        if default is None:
            self._step(Asked.DEFAULT, Outcome.NO)
        else:
            named, before = self._policy.default or "", len(self._rejected)
            if self._accepts(default.name):
                self._step(Asked.DEFAULT, Outcome.SERVES, named, default.name)
                return self._serve(default.name, Reason.DEFAULT.value)
            rejected = tuple(self._rejected[before:])
            self._step(Asked.DEFAULT, Outcome.PASSED_OVER, named, default.name, rejected=rejected)
        return self._fall_back(tuple(self._rejected)) or self._nothing()

    def _rule(self, rule: Rule) -> Decision | None:
        """Ask one rule; None when the next one has to be asked."""
        conditions = tuple(self._check(*entry) for entry in rule.when.items())
        before = len(self._rejected)
        draw: Draw | None = None
        version, reason = "", f"{Reason.RULE.value}:{rule.id}"
        if not all(one.holds for one in conditions):
            self._step(Asked.RULE, Outcome.NO, rule.id, conditions=conditions)
            return None
        if rule.deny is not None:
            self._step(Asked.RULE, Outcome.REFUSES, rule.id, conditions=conditions)
            return self._denied(Code.TENANT_DENIED, Cause.RULE)
        served = rule.serve
        if rule.split is not None:
            draw = self._draw(rule.split, rule.id)
            if draw.unit is not None:
                version, reason = draw.drawn or "", f"{Reason.SPLIT.value}:{rule.id}"
            served = rule.split.otherwise if draw.unit is None else None
        if served is not None:
            name = self._snapshot.compiled.names[served]
            version = name if self._accepts(name) else ""
        rejected = tuple(self._rejected[before:])
        outcome = Outcome.SERVES if version else Outcome.PASSED_OVER
        self.steps.append(Step(Asked.RULE, outcome, rule.id, version, conditions, draw, rejected))
        return self._serve(version, reason) if version else None

    def _check(self, attribute: str, condition: Condition) -> Checked:
        test = compile_matcher({attribute: condition}, self._segments)
        holds = test(self._identity, self._head)
        wanted: JSON = msgspec.to_builtins(condition)
        seen = self._seen(attribute, condition)
        excluded = self._excluded(condition) if attribute == "segment" else ()
        return Checked(attribute, wanted, seen, holds, excluded)

    def _excluded(self, condition: Condition) -> tuple[str, ...]:
        tenant, known = self._identity.tenant, self._policy.segments
        named = sorted(segments_named(condition, known))
        return tuple(
            name
            for name in named
            if tenant and tenant in known[name].exclude and tenant not in known[name].include
        )

    def _seen(self, attribute: str, condition: Condition) -> list[JSON]:
        """Return the values that an attribute has for this request."""
        if attribute == "time":
            return [datetime.fromtimestamp(self._head.at_s, UTC).isoformat(timespec="seconds")]
        if attribute == "segment":
            named = sorted(segments_named(condition, self._segments))
            return [name for name in named if self._segments[name].test(self._identity, self._head)]
        return list(reader(attribute)(self._identity, self._head))

    def _draw(self, split: Split, rule_id: str) -> Draw:
        unit = compile_unit(split.key)(self._identity, self._head)
        names = self._snapshot.compiled.names
        weights = {names[arm]: weight for arm, weight in split.arms.items() if weight}
        if not unit:
            return Draw(split.key, None, weights, None)
        eligible = {name: weights[name] for name in sorted(weights) if self._accepts(name)}
        drawn = None
        if eligible:
            drawn = bucket.choose(eligible, f"{self._policy.model}/{rule_id}", unit)
        return Draw(split.key, unit.decode("utf-8", "replace"), eligible, drawn)

    def _accepts(self, version: str) -> bool:
        """Return whether a rule may lead to a version; note why not, once."""
        if any(one.version == version for one in self._rejected):
            return False
        cause = self._snapshot.versions[version].cause_to_pass(self._identity, self._head)
        if cause is not None:
            self._rejected.append(Rejected(version, cause))
        return cause is None

    def _fall_back(self, failed: tuple[Rejected, ...]) -> Decision | None:
        for one in failed:
            for name in self._snapshot.chains.get(one.version, ()):
                before = len(self._rejected)
                if self._accepts(name):
                    self._step(Asked.FALLBACK, Outcome.SERVES, one.version, name)
                    return self._serve(name, f"{Reason.FALLBACK.value}:{one.cause.value}")
                rejected = tuple(self._rejected[before:])
                self._step(
                    Asked.FALLBACK, Outcome.PASSED_OVER, one.version, name, rejected=rejected
                )
        return None

    def _nothing(self) -> Decision:
        causes = [one.cause for one in self._rejected if one.cause is not Cause.NOT_ENTITLED]
        if causes:
            return self._denied(Code.NO_ELIGIBLE_VERSION, causes[0])
        if self._rejected or all(one.by_name is Cause.NOT_ENTITLED for one in self.standings()):
            return self._denied(Code.TENANT_DENIED, Cause.NOT_ENTITLED)
        return self._denied(Code.NO_ELIGIBLE_VERSION, Cause.NO_DEFAULT)

    def _step(
        self,
        asked: Asked,
        outcome: Outcome,
        of: str = "",
        version: str = "",
        *,
        conditions: tuple[Checked, ...] = (),
        rejected: tuple[Rejected, ...] = (),
    ) -> None:
        self.steps.append(Step(asked, outcome, of, version, conditions, None, rejected))

    def _serve(self, version: str, reason: str) -> Decision:
        model, revision = self._policy.model, self._policy.revision
        lineage = self._snapshot.compiled.lineages[version]
        rejected = tuple(self._rejected)
        return Decision(model, version, reason, revision, rejected, lineage=lineage)

    def _denied(self, code: Code, cause: Cause) -> Decision:
        return self._refuse(code, f"{Reason.DENIED.value}:{cause.value}")

    def _refuse(self, code: Code, reason: str) -> Decision:
        rejected = tuple(self._rejected)
        return Decision(self._policy.model, "", reason, self._policy.revision, rejected, code)
