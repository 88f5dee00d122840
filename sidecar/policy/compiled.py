"""All of a policy that neither kills nor readiness change, compiled once for each document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from sidecar.model.policy import OnUnavailable, Operators, State
from sidecar.policy.attributes import matchers_of
from sidecar.policy.bucket import Sampler
from sidecar.policy.candidate import Access, Entitlement, compiling_access, compiling_entitlement
from sidecar.policy.lineage import digest
from sidecar.policy.network import making
from sidecar.policy.regex import pattern
from sidecar.policy.ruleset import CompiledRule, RuleIndex
from sidecar.policy.segment import compiling_segments
from sidecar.policy.steps import finish
from sidecar.policy.sticky import compile_unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model.identity import Identity
    from sidecar.model.policy import Policy, Shadow
    from sidecar.model.request import RequestHead
    from sidecar.policy.match import Memberships, Test
    from sidecar.policy.network import Networks
    from sidecar.policy.regex import Pattern
    from sidecar.policy.steps import Steps


MAX_FALLBACKS = 16  # in a row: a request may ask each of them


class CompiledShadow:
    """One shadow; `shadow` names its version and not a label of it.

    `accepts` is what its version is for: a request that it cannot read proves nothing.
    """

    __slots__ = ("_sampler", "_unit", "accepts", "shadow")

    def __init__(self, shadow: Shadow, model: str, accepts: Test | None) -> None:
        self.shadow = shadow
        self.accepts = accepts
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
        if self.accepts is not None and not self.accepts(identity, head):
            return False
        if self._sampler is None:
            return True
        unit = self._unit(identity, head)
        return bool(unit) and self._sampler.sampled(unit)


class CompiledPolicy:
    """One document, compiled: labels resolved, matchers turned into tests, rules indexed.

    `names` leads from every version's name and every label to the version. `chains` has, for each
    version with a fallback, the versions to try after it, in order. `lineages` are digests by
    version, empty where a version tells no lineage.
    """

    __slots__ = (
        "_entitlement",
        "_segments",
        "accesses",
        "chains",
        "default",
        "lineages",
        "names",
        "pins_fall_back",
        "policy",
        "rules",
        "shadows",
    )

    def __init__(  # noqa: PLR0913 -- its parts, made in steps
        self,
        policy: Policy,
        names: Mapping[str, str],
        accesses: Mapping[str, Access],
        rules: RuleIndex,
        segments: Memberships,
        entitlement: Entitlement,
        *,
        lineages: Mapping[str, str],
    ) -> None:
        self._segments = segments
        self._entitlement = entitlement
        self.policy = policy
        self.names = names
        self.accesses = accesses
        self.lineages = lineages
        self.rules = rules
        self.chains = _chains(policy, names)
        self.default = None if policy.default is None else names[policy.default]
        self.pins_fall_back = policy.on_unavailable is OnUnavailable.FALLBACK
        self.shadows = self._shadows()

    def parting(self) -> Steps[list[object]]:
        """Return what it is made of, for whoever lets go of it little by little, in steps.

        The policy comes first, and so goes last: sets of its texts are freed faster while it
        holds them.
        """
        parts: list[object] = [self.policy]
        parts += self.rules.parts()
        yield
        parts += self._tests()
        yield
        parts += self._segments.values()
        yield
        return parts

    def _tests(self) -> list[object]:
        tests: list[object] = [*self._entitlement.tests]
        for access in self.accesses.values():
            tests += access.tests
        for segment in self._segments.values():
            tests += segment.tests
        return tests

    def _shadows(self) -> tuple[CompiledShadow, ...]:
        """Compile the shadows that can get copies: none of a version that is retired."""
        policy, compiled = self.policy, []
        for shadow in policy.shadows:
            version = self.names[shadow.version]
            if shadow.percent > 0 and policy.versions[version].state is not State.RETIRED:
                named = shadow if version == shadow.version else replace(shadow, version=version)
                accepts = self.accesses[version].accepts
                compiled.append(CompiledShadow(named, policy.model, accepts))
        return tuple(compiled)


def compile_policy(policy: Policy) -> CompiledPolicy:
    """Compile a policy that `validate` found good.

    Raises:
        KeyError, ValueError: the policy is not valid.
    """
    return finish(compiling(policy))


def compiling(policy: Policy) -> Steps[CompiledPolicy]:
    """Do what `compile_policy` does, in steps, so that a loop can serve in between."""
    yield  # to let go of what judging it took is work enough for one step
    operands = yield from _operands(policy)  # held until the tests below hold them
    segments = yield from compiling_segments(policy.segments)
    names = _names(policy)
    entitlement = yield from compiling_entitlement(
        policy.allow, policy.deny, segments, policy.default_access
    )
    accesses: dict[str, Access] = {}
    lineages: dict[str, str] = {}
    for name, version in policy.versions.items():
        accesses[name] = yield from compiling_access(version, segments, entitlement)
        lineages[name] = digest(version)
        yield
    rules = RuleIndex()
    for n, rule in enumerate(policy.rules):
        rules.add(CompiledRule(rule, n, policy.model, names, accesses, segments))
        yield
    yield from rules.finishing(segments)
    operands.clear()
    return CompiledPolicy(policy, names, accesses, rules, segments, entitlement, lineages=lineages)


def _names(policy: Policy) -> dict[str, str]:
    names = {name: name for name in policy.versions}
    for label, version in policy.labels.items():
        # A version's own name wins over a label; `validate` refuses such a label.
        names.setdefault(label, names[version])
    return names


def _operands(policy: Policy) -> Steps[list[Pattern | Networks]]:
    """Make what takes long to make, each in steps: whoever holds it need not wait for it."""
    found: list[Pattern | Networks] = []
    for matcher in matchers_of(policy):
        for condition in matcher.values():
            if isinstance(condition, Operators) and condition.regex is not None:
                found.append(pattern(condition.regex))
                yield
            if isinstance(condition, Operators) and condition.cidr is not None:
                found.append((yield from making(condition.cidr)))
        yield
    return found


def _chains(policy: Policy, names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Follow the fallbacks of each version to their end, or to where they come round."""
    following = {
        name: names[version.fallback]
        for name, version in policy.versions.items()
        if version.fallback is not None
    }
    chains: dict[str, tuple[str, ...]] = {}
    for start in following:
        chain: list[str] = []
        name = following.get(start)
        while name is not None and name != start and name not in chain:
            if len(chain) == MAX_FALLBACKS:
                raise ValueError(f'"{start}" has over {MAX_FALLBACKS} fallbacks in a row')
            chain.append(name)
            name = following.get(name)
        chains[start] = tuple(chain)
    return chains
