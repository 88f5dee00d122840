"""All of a policy that neither kills nor readiness change, compiled once for each document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from sidecar.model.policy import OnUnavailable, Operators, State
from sidecar.policy.attributes import every_matcher_of
from sidecar.policy.bucket import Sampler
from sidecar.policy.candidate import Access, Entitlement, compiling_access, compiling_entitlement
from sidecar.policy.lineage import digest
from sidecar.policy.match import any_of, compiling_matchers
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


SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
"""Methods that are copied to whatever version: they change nothing (RFC 9110 section 9.2.1)."""

_WHOLE = 100  # percent


class CompiledShadow:
    """One shadow; `shadow` names its version and not a label of it.

    `methods` are those that may be copied to it, None for any. `control` is the version that
    answers copies of copies, empty for none. `is_for_all` says that every request is eligible, and
    `tests` are those that decide it otherwise.
    """

    __slots__ = (
        "_accepts",
        "_control",
        "_sampler",
        "_unit",
        "_when",
        "control",
        "is_for_all",
        "methods",
        "shadow",
        "takes_all",
        "tests",
    )

    def __init__(
        self,
        shadow: Shadow,
        policy: Policy,
        names: Mapping[str, str],
        accepts: Test | None,
        whens: tuple[Test, ...],
    ) -> None:
        """Compile a shadow; its version is for what it `accepts`, and itself for the `whens`."""
        version = names[shadow.version]
        self.shadow = shadow if version == shadow.version else replace(shadow, version=version)
        self.tests = whens
        self.methods = _methods(shadow, is_idempotent=policy.versions[version].idempotent)
        self.takes_all = shadow.percent == _WHOLE
        """Whether every eligible request is copied, so that there is nothing to draw."""
        self.is_for_all = accepts is None and not whens
        self._accepts = accepts
        self._when = any_of(whens) if whens else None
        self._unit = compile_unit(shadow.key)
        name = f"{policy.model}/{version}"
        self._sampler = None if self.takes_all else Sampler(name, shadow.percent)
        compare = shadow.compare
        named = None if compare is None else compare.control
        self.control = "" if named is None else names[named]
        share = 0.0 if compare is None else compare.control_percent
        self._control = Sampler(f"{name}/control", share)

    def concerns(self, identity: Identity, head: RequestHead) -> bool:
        """Return whether a request is eligible: one that the version cannot read proves nothing."""
        if self._accepts is not None and not self._accepts(identity, head):
            return False
        return self._when is None or self._when(identity, head)

    def takes(self, identity: Identity, head: RequestHead) -> bool:
        """Return whether an eligible request is copied; one without the key's unit is not."""
        if self._sampler is None:
            return True
        unit = self._unit(identity, head)
        return bool(unit) and self._sampler.sampled(unit)

    def may_copy(self, head: RequestHead) -> bool:
        """Return whether requests of this method are copied."""
        return self.methods is None or head.method in self.methods

    def takes_control(self, head: RequestHead) -> bool:
        """Return whether a copy goes to the control, too: drawn for each on its own."""
        return bool(self.control) and self._control.sampled(head.request_id)


class Drawn:
    """The shadows that a request is eligible for: `due` a copy, `spared` by the draw, or `idle`.

    A shadow that is switched off, killed or not ready is idle.
    """

    __slots__ = ("due", "idle", "is_any", "spared")

    def __init__(
        self,
        due: tuple[CompiledShadow, ...] = (),
        spared: tuple[CompiledShadow, ...] = (),
        idle: tuple[CompiledShadow, ...] = (),
    ) -> None:
        self.due = due
        self.spared = spared
        self.idle = idle
        self.is_any = bool(due or spared or idle)


NO_SHADOWS = Drawn()


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
        shadows: tuple[CompiledShadow, ...],
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
        self.shadows = shadows

    def segments_of(self, identity: Identity, head: RequestHead) -> list[str]:
        """Return the segments that a caller is in; off the way of requests, as it asks them all."""
        return [name for name, one in self._segments.items() if one.test(identity, head)]

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
        for shadow in self.shadows:
            tests += shadow.tests
        return tests


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
    shadows = yield from _shadows(policy, names, accesses, segments)
    operands.clear()
    return CompiledPolicy(
        policy, names, accesses, rules, segments, entitlement, lineages=lineages, shadows=shadows
    )


def _names(policy: Policy) -> dict[str, str]:
    names = {name: name for name in policy.versions}
    for label, version in policy.labels.items():
        # A version's own name wins over a label; `validate` refuses such a label.
        names.setdefault(label, names[version])
    return names


def _shadows(
    policy: Policy, names: Mapping[str, str], accesses: Mapping[str, Access], segments: Memberships
) -> Steps[tuple[CompiledShadow, ...]]:
    """Compile the shadows that can get copies: none of a version that is retired."""
    compiled = []
    for shadow in policy.shadows:
        version = names[shadow.version]
        if policy.versions[version].state is not State.RETIRED:
            whens, _ = yield from compiling_matchers(shadow.when, segments)
            accepts = accesses[version].accepts
            compiled.append(CompiledShadow(shadow, policy, names, accepts, whens))
        yield
    return tuple(compiled)


def _methods(shadow: Shadow, *, is_idempotent: bool) -> frozenset[bytes] | None:
    """Return the methods that may be copied, None for any."""
    if is_idempotent or "*" in shadow.methods:
        return None
    return SAFE.union(method.encode() for method in shadow.methods)


def _operands(policy: Policy) -> Steps[list[Pattern | Networks]]:
    """Make what takes long to make, each in steps: whoever holds it need not wait for it."""
    found: list[Pattern | Networks] = []
    for matcher in every_matcher_of(policy):
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
