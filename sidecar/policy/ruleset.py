"""The rules of one policy, compiled, and indexed so that few of many are asked."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING

from sidecar.model.decision import Reason
from sidecar.policy.key import Shares, keys_of, value_of
from sidecar.policy.match import Needs, compile_matcher, needs, needs_of, reader
from sidecar.policy.steps import letting_go
from sidecar.policy.sticky import CompiledSplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model.identity import Identity
    from sidecar.model.policy import Matcher, Rule
    from sidecar.model.request import RequestHead
    from sidecar.policy.candidate import Access
    from sidecar.policy.key import Key, Value
    from sidecar.policy.match import Memberships
    from sidecar.policy.steps import Steps

    Names = Mapping[str, str]
    Rules = tuple["CompiledRule", ...]

PORTION = 50  # rules between two pauses: well under a millisecond
MIN_KEYED = 16  # rules by one attribute: fewer are asked faster than looked up
FEW = 8  # rules found: fewer are put where they belong faster than all are sorted


class CompiledRule:
    """One rule, in two parts: which tenants it is for (`tenant_test`), and what else must hold.

    `place` is its number in the document. `keys` are the look-ups that can find it: it concerns
    no request that they do not find.
    """

    __slots__ = (
        "deny",
        "is_variable",
        "key",
        "keys",
        "otherwise",
        "place",
        "reason",
        "serve",
        "split",
        "split_reason",
        "tenant_test",
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
        # Those of the tenant come first: what they find is kept for the tenant.
        self.keys = (*keys_of(about_tenant, segments), *keys_of(rest, segments))
        # Whom the index finds by tenant alone needs no second look.
        is_found = len(about_tenant) == len(self.keys) == 1 and self.keys[0].is_whole
        is_tested = about_tenant and not is_found
        self.tenant_test = compile_matcher(about_tenant, segments) if is_tested else None
        self.test = compile_matcher(rest, segments) if rest else None
        self.serve = None if rule.serve is None else names[rule.serve]
        self.deny = rule.deny
        self.split: CompiledSplit | None = None
        self.otherwise: str | None = None
        self.key: Key | None = None
        """The one of `keys` by which it is found; None: it is asked of all."""
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
        "_added",
        "_by_segment",
        "_is_general",
        "_of_request",
        "_of_tenant",
        "_shares",
        "end",
        "first_keyed",
        "general",
    )

    def __init__(self) -> None:
        self._added: list[CompiledRule] = []
        self._shares = Shares()
        self._of_tenant = _Lookup("tenant")
        self._by_segment: dict[str, list[list[CompiledRule]]] = {}
        self._of_request: list[_Lookup] = []
        self._is_general = True
        self.general: Rules = ()
        """The rules that no look-up finds."""
        self.end = 0
        self.first_keyed = 0
        """The first place at which `asked` may add a rule to those of a tenant."""

    def add(self, rule: CompiledRule) -> None:
        """Take in the next rule."""
        self.end = rule.place + 1
        self._added.append(rule)
        for key in rule.keys:
            self._shares.note(key)

    def finishing(self, segments: Memberships) -> Steps[None]:
        """Make look-ups of what was added, in steps."""
        unlisted: list[CompiledRule] = []
        by_segment: dict[str, list[CompiledRule]] = {}
        by_attribute: dict[str, list[CompiledRule]] = {}
        for rule in self._added:
            key = rule.key = self._shares.most_selective(rule.keys)
            if key is None:
                unlisted.append(rule)
            elif key.attribute == "tenant":
                yield from self._of_tenant.adding(rule, key)
            elif key.attribute == "segment":
                for name in key.names():
                    by_segment.setdefault(name, []).append(rule)
            else:
                by_attribute.setdefault(key.attribute, []).append(rule)
            yield
        counted: list[object] = [self._shares.counts]
        self._shares = Shares()
        yield from letting_go(counted)
        yield from self._by_segments(by_segment, segments)
        yield from self._by_attributes(by_attribute, unlisted)
        self._added = []
        self.general = tuple(sorted(unlisted, key=_place))
        self._is_general = all(rule.tenant_test is None for rule in self.general)

    def _by_segments(
        self, by_segment: dict[str, list[CompiledRule]], segments: Memberships
    ) -> Steps[None]:
        for name, rules in by_segment.items():
            # The rules of a segment are one list, however many tenants are in it.
            for n, tenant in enumerate(segments[name].tenants or ()):
                self._by_segment.setdefault(tenant, []).append(rules)
                if n % PORTION == 0:
                    yield

    def _by_attributes(
        self, by_attribute: dict[str, list[CompiledRule]], unlisted: list[CompiledRule]
    ) -> Steps[None]:
        self.first_keyed = self.end
        for attribute, rules in by_attribute.items():
            if len(rules) < MIN_KEYED:
                unlisted += rules
                continue
            lookup = _Lookup(attribute)
            self._of_request.append(lookup)
            self.first_keyed = min(self.first_keyed, rules[0].place)
            for rule in rules:
                if rule.key is not None:
                    yield from lookup.adding(rule, rule.key)
                yield

    def parts(self) -> list[object]:
        """Return what it is made of, for whoever lets go of it little by little."""
        found = [rules for one in (self._of_tenant, *self._of_request) for rules in one.lists()]
        return [*found, *self._by_segment.values(), *self.general]

    def rules_for(self, identity: Identity, head: RequestHead) -> Rules:
        """Return the rules whose condition on the tenant holds; what else they ask is open."""
        named: list[CompiledRule] = []
        self._of_tenant.find(named, identity, head)
        for rules in self._by_segment.get(identity.tenant, ()):
            named += rules
        if self._is_general and not named:
            return self.general  # one tuple for all such tenants, however many rules
        general = self.general
        if not self._is_general:
            general = tuple([rule for rule in general if _is_for(rule, identity, head)])
        return _with(general, named, identity, head)

    def asked(self, rules: Rules, identity: Identity, head: RequestHead) -> Rules:
        """Return the rules of a tenant, and those that are found by what the request has."""
        found: list[CompiledRule] = []
        for lookup in self._of_request:
            lookup.find(found, identity, head)
        return _with(rules, found, identity, head) if found else rules


class _Lookup:
    """Rules by the values that they want of one attribute, and by how those begin."""

    __slots__ = ("_by_prefix", "_by_value", "_lengths", "_read", "attribute")

    def __init__(self, attribute: str) -> None:
        self._read = reader(attribute)
        self.attribute = attribute
        self._by_value: dict[Value, list[CompiledRule]] = {}
        self._by_prefix: dict[str, list[CompiledRule]] = {}
        self._lengths: list[int] = []
        """Those of the prefixes, the shortest first: there are fewer of them than prefixes."""

    def adding(self, rule: CompiledRule, key: Key) -> Steps[None]:
        """Take in a rule with a key of this attribute, in steps."""
        for n, option in enumerate(key.options):
            if key.is_prefix and isinstance(option, str):
                self._by_prefix.setdefault(option, []).append(rule)
                if len(option) not in self._lengths:
                    self._lengths = sorted([*self._lengths, len(option)])
            else:
                rules = self._by_value.setdefault(value_of(option, self.attribute), [])
                if not rules or rules[-1] is not rule:  # a list may name one value twice
                    rules.append(rule)
            if n % PORTION == PORTION - 1:
                yield

    def lists(self) -> list[list[CompiledRule]]:
        """Return the rules, those with a value or prefix in common together."""
        return [*self._by_value.values(), *self._by_prefix.values()]

    def find(self, found: list[CompiledRule], identity: Identity, head: RequestHead) -> None:
        """Add the rules that can concern a request; one of them may come several times."""
        for value in self._read(identity, head):
            if isinstance(value, str):
                rules = self._by_value.get(value)
                if rules is not None:
                    found += rules
                if self._lengths:
                    self._find_prefixes(found, value)
            elif isinstance(value, (int, float)):
                found += self._by_value.get((isinstance(value, bool), value), ())

    def _find_prefixes(self, found: list[CompiledRule], text: str) -> None:
        for length in self._lengths:
            if length > len(text):
                return
            rules = self._by_prefix.get(text[:length])
            if rules is not None:
                found += rules


def _with(rules: Rules, found: list[CompiledRule], identity: Identity, head: RequestHead) -> Rules:
    """Return rules in order, and where they belong those found that are for the tenant."""
    every = list(rules)
    more = {rule for rule in found if _is_for(rule, identity, head)}  # two values may find one
    if len(more) > FEW:
        every.extend(more)
        every.sort(key=_place)
        return tuple(every)
    for rule in more:
        insort(every, rule, key=_place)
    return tuple(every)


def _place(rule: CompiledRule) -> int:
    return rule.place


def _is_for(rule: CompiledRule, identity: Identity, head: RequestHead) -> bool:
    return rule.tenant_test is None or rule.tenant_test(identity, head)
