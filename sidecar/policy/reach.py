"""Whom rules and versions can reach: what is sure of every caller, before any one has come.

Kills, health and pins change by the minute and are left aside: sure is what the document alone
decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sidecar.model.policy import DefaultAccess, State
from sidecar.policy.match import listed, listed_tenants

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from sidecar.model.policy import Condition, Policy, Rule, Split, Version


def named(policy: Policy, ref: str) -> str | None:
    """Return the version that a name or label means; None when there is none."""
    name = ref if ref in policy.versions else policy.labels.get(ref, "")
    return name if name in policy.versions else None


def bar(policy: Policy, ref: str) -> str:
    """Return why a version can serve nobody whom a rule or default sends to it, or nothing."""
    name = named(policy, ref)
    if name is None:
        return ""  # which is told where it is named
    version = policy.versions[name]
    if version.state is not State.ACTIVE:
        return f"{name} is {version.state.value}"
    why = shut(policy, version)
    return f"{name} is {why}" if why else ""


def shut(policy: Policy, version: Version) -> str:
    """Return why nobody may use a version, whoever calls, or nothing."""
    if {} in version.deny or {} in policy.deny:
        return "denied to everybody"
    if version.allow is None and policy.allow is None and _denies_by_default(policy):
        return "allowed to nobody (default_access: deny)"
    return ""


def fallbacks(policy: Policy, ref: str) -> Iterator[str]:
    """Yield a version and those that it falls back to, in order; each once."""
    name, seen = named(policy, ref), set[str]()
    while name is not None and name not in seen:
        seen.add(name)
        yield name
        after = policy.versions[name].fallback
        name = None if after is None else named(policy, after)


def answers_everybody(policy: Policy) -> bool:
    """Return whether no caller gets past the rules."""
    return any(not rule.when and _answers(rule, policy) for rule in policy.rules)


def judged(policy: Policy, before: Answered | None = None) -> Iterator[str]:
    """Yield for each rule why no caller gets to it, or nothing.

    Whom rules answer is noted in `before`: with many rules that is much to let go of at once.
    """
    before = before or Answered()
    for rule in policy.rules:
        conditions = [(attribute, _key(value)) for attribute, value in rule.when.items()]
        tenants = listed_tenants(rule.when) or frozenset()
        reason = before.covers(conditions, tenants)
        yield f"never reached: {reason}" if reason else ""
        if not reason and _answers(rule, policy):
            before.add(rule.id, conditions, tenants)


class Answered:
    """Whom rules answer for sure: by one condition, by several together, or every caller."""

    def __init__(self) -> None:
        self._every: list[str] = []
        self._by_one: dict[Hashable, str] = {}
        self._by_several: dict[frozenset[Hashable], str] = {}
        self._tenants: dict[str, str] = {}

    def add(self, rule: str, conditions: Sequence[Hashable], tenants: frozenset[str]) -> None:
        """Note that a rule answers all whom its conditions match."""
        if len(conditions) > 1:
            self._by_several.setdefault(frozenset(conditions), rule)
        elif not conditions:
            self._every.append(rule)
        else:
            self._by_one.setdefault(conditions[0], rule)
            for tenant in tenants:  # `tenants - keys()` would look at all that are noted
                self._tenants.setdefault(tenant, rule)

    def forgetting(self) -> Iterator[None]:
        """Forget all of it, in steps."""
        for noted in (self._by_one, self._by_several, self._tenants):
            while noted:
                noted.popitem()
                yield

    def covers(self, conditions: Sequence[Hashable], tenants: frozenset[str]) -> str:
        """Return why nobody of these conditions is left, or nothing."""
        if self._every:
            return f'rule "{self._every[0]}" before it answers every caller'
        rule = next((self._by_one[one] for one in conditions if one in self._by_one), None)
        if rule is None and len(conditions) > 1:
            rule = self._by_several.get(frozenset(conditions))
        if rule is not None:
            return f'rule "{rule}" before it answers all whom this one matches'
        if tenants and all(tenant in self._tenants for tenant in tenants):
            by = sorted({self._tenants[tenant] for tenant in tenants})
            rules = ", ".join(f'"{one}"' for one in by[:3])
            return f"all of its tenants are answered before, by rule {rules}"
        return ""


def _key(condition: Condition) -> Hashable:
    """Return what is equal for conditions that mean the same; in Python True is equal to 1."""
    options = listed(condition)
    if options is None:
        return msgspec.json.encode(condition)
    if set(map(type, options)) == {str}:  # without a look at each: a list may be very long
        return frozenset(options)
    return frozenset((type(option), option) for option in options)


def _answers(rule: Rule, policy: Policy) -> bool:
    """Return whether a rule passes on none of those whom its `when` matches."""
    if rule.deny is not None:
        return True
    if rule.split is not None:
        return _serves_all(rule.split, policy)
    return rule.serve is not None and _is_open(rule.serve, policy)


def _serves_all(split: Split, policy: Policy) -> bool:
    if split.key != "request" and split.otherwise is None:
        return False
    served = [ref for ref, weight in split.arms.items() if weight]
    if split.otherwise is not None:
        served.append(split.otherwise)
    return bool(served) and all(_is_open(ref, policy) for ref in served)


def _is_open(ref: str, policy: Policy) -> bool:
    name = named(policy, ref)
    if name is None:
        return False
    version = policy.versions[name]
    is_for_all = version.allow is None and not version.deny and version.accepts is None
    is_model_open = policy.allow is None and not policy.deny and not _denies_by_default(policy)
    return is_for_all and is_model_open and version.state is State.ACTIVE


def _denies_by_default(policy: Policy) -> bool:
    return policy.default_access is DefaultAccess.DENY
