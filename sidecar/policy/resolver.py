"""Pick a version for one request from one snapshot: kill, explicit, pin, rules, default, fallback.

Hot path: the first request of a tenant finds out whether its decision can depend on anything but
the tenant; if not, the decision itself is kept. `tests/policy/test_resolver.py` holds the outcome
equal to a plain reading of the document; `make bench-policy` prints what it costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import Code
from sidecar.model.decision import Cause, Decision, Reason, Rejected
from sidecar.policy.compiled import NO_SHADOWS, Drawn

if TYPE_CHECKING:
    from sidecar.model.identity import Identity
    from sidecar.model.request import RequestHead
    from sidecar.policy.candidate import Candidate
    from sidecar.policy.compiled import CompiledShadow
    from sidecar.policy.ruleset import CompiledRule
    from sidecar.policy.snapshot import Snapshot
    from sidecar.policy.sticky import CompiledSplit

# An enum member's value costs a descriptor call each time.
_EXPLICIT = Reason.EXPLICIT.value
_PINNED = Reason.PINNED.value
_DEFAULT = Reason.DEFAULT.value
_FALLBACK = Reason.FALLBACK.value
_WORDS = {
    Cause.UNKNOWN: "does not exist",
    Cause.NOT_ENTITLED: "is not open to this caller",
    Cause.KILLED: "is switched off",
    Cause.NOT_ACTIVE: "is not active yet",
    Cause.RETIRED: "is retired",
    Cause.NOT_READY: "is not ready",
    Cause.INCOMPATIBLE: "does not accept such requests",
}


def resolve(snapshot: Snapshot, identity: Identity, head: RequestHead) -> Decision:
    """Return which version serves a request, or why none does."""
    if snapshot.model_killed is not None:
        return snapshot.model_killed
    grants = identity.grants
    if grants is not None:
        snapshot = snapshot.granting(grants)
    if head.asked_version is not None:
        return _explicit(snapshot, identity, head, head.asked_version)
    tenant = identity.tenant
    version = snapshot.pins.get(tenant)
    if version is not None:
        pinned = snapshot.pinned.get(version)
        return pinned if pinned is not None else _pinned(snapshot, identity, head, version)
    plan = snapshot.plans.get(tenant)
    if plan is None:
        return _plan(snapshot, identity, head)
    if isinstance(plan, tuple):  # compiled, this is a tenth of what asking for a Decision costs
        return _Walk(snapshot, identity, head).decide(snapshot.rules.asked(plan, identity, head))
    return plan


def fallback_of(
    snapshot: Snapshot, identity: Identity, head: RequestHead, decision: Decision, cause: Cause
) -> Decision | None:
    """Return who serves instead of a decision's version, which failed before an answer began.

    That is the next of its fallback chain that may serve this request and was not tried for it.
    None when nobody may: who asks for a version gets no other, and who is pinned to one only
    if the policy says so.
    """
    if decision.refusal is not None or decision.reason == _EXPLICIT:
        return None
    if decision.reason == _PINNED and not snapshot.compiled.pins_fall_back:
        return None
    if identity.grants is not None:
        snapshot = snapshot.granting(identity.grants)
    failed = Rejected(decision.version, cause)
    return _Walk(snapshot, identity, head, (*decision.rejected, failed)).fall_back((failed,))


def shadows_for(
    snapshot: Snapshot, identity: Identity, head: RequestHead, decision: Decision
) -> Drawn:
    """Return the shadows that a request is eligible for: none of a refused one."""
    version = decision.version
    if not snapshot.shadows or not version:
        return NO_SHADOWS
    mirrored = snapshot.mirrored.get(version)
    return _draw(snapshot, identity, head, version) if mirrored is None else mirrored


def _draw(snapshot: Snapshot, identity: Identity, head: RequestHead, version: str) -> Drawn:
    due: list[CompiledShadow] = []
    spared: list[CompiledShadow] = []
    idle: list[CompiledShadow] = []
    for one in snapshot.shadows:
        name = one.shadow.version
        if name == version or not one.concerns(identity, head):
            continue
        if not one.takes(identity, head):
            spared.append(one)
        elif name in snapshot.idle:
            idle.append(one)
        else:
            due.append(one)
    return Drawn(tuple(due), tuple(spared), tuple(idle))


def _explicit(snapshot: Snapshot, identity: Identity, head: RequestHead, asked: bytes) -> Decision:
    ready = snapshot.explicit.get(asked)
    if ready is not None:
        return ready
    # Not echoed: what a client made up stays out of decisions, which are kept.
    candidate = snapshot.named(asked.decode("utf-8", "replace"))
    if candidate is None:
        detail = f'the model "{snapshot.model}" has no such version'
        return snapshot.refuse(Code.NO_SUCH_VERSION, Cause.UNKNOWN, detail)
    cause = candidate.cause(identity, head)
    if cause is None:
        return snapshot.serve(candidate.name, _EXPLICIT)
    return _refuse_version(snapshot, candidate.name, cause, "the version asked for,")


def _pinned(snapshot: Snapshot, identity: Identity, head: RequestHead, version: str) -> Decision:
    which = "the version that this tenant is pinned to,"
    candidate = snapshot.named(version)
    if candidate is None:
        return _refuse_version(snapshot, version, Cause.UNKNOWN, which)
    cause = candidate.cause(identity, head)
    if cause is None:
        return snapshot.serve(candidate.name, _PINNED)
    if snapshot.compiled.pins_fall_back:
        rejected = (Rejected(candidate.name, cause),)
        decision = _Walk(snapshot, identity, head, rejected).fall_back(rejected)
        if decision is not None:
            return decision
    return _refuse_version(snapshot, candidate.name, cause, which)


def _refuse_version(snapshot: Snapshot, version: str, cause: Cause, which: str) -> Decision:
    detail = f"{which} {version}, {_WORDS[cause]}"
    is_barred = cause is Cause.NOT_ENTITLED
    code = Code.VERSION_FORBIDDEN if is_barred else Code.VERSION_UNAVAILABLE
    return snapshot.refuse(code, cause, detail, (Rejected(version, cause),))


def _plan(snapshot: Snapshot, identity: Identity, head: RequestHead) -> Decision:
    rules = snapshot.rules.rules_for(identity, head)
    walk = _Walk(snapshot, identity, head)
    decision = walk.decide(snapshot.rules.asked(rules, identity, head))
    snapshot.plan(identity.tenant, rules if walk.is_variable else decision)
    return decision


class _Walk:
    """One request on its way through rules, default and fallbacks.

    `is_variable` tells afterwards whether another request of the tenant may fare differently.
    """

    __slots__ = ("_head", "_identity", "_rejected", "_snapshot", "is_variable")

    def __init__(
        self,
        snapshot: Snapshot,
        identity: Identity,
        head: RequestHead,
        rejected: tuple[Rejected, ...] = (),
    ) -> None:
        self._snapshot = snapshot
        self._identity = identity
        self._head = head
        self._rejected = rejected
        self.is_variable = False

    def decide(self, rules: tuple[CompiledRule, ...]) -> Decision:
        for rule in rules:
            if rule.is_variable:
                self.is_variable = True
            test = rule.test
            if test is None or test(self._identity, self._head):
                decision = self._apply(rule)
                if decision is not None:
                    self._reach(rule.place)
                    return decision
        self._reach(self._snapshot.rules.end)
        default = self._snapshot.default
        if default is not None and self._accepts(default):
            return self._snapshot.serve(default.name, _DEFAULT, self._rejected)
        return self.fall_back(self._rejected) or self._nothing()

    def fall_back(self, failed: tuple[Rejected, ...]) -> Decision | None:
        """Return the decision for the first version of the failed ones' chains that may serve."""
        snapshot = self._snapshot
        for one in failed:
            for name in snapshot.chains.get(one.version, ()):
                if self._accepts(snapshot.versions[name]):
                    reason = f"{_FALLBACK}:{one.cause.value}"
                    return snapshot.serve(name, reason, self._rejected)
        return None

    def _reach(self, place: int) -> None:
        """Note whether another request may have rules of its own before this place."""
        if place > self._snapshot.rules.first_keyed:
            self.is_variable = True

    def _apply(self, rule: CompiledRule) -> Decision | None:
        """Return the decision of a rule that matches; None passes the request to the next one."""
        served, split = rule.serve, rule.split
        if rule.deny is not None:
            refusal = Code.TENANT_DENIED
            return self._snapshot.refuse(refusal, Cause.RULE, rule.deny, self._rejected)
        if split is not None:
            unit = split.unit(self._identity, self._head)
            if unit:
                return self._draw(rule.split_reason, split, unit)
            served = rule.otherwise
        if served is None or not self._accepts(self._snapshot.versions[served]):
            return None
        return self._snapshot.serve(served, rule.reason, self._rejected)

    def _draw(self, reason: str, split: CompiledSplit, unit: bytes) -> Decision | None:
        snapshot, eligible = self._snapshot, split.arms
        if not split.is_open or not snapshot.barred.isdisjoint(eligible):
            eligible = tuple([arm for arm in split.arms if self._accepts(snapshot.versions[arm])])
            if not eligible:
                return None
        return snapshot.serve(split.choose(unit, eligible), reason, self._rejected)

    def _accepts(self, candidate: Candidate) -> bool:
        """Return whether a version may serve; note why not. Who was rejected stays so."""
        if candidate.access.is_variable:
            self.is_variable = True
        for one in self._rejected:
            if one.version == candidate.name:
                return False
        cause = candidate.cause_to_pass(self._identity, self._head)
        if cause is None:
            return True
        self._rejected = (*self._rejected, Rejected(candidate.name, cause))
        return False

    def _nothing(self) -> Decision:
        snapshot, rejected = self._snapshot, self._rejected
        versions = snapshot.versions.values()
        causes = [one.cause for one in rejected if one.cause is not Cause.NOT_ENTITLED]
        model = f'the model "{snapshot.model}"'
        if causes:
            detail = f"{model} has no version that may serve this caller now"
            return snapshot.refuse(Code.NO_ELIGIBLE_VERSION, causes[0], detail, rejected)
        self.is_variable = self.is_variable or any(one.access.is_variable for one in versions)
        if rejected or all(self._is_barred(one) for one in versions):
            detail = f"no version of {model} is open to this caller"
            return snapshot.refuse(Code.TENANT_DENIED, Cause.NOT_ENTITLED, detail, rejected)
        detail = f"no rule of {model} chose a version, and it has no default"
        return snapshot.refuse(Code.NO_ELIGIBLE_VERSION, Cause.NO_DEFAULT, detail)

    def _is_barred(self, candidate: Candidate) -> bool:
        return candidate.cause(self._identity, self._head) is Cause.NOT_ENTITLED
