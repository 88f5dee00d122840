"""The rules of one policy, compiled, and indexed by the tenants they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.model.decision import Reason
from sidecar.model.policy import Operators
from sidecar.policy.match import Needs, compile_matcher, needs, tenants_of
from sidecar.policy.sticky import CompiledSplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model.identity import Identity
    from sidecar.model.policy import Matcher, Rule
    from sidecar.model.request import RequestHead
    from sidecar.policy.candidate import Candidate
    from sidecar.policy.match import Test


class CompiledRule:
    """One rule, in two parts: which tenants it is for, and what else must hold (`test`)."""

    __slots__ = (
        "deny",
        "is_variable",
        "otherwise",
        "reason",
        "serve",
        "split",
        "split_reason",
        "tenant_test",
        "tenants",
        "test",
    )

    def __init__(self, rule: Rule, model: str, candidates: Mapping[str, Candidate]) -> None:
        rest = {name: condition for name, condition in rule.when.items() if name != "tenant"}
        self.tenants = _named_tenants(rule.when)
        self.tenant_test: Test | None = None
        if self.tenants is None and "tenant" in rule.when:
            self.tenant_test = compile_matcher({"tenant": rule.when["tenant"]})
        self.test = compile_matcher(rest) if rest else None
        self.serve = None if rule.serve is None else candidates[rule.serve]
        self.deny = rule.deny
        self.split: CompiledSplit | None = None
        self.otherwise: Candidate | None = None
        if rule.split is not None:
            # Of this model: one id in two models must not put the same callers into both canaries.
            self.split = CompiledSplit(rule.split, f"{model}/{rule.id}", candidates)
            name = rule.split.otherwise
            self.otherwise = None if name is None else candidates[name]
        self.reason = f"{Reason.RULE.value}:{rule.id}"
        self.split_reason = f"{Reason.SPLIT.value}:{rule.id}"
        parts = (self.serve, self.split, self.otherwise)
        needed = (needs([rest]), *(part.needs for part in parts if part is not None))
        self.is_variable = max(needed) > Needs.TENANT
        """Whether requests of one tenant may fare differently."""


class RuleIndex:
    """Finds the rules that can concern a tenant, in the policy's order."""

    __slots__ = ("_by_tenant", "_general")

    def __init__(self, rules: tuple[CompiledRule, ...]) -> None:
        self._general: list[tuple[int, CompiledRule]] = []
        self._by_tenant: dict[str, list[tuple[int, CompiledRule]]] = {}
        for n, rule in enumerate(rules):
            if rule.tenants is None:
                self._general.append((n, rule))
                continue
            for tenant in rule.tenants:
                self._by_tenant.setdefault(tenant, []).append((n, rule))

    def rules_for(self, identity: Identity, head: RequestHead) -> tuple[CompiledRule, ...]:
        """Return the rules whose condition on the tenant holds; what else they ask is open."""
        numbered = self._general
        named = self._by_tenant.get(identity.tenant)
        if named is not None:
            numbered = sorted((*numbered, *named), key=lambda entry: entry[0])
        return tuple(
            rule
            for _, rule in numbered
            if rule.tenant_test is None or rule.tenant_test(identity, head)
        )


def _named_tenants(when: Matcher) -> frozenset[str] | None:
    """Return the tenants that a matcher lists; None when it names none, or tests by operators."""
    condition = when.get("tenant")
    if condition is None or isinstance(condition, Operators):
        return None
    options = condition if isinstance(condition, tuple) else (condition,)
    return tenants_of(options)
