"""The rules of one policy, compiled, and indexed so that few of many are asked."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING

from sidecar.model.decision import Reason
from sidecar.policy.check import as_text
from sidecar.policy.match import (
    Needs,
    compile_matcher,
    listed,
    listed_tenants,
    needs,
    needs_of,
    reader,
)
from sidecar.policy.sticky import CompiledSplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sidecar.model.identity import Identity
    from sidecar.model.policy import Matcher, Rule
    from sidecar.model.request import RequestHead
    from sidecar.policy.candidate import Access
    from sidecar.policy.match import Memberships
    from sidecar.policy.steps import Steps

    Names = Mapping[str, str]
    Rules = tuple["CompiledRule", ...]

PORTION = 50  # rules between two pauses: well under a millisecond
MIN_KEYED = 16  # rules by one attribute: fewer are asked faster than looked up


class CompiledRule:
    """One rule, in two parts: which tenants it is for, and what else must hold (`test`).

    `place` is its number in the document. `tenants` and `segments` are those, one of which a
    caller has to be of or in, as far as look-ups serve; both are None when nothing is listed.
    """

    __slots__ = (
        "deny",
        "is_variable",
        "key",
        "otherwise",
        "place",
        "reason",
        "segments",
        "serve",
        "split",
        "split_reason",
        "tenant_test",
        "tenants",
        "test",
    )

    def __init__(
        self,
        rule: Rule,
        place: int,
        model: str,
        names: Names,
        accesses: Mapping[str, Access],
        segments: Memberships,
    ) -> None:
        self.place = place
        about_tenant: Matcher = {}
        rest: Matcher = {}
        for attribute, condition in rule.when.items():
            is_settled = needs_of(attribute, condition, segments) <= Needs.TENANT
            (about_tenant if is_settled else rest)[attribute] = condition
        self.tenants = listed_tenants(about_tenant)
        self.segments = None if self.tenants is not None else _lists(about_tenant, segments)
        # Whom the index finds by tenant alone needs no second look.
        is_found = len(about_tenant) == (self.tenants is not None)
        self.tenant_test = None if is_found else compile_matcher(about_tenant, segments)
        self.test = compile_matcher(rest, segments) if rest else None
        self.key = _key(rest)
        self.serve = None if rule.serve is None else names[rule.serve]
        self.deny = rule.deny
        self.split: CompiledSplit | None = None
        self.otherwise: str | None = None
        if rule.split is not None:
            # Of this model: one id in two models must not put the same callers into both canaries.
            self.split = CompiledSplit(rule.split, f"{model}/{rule.id}", names, accesses)
            name = rule.split.otherwise
            self.otherwise = None if name is None else names[name]
        self.reason = f"{Reason.RULE.value}:{rule.id}"
        self.split_reason = f"{Reason.SPLIT.value}:{rule.id}"
        needed = needs([rest], segments)
        for served in (self.serve, self.otherwise):
            if served is not None:
                needed = max(needed, accesses[served].needs)
        if self.split is not None:
            needed = max(needed, self.split.needs)
        self.is_variable = needed > Needs.TENANT
        """Whether requests of one tenant may fare differently."""


class RuleIndex:
    """Finds the rules that can concern a tenant, then those that can concern its request.

    Rules are added in the order of the document; then `finishing` makes it fit for use.
    """

    __slots__ = (
        "_by_key",
        "_by_segment",
        "_by_tenant",
        "_is_general",
        "_keyed",
        "_listed",
        "_unlisted",
        "end",
        "first_keyed",
        "general",
    )

    def __init__(self) -> None:
        self._by_tenant: dict[str, list[list[CompiledRule]]] = {}
        self._listed: list[CompiledRule] = []
        self._by_segment: dict[str, list[CompiledRule]] = {}
        self._by_key: dict[str, list[CompiledRule]] = {}
        self._unlisted: list[CompiledRule] = []
        self._keyed: list[_Keyed] = []
        self._is_general = True
        self.general: Rules = ()
        """The rules that no look-up finds."""
        self.end = 0
        self.first_keyed = 0
        """The first place at which `asked` may add a rule to those of a tenant."""

    def add(self, rule: CompiledRule) -> None:
        """Take in the next rule."""
        self.end = rule.place + 1
        if rule.tenants is not None:
            self._listed.append(rule)
        elif rule.segments is not None:
            for name in rule.segments:
                self._by_segment.setdefault(name, []).append(rule)
        elif rule.key is not None:
            self._by_key.setdefault(rule.key[0], []).append(rule)
        else:
            self._unlisted.append(rule)

    def finishing(self, segments: Memberships) -> Steps[None]:
        """Make look-ups of what was added, in steps."""
        yield from self._by_tenants(segments)
        self.first_keyed = self.end
        for attribute, rules in self._by_key.items():
            if len(rules) < MIN_KEYED:
                self._unlisted += rules
                continue
            keyed = _Keyed(attribute)
            self._keyed.append(keyed)
            self.first_keyed = min(self.first_keyed, rules[0].place)
            for n, rule in enumerate(rules):
                keyed.add(rule)
                if n % PORTION == 0:
                    yield
        self.general = tuple(sorted(self._unlisted, key=_place))
        self._is_general = all(rule.tenant_test is None for rule in self.general)

    def _by_tenants(self, segments: Memberships) -> Steps[None]:
        """Look up the rules of tenants, and those of segments which list theirs."""
        for rule in self._listed:
            for n, tenant in enumerate(rule.tenants or ()):
                self._by_tenant.setdefault(tenant, []).append([rule])
                if n % PORTION == 0:
                    yield
        self._listed.clear()
        for name, rules in self._by_segment.items():
            # The rules of a segment are one list, however many tenants are in it.
            for n, tenant in enumerate(segments[name].tenants or ()):
                self._by_tenant.setdefault(tenant, []).append(rules)
                if n % PORTION == 0:
                    yield

    def parts(self) -> list[object]:
        """Return what it is made of, for whoever lets go of it little by little."""
        keyed = [rules for one in self._keyed for rules in one.lists()]
        return [*self._by_tenant.values(), *keyed, *self.general]

    def rules_for(self, identity: Identity, head: RequestHead) -> Rules:
        """Return the rules whose condition on the tenant holds; what else they ask is open."""
        named = self._by_tenant.get(identity.tenant, ())
        if self._is_general and not named:
            return self.general  # one tuple for all such tenants, however many rules
        general = self.general
        if not self._is_general:
            general = tuple([rule for rule in general if _is_for(rule, identity, head)])
        found = {rule for rules in named for rule in rules if _is_for(rule, identity, head)}
        return _with(general, found)

    def asked(self, rules: Rules, identity: Identity, head: RequestHead) -> Rules:
        """Return the rules of a tenant, and those that are found by what the request has."""
        found: list[CompiledRule] = []
        for keyed in self._keyed:
            keyed.find(found, identity, head)
        return _with(rules, found) if found else rules


class _Keyed:
    """Rules that ask for equality of one attribute, by its values."""

    __slots__ = ("_by_value", "_values")

    def __init__(self, attribute: str) -> None:
        self._values = reader(attribute)
        self._by_value: dict[str, list[CompiledRule]] = {}

    def add(self, rule: CompiledRule) -> None:
        """Take in a rule with a key of this attribute."""
        if rule.key is not None:
            for text in rule.key[1]:
                self._by_value.setdefault(text, []).append(rule)

    def lists(self) -> list[list[CompiledRule]]:
        """Return the rules, those with a value in common together."""
        return list(self._by_value.values())

    def find(self, found: list[CompiledRule], identity: Identity, head: RequestHead) -> None:
        """Add the rules that can concern a request."""
        for value in self._values(identity, head):
            if isinstance(value, str):
                rules = self._by_value.get(value, ())
                found.extend(rule for rule in rules if _is_for(rule, identity, head))


def _with(rules: Rules, found: Iterable[CompiledRule]) -> Rules:
    """Return rules in order, and where they belong a few more."""
    every = list(rules)
    for rule in found:
        insort(every, rule, key=_place)
    return tuple(every)


def _place(rule: CompiledRule) -> int:
    return rule.place


def _is_for(rule: CompiledRule, identity: Identity, head: RequestHead) -> bool:
    return rule.tenant_test is None or rule.tenant_test(identity, head)


def _lists(when: Matcher, segments: Memberships) -> frozenset[str] | None:
    """Return the segments that a matcher asks for, if lists of tenants are all they are."""
    options = listed(when["segment"]) if "segment" in when else None
    if options is None:
        return None
    names = frozenset(map(as_text, options))
    return None if any(segments[name].tenants is None for name in names) else names


def _key(when: Matcher) -> tuple[str, frozenset[str]] | None:
    """Return an attribute with one value at most, and the texts that a matcher wants of it."""
    for attribute, condition in when.items():
        if attribute in {"app", "subject"} or attribute.startswith("header."):
            options = listed(condition)
            if options is not None:
                return attribute, frozenset(map(as_text, options))
    return None
