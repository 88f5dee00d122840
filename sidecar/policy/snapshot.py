"""The immutable, indexed form of one policy with pins, kills and readiness, to decide from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import Code
from sidecar.model.decision import Cause, Decision, Reason, Rejected
from sidecar.policy.bucket import Sampler
from sidecar.policy.candidate import Candidate
from sidecar.policy.ruleset import CompiledRule, RuleIndex
from sidecar.policy.sticky import compile_unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model.identity import Identity
    from sidecar.model.policy import Policy, Shadow
    from sidecar.model.request import RequestHead

MAX_PLANS = 16_384  # tenants, about 100 bytes each
MAX_INTERNED = 4096  # decisions; a policy has fewer unless it holds hundreds of versions

Plan = Decision | tuple[CompiledRule, ...]
"""What is known of a tenant: the decision itself, or the rules that its requests have to ask."""


class CompiledShadow:
    """One shadow whose version can serve."""

    __slots__ = ("_sampler", "_unit", "shadow")

    def __init__(self, shadow: Shadow, model: str) -> None:
        self.shadow = shadow
        self._unit = compile_unit(shadow.key)
        self._sampler: Sampler | None = None
        if not self.takes_all:
            self._sampler = Sampler(f"{model}/{shadow.version}", shadow.percent)

    @property
    def takes_all(self) -> bool:
        """Whether every request is copied, so that there is nothing to draw."""
        return self.shadow.percent == 100  # noqa: PLR2004  # percent

    def takes(self, identity: Identity, head: RequestHead) -> bool:
        """Return whether this request is copied; one without the key's unit is not."""
        if self._sampler is None:
            return True
        unit = self._unit(identity, head)
        return bool(unit) and self._sampler.sampled(unit)


class Snapshot:
    """One policy, ready to decide from. Immutable by convention.

    `pins` is read and never copied: its owner changes a pin in place, at once and whatever their
    number. `kills` holds reasons by version, that of the whole model under the key "";
    `unready` are the versions without a healthy endpoint. A change of either makes a new
    snapshot. Decisions are interned: equal ones are one object.
    """

    __slots__ = (
        "default",
        "explicit",
        "interned",
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
        policy: Policy,
        pins: Mapping[str, str],
        kills: Mapping[str, str],
        unready: frozenset[str],
    ) -> None:
        self.policy = policy
        self.model = policy.model
        self.revision = policy.revision
        self.pins = pins
        self.kills = dict(kills)
        self.unready = unready
        self.versions = {
            name: Candidate(name, version, self._out(name))
            for name, version in policy.versions.items()
        }
        rules = (CompiledRule(rule, self.model, self.versions) for rule in policy.rules)
        self.rules = RuleIndex(tuple(rules))
        self.default = None if policy.default is None else self.versions[policy.default]
        self.plans: dict[str, Plan] = {}
        self.served: dict[tuple[str, str], Decision] = {}
        self.interned: dict[Decision, Decision] = {}
        self.model_killed = self._killed_model()
        # What needs no look at the caller at all: versions that are on and open to everybody.
        ready = [one.name for one in self.versions.values() if one.is_open and one.out is None]
        self.pinned = {name: self.serve(name, Reason.PINNED.value) for name in ready}
        self.explicit = {name.encode(): self.serve(name, Reason.EXPLICIT.value) for name in ready}
        self.shadows = self._live_shadows()
        self.mirrored = self._mirrored()

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
        if len(self.plans) >= MAX_PLANS:
            self.plans.clear()
        self.plans[tenant] = plan

    def _intern(self, decision: Decision) -> Decision:
        if len(self.interned) >= MAX_INTERNED:
            self.interned.clear()
        return self.interned.setdefault(decision, decision)

    def _out(self, version: str) -> Cause | None:
        if version in self.kills:
            return Cause.KILLED
        return Cause.NOT_READY if version in self.unready else None

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

    def _live_shadows(self) -> tuple[CompiledShadow, ...]:
        return tuple(
            CompiledShadow(shadow, self.model)
            for shadow in self.policy.shadows
            if shadow.percent > 0 and self._out(shadow.version) is None
        )

    def _mirrored(self) -> dict[str, tuple[Shadow, ...]]:
        """Return the shadows by the version that serves, if none of them has to be drawn."""
        if not all(one.takes_all for one in self.shadows):
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
    return Snapshot(policy, pins, kills, unready)
