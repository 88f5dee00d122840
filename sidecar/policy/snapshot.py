"""The immutable, indexed form of one policy with pins, kills and readiness, to decide from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import Code
from sidecar.model.decision import Cause, Decision, Reason, Rejected
from sidecar.policy import grant
from sidecar.policy.candidate import Candidate
from sidecar.policy.compiled import NO_SHADOWS, Drawn, compile_policy
from sidecar.policy.ruleset import CompiledRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model.policy import Policy
    from sidecar.policy.compiled import CompiledPolicy

MAX_PLANS = 16_384  # tenants, about 100 bytes each
MAX_PLANNED_RULES = 262_144  # in the plans of all tenants, 8 bytes each
MAX_INTERNED = 4096  # decisions; a policy has fewer unless it holds hundreds of versions
MAX_VIEWS = 256  # sets of versions that tokens grant
MAX_VIEWED = 16_384  # versions in all views, about 150 bytes each
LISTS_A_VIEW = 4  # of grants, whose versions are known: many mean the same

Plan = Decision | tuple[CompiledRule, ...]
"""What is known of a tenant: the decision itself, or the rules that its requests have to ask."""


class Memory:
    """What is known of tenants, in a snapshot and its views: bounded as a whole."""

    __slots__ = ("_every", "_rules", "_tenants")

    def __init__(self) -> None:
        self._every: list[dict[str, Plan]] = []
        self._tenants = 0
        self._rules = 0

    def open(self) -> dict[str, Plan]:
        """Return a new dict of plans by tenant; whoever reads it writes by `keep` alone."""
        plans: dict[str, Plan] = {}
        self._every.append(plans)
        return plans

    def keep(self, plans: dict[str, Plan], tenant: str, plan: Plan, rules: int) -> None:
        """Keep what is known of a tenant; `rules` are those that its plan holds by itself."""
        self._tenants += 1
        self._rules += rules
        if self._tenants > MAX_PLANS or self._rules > MAX_PLANNED_RULES:
            for one in self._every:
                one.clear()
            self._tenants, self._rules = 1, rules
        plans[tenant] = plan

    def forget_views(self) -> None:
        """Let go of all plans but those that were opened first."""
        del self._every[1:]


class Snapshot:
    """One policy, ready to decide from. Immutable by convention.

    `pins` is read and never copied: its owner changes a pin in place, at once and whatever their
    number. `kills` holds reasons by version or label, that of the whole model under the key "";
    `unready` are the versions without a healthy endpoint. A change of either makes a new
    snapshot by `with_health`. Decisions are interned: equal ones are one object.

    A view is what a snapshot is to callers whose token grants some versions: `of` is the snapshot,
    `granted` are the versions.
    """

    __slots__ = (
        "_granted",
        "barred",
        "chains",
        "compiled",
        "default",
        "explicit",
        "idle",
        "interned",
        "killed",
        "kills",
        "memory",
        "mirrored",
        "model",
        "model_killed",
        "pinned",
        "pins",
        "plans",
        "policy",
        "revision",
        "rules",
        "served",
        "shadows",
        "unready",
        "versions",
        "views",
    )

    def __init__(
        self,
        compiled: CompiledPolicy,
        pins: Mapping[str, str],
        kills: Mapping[str, str],
        unready: frozenset[str],
        of: Snapshot | None = None,
        granted: frozenset[str] | None = None,
    ) -> None:
        policy = compiled.policy
        self.compiled = compiled
        self.policy = policy
        self.model = policy.model
        self.revision = policy.revision
        self.pins = pins
        self.kills = dict(kills)
        self.killed = frozenset(compiled.names.get(name, name) for name in kills)
        self.unready = unready
        self.versions = {
            name: Candidate(
                name,
                compiled.accesses[name],
                version.state,
                is_killed=name in self.killed,
                is_ready=name not in unready,
                is_granted=granted is None or name in granted,
            )
            for name, version in policy.versions.items()
        }
        self.barred = frozenset(one.name for one in self.versions.values() if one.passed)
        """Versions that no rule leads to, whoever calls."""
        self.rules = compiled.rules
        self.chains = compiled.chains
        default = compiled.default
        self.default = None if default is None else self.versions[default]
        self.memory: Memory = Memory() if of is None else of.memory
        self.plans = self.memory.open()
        self.served: dict[tuple[str, str], Decision] = {} if of is None else of.served
        self.interned: dict[Decision, Decision] = {} if of is None else of.interned
        self._granted: dict[tuple[str, ...], frozenset[str]] = {}
        self.views: dict[frozenset[str], Snapshot] = {}
        self.model_killed = self._killed_model()
        # What needs no look at the caller at all, by name and by label.
        ready = [
            (name, version)
            for name, version in compiled.names.items()
            if self.versions[version].serves_all
        ]
        self.pinned = {name: self.serve(version, Reason.PINNED.value) for name, version in ready}
        self.explicit = {
            name.encode(): self.serve(version, Reason.EXPLICIT.value) for name, version in ready
        }
        # Grants are about answers, which no caller gets of a shadow.
        self.shadows = compiled.shadows
        self.idle: frozenset[str] = self._idle() if of is None else of.idle
        """Versions of shadows that get no copies now."""
        self.mirrored: dict[str, Drawn] = self._mirrored() if of is None else of.mirrored

    def with_health(self, kills: Mapping[str, str], unready: frozenset[str]) -> Snapshot:
        """Return this policy under other kills and readiness; costs by its versions alone."""
        return Snapshot(self.compiled, self.pins, kills, unready)

    def granting(self, grants: Mapping[str, tuple[str, ...]]) -> Snapshot:
        """Return this policy as it is to callers whose token has these grants, by model.

        What they do not mean is barred as if `deny` named the caller, whatever else leads to it.
        """
        texts = grant.of_model(grants, self.model)
        granted = self._granted.get(texts)
        if granted is None:
            if len(self._granted) >= LISTS_A_VIEW * self._most_views():
                self._granted.clear()
            granted = self._granted[texts] = grant.granted(texts, self.policy)
        if len(granted) == len(self.versions):
            return self
        view = self.views.get(granted)
        return self._view(granted) if view is None else view

    def named(self, name: str) -> Candidate | None:
        """Return the version of a name or label."""
        version = self.compiled.names.get(name)
        return None if version is None else self.versions[version]

    def serve(self, version: str, reason: str, rejected: tuple[Rejected, ...] = ()) -> Decision:
        """Return the decision that `version` serves, after what was rejected before it."""
        if rejected:
            return self._intern(self._serving(version, reason, rejected))
        decided = self.served.get((version, reason))
        if decided is None:
            decided = self.served[version, reason] = self._serving(version, reason, ())
        return decided

    def _serving(self, version: str, reason: str, rejected: tuple[Rejected, ...]) -> Decision:
        lineage = self.compiled.lineages[version]
        return Decision(self.model, version, reason, self.revision, rejected, lineage=lineage)

    def refuse(
        self, code: Code, cause: Cause, detail: str, rejected: tuple[Rejected, ...] = ()
    ) -> Decision:
        """Return the decision that nothing serves; `detail` is for the caller to read."""
        reason = f"{Reason.DENIED.value}:{cause.value}"
        decision = Decision(self.model, "", reason, self.revision, rejected, code, detail)
        return self._intern(decision)

    def plan(self, tenant: str, plan: Plan) -> None:
        """Keep what is known of a tenant."""
        rules = 0
        if isinstance(plan, tuple) and plan is not self.rules.general:
            rules = len(plan)
        self.memory.keep(self.plans, tenant, plan, rules)

    def _view(self, granted: frozenset[str]) -> Snapshot:
        if len(self.views) >= self._most_views():
            self.views.clear()
            self.memory.forget_views()
        view = Snapshot(self.compiled, self.pins, self.kills, self.unready, self, granted)
        self.views[granted] = view
        return view

    def _most_views(self) -> int:
        return min(MAX_VIEWS, max(1, MAX_VIEWED // max(1, len(self.versions))))

    def _intern(self, decision: Decision) -> Decision:
        if len(self.interned) >= MAX_INTERNED:
            self.interned.clear()
        return self.interned.setdefault(decision, decision)

    def _killed_model(self) -> Decision | None:
        if "" not in self.kills:
            return None
        return Decision(
            self.model,
            "",
            Reason.KILLED.value,
            self.revision,
            refusal=Code.NO_ELIGIBLE_VERSION,
            detail=f'the model "{self.model}" is switched off',
        )

    def _idle(self) -> frozenset[str]:
        """Return the idle shadows; a version's state is no reason: tests precede activation."""
        off = [one.shadow.version for one in self.shadows if not one.shadow.enabled]
        return self.killed | self.unready | frozenset(off)

    def _mirrored(self) -> dict[str, Drawn]:
        """Return what is drawn by the version that serves, if none has to be asked or drawn."""
        if not all(one.takes_all and one.is_for_all for one in self.shadows):
            return {}
        drawn = {}
        for name in self.versions:
            concerned = [one for one in self.shadows if one.shadow.version != name]
            due = tuple([one for one in concerned if one.shadow.version not in self.idle])
            idle = tuple([one for one in concerned if one.shadow.version in self.idle])
            drawn[name] = Drawn(due, (), idle) if concerned else NO_SHADOWS
        return drawn


def compile_snapshot(
    policy: Policy,
    pins: Mapping[str, str],
    kills: Mapping[str, str],
    unready: frozenset[str] = frozenset(),
) -> Snapshot:
    """Index a policy that `validate` found good; `unready` versions have no healthy endpoint.

    Raises:
        KeyError, ValueError: the policy is not valid.
    """
    return Snapshot(compile_policy(policy), pins, kills, unready)
