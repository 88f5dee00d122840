"""Where a decision hangs on what nobody told: an attribute that a context does not have.

A decision is made as if what is not told were absent. It stands whatever is the case if every
matcher that was consulted, and that asks for such an attribute, fails by what is told already.
"""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, NamedTuple

from sidecar.model.decision import Cause, Reason
from sidecar.policy.attributes import CLAIMED, attributes_of, spelled
from sidecar.policy.match import compile_matcher, listed_tenants, segments_named
from sidecar.policy.segment import references

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecar.model.decision import Decision
    from sidecar.model.identity import Identity
    from sidecar.model.policy import Matcher, Policy, Rule
    from sidecar.model.request import RequestHead
    from sidecar.policy.match import Test

_BY_RULE = (Reason.RULE.value, Reason.SPLIT.value)
_OF_ALL = frozenset({Cause.NOT_ENTITLED.value, Cause.NO_DEFAULT.value})
"""Causes for which every version is asked, when no rule led to any."""
_BEFORE_RULES = frozenset({Reason.EXPLICIT.value, Reason.PINNED.value, Reason.KILLED.value})


class _Gap(NamedTuple):
    """A matcher, or a split's key, that asks for what is not told; `test` is what it can tell."""

    test: Test
    missing: frozenset[str]


class Gaps:
    """The places of a policy that ask for attributes which are not `told`."""

    def __init__(self, policy: Policy, told: frozenset[str]) -> None:
        self._missing = attributes_of(policy) - told
        self._segments: dict[str, frozenset[str]] = {}
        """What is missing to tell who is in a segment, by itself and those it names."""
        after = {name: references(one, policy.segments) for name, one in policy.segments.items()}
        for name in TopologicalSorter(after).static_order():  # those first that others name
            segment = policy.segments[name]
            own = frozenset({CLAIMED} if segment.claimed else ()) & self._missing
            self._segments[name] = own.union(*map(self._asked, segment.when))
        self._numbers = {rule.id: number for number, rule in enumerate(policy.rules)}
        self._general: list[tuple[int, _Gap]] = []  # in rules for anybody, by their number
        self._by_tenant: dict[str, list[tuple[int, _Gap]]] = {}
        for number, rule in enumerate(policy.rules) if self._missing else ():
            self._add_rule(number, rule)
        self._model = tuple(self._of((*(policy.allow or ()), *policy.deny)))
        self._versions = {
            name: tuple(self._of((*(version.allow or ()), *version.deny, *(version.accepts or ()))))
            for name, version in policy.versions.items()
        }

    def met(self, identity: Identity, head: RequestHead, decision: Decision) -> frozenset[str]:
        """Return the attributes that a decision hangs on and that are not told."""
        if not self._missing:
            return frozenset()
        found: frozenset[str] = frozenset()
        for gap in self._consulted(identity, head, decision):
            if not gap.missing <= found and gap.test(identity, head):
                found |= gap.missing
        return found

    def _consulted(
        self, identity: Identity, head: RequestHead, decision: Decision
    ) -> Iterator[_Gap]:
        """Yield the gaps on the way to a decision: rules up to its own, versions considered.

        An arm that was not drawn is none of these: without it the draw would be the same.
        """
        reason, _, deciding = decision.reason.partition(":")
        considered = {decision.version, *(one.version for one in decision.rejected)}
        if head.asked_version is None and reason not in _BEFORE_RULES:
            last = len(self._numbers)
            if reason in _BY_RULE:
                last = self._numbers[deciding]
            elif decision.refusal is not None and deciding in _OF_ALL:
                considered |= self._versions.keys()
            for number, gap in (*self._general, *self._by_tenant.get(identity.tenant, ())):
                if number <= last:
                    yield gap
        if considered & self._versions.keys():
            yield from self._model
        for name in considered & self._versions.keys():
            yield from self._versions[name]

    def _add_rule(self, number: int, rule: Rule) -> None:
        missing = self._asked(rule.when)
        if rule.split is not None:
            missing |= {spelled(rule.split.key)} & self._missing
        if not missing:
            return
        entry = number, _Gap(self._told(rule.when), missing)
        tenants = listed_tenants(rule.when)
        if tenants is None:
            self._general.append(entry)
            return
        for name in tenants:
            self._by_tenant.setdefault(name, []).append(entry)

    def _of(self, matchers: Iterable[Matcher]) -> Iterator[_Gap]:
        for matcher in matchers:
            missing = self._asked(matcher)
            if missing:
                yield _Gap(self._told(matcher), missing)

    def _told(self, matcher: Matcher) -> Test:
        """Return the test of what a matcher asks that is told, segments left aside."""
        left = self._missing | {"segment"}
        return compile_matcher(
            {name: test for name, test in matcher.items() if spelled(name) not in left}
        )

    def _asked(self, matcher: Matcher) -> frozenset[str]:
        missing = frozenset(map(spelled, matcher)) & self._missing
        if "segment" in matcher:
            for name in segments_named(matcher["segment"], self._segments):
                missing |= self._segments[name]
        return missing
