"""The immutable, indexed form of one policy with pins, kills and readiness, to decide from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import Code
from sidecar.model.decision import Cause, Decision, Reason, Rejected
from sidecar.policy.candidate import Candidate
from sidecar.policy.compiled import compile_policy
from sidecar.policy.ruleset import CompiledRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model.policy import Policy, Shadow
    from sidecar.policy.compiled import CompiledPolicy, CompiledShadow

MAX_PLANS = 16_384  # tenants, about 100 bytes each
MAX_PLANNED_RULES = 262_144  # in the plans of all tenants, 8 bytes each
MAX_INTERNED = 4096  # decisions; a policy has fewer unless it holds hundreds of versions

Plan = Decision | tuple[CompiledRule, ...]
"""What is known of a tenant: the decision itself, or the rules that its requests have to ask."""


class Snapshot:
    """One policy, ready to decide from. Immutable by convention.

    `pins` is read and never copied: its owner changes a pin in place, at once and whatever their
    number. `kills` holds reasons by version or label, that of the whole model under the key "";
    `unready` are the versions without a healthy endpoint. A change of either makes a new
    snapshot by `with_health`. Decisions are interned: equal ones are one object.
    """

    __slots__ = (
        "_planned_rules",
        "barred",
        "chains",
        "compiled",
        "default",
        "explicit",
        "interned",
        "killed",
        "kills",
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
    )

    def __init__(
        self,
        compiled: CompiledPolicy,
        pins: Mapping[str, str],
        kills: Mapping[str, str],
        unready: frozenset[str],
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
            )
            for name, version in policy.versions.items()
        }
        self.barred = frozenset(one.name for one in self.versions.values() if one.passed)
        """Versions that no rule leads to, whoever calls."""
        self.rules = compiled.rules
        self.chains = compiled.chains
        default = compiled.default
        self.default = None if default is None else self.versions[default]
        self.plans: dict[str, Plan] = {}
        self._planned_rules = 0
        self.served: dict[tuple[str, str], Decision] = {}
        self.interned: dict[Decision, Decision] = {}
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
        self.shadows = tuple(one for one in compiled.shadows if self._can_copy(one))
        self.mirrored = self._mirrored()

    def with_health(self, kills: Mapping[str, str], unready: frozenset[str]) -> Snapshot:
        """Return this policy under other kills and readiness; costs by its versions alone."""
        return Snapshot(self.compiled, self.pins, kills, unready)

    def named(self, name: str) -> Candidate | None:
        """Return the version of a name or label."""
        version = self.compiled.names.get(name)
        return None if version is None else self.versions[version]

    def serve(self, version: str, reason: str, rejected: tuple[Rejected, ...] = ()) -> Decision:
        """Return the decision that `version` serves, after what was rejected before it."""
        if rejected:
            decision = Decision(self.model, version, reason, self.revision, rejected)
            return self._intern(decision)
        decided = self.served.get((version, reason))
        if decided is None:
            decided = Decision(self.model, version, reason, self.revision)
            self.served[version, reason] = decided
        return decided

    def refuse(
        self, code: Code, cause: Cause, detail: str, rejected: tuple[Rejected, ...] = ()
    ) -> Decision:
        """Return the decision that nothing serves; `detail` is for the caller to read."""
        reason = f"{Reason.DENIED.value}:{cause.value}"
        decision = Decision(self.model, "", reason, self.revision, rejected, code, detail)
        return self._intern(decision)

    def plan(self, tenant: str, plan: Plan) -> None:
        """Keep what is known of a tenant."""
        if isinstance(plan, tuple) and plan is not self.rules.general:
            self._planned_rules += len(plan)
        if len(self.plans) >= MAX_PLANS or self._planned_rules > MAX_PLANNED_RULES:
            self.plans.clear()
            self._planned_rules = 0
        self.plans[tenant] = plan

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

    def _can_copy(self, one: CompiledShadow) -> bool:
        """Return whether a shadow gets copies; in any state, for tests precede activation."""
        version = one.shadow.version
        return version not in self.killed and version not in self.unready

    def _mirrored(self) -> dict[str, tuple[Shadow, ...]]:
        """Return the shadows by the version that serves, if none of them has to be drawn."""
        if not all(one.takes_all and one.accepts is None for one in self.shadows):
            return {}
        return {
            name: tuple(one.shadow for one in self.shadows if one.shadow.version != name)
            for name in self.versions
        }


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
