"""A version as the resolver sees it: whether it can serve at all, and who may use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.model.decision import Cause
from sidecar.policy.match import Needs, compile_matcher, needs

if TYPE_CHECKING:
    from sidecar.model.identity import Identity
    from sidecar.model.policy import Matcher, Version
    from sidecar.model.request import RequestHead
    from sidecar.policy.match import Test

MAX_CALLERS = 4096


class Candidate:
    """One version, compiled. `needs` says what its entitlement depends on."""

    __slots__ = ("entitled", "is_open", "is_variable", "name", "needs", "out")

    def __init__(self, name: str, version: Version, out: Cause | None) -> None:
        self.name = name
        self.out = out
        """Why it can serve nobody: killed or not ready; None when it can."""
        self.needs = needs((*(version.allow or ()), *version.deny))
        self.entitled = _entitlement(version, self.needs)
        self.is_open = self.entitled is None
        """Whether everybody is entitled."""
        self.is_variable = self.needs > Needs.TENANT
        """Whether callers of one tenant may differ in entitlement."""

    def cause(self, identity: Identity, head: RequestHead) -> Cause | None:
        """Return why this version may not serve the caller, or None.

        Entitlement first: whoever may not use a version learns nothing about its state.
        """
        entitled = self.entitled
        if entitled is not None and not entitled(identity, head):
            return Cause.NOT_ENTITLED
        return self.out


def _entitlement(version: Version, needed: Needs) -> Test | None:
    if version.allow is None and not version.deny:
        return None
    test = _allow_and_deny(version.allow, version.deny)
    return test if needed is Needs.REQUEST else _remembering(test)


def _allow_and_deny(allow: tuple[Matcher, ...] | None, deny: tuple[Matcher, ...]) -> Test:
    allows = None if allow is None else tuple(compile_matcher(matcher) for matcher in allow)
    denies = tuple(compile_matcher(matcher) for matcher in deny)

    def entitled(identity: Identity, head: RequestHead) -> bool:
        if any(test(identity, head) for test in denies):
            return False
        return allows is None or any(test(identity, head) for test in allows)

    return entitled


def _remembering(test: Test) -> Test:
    """Remember the answers for identities, which are kept per token and so come again.

    The entry holds the identity: while it is there, no other object can have its id.
    """
    answers: dict[int, tuple[Identity, bool]] = {}

    def remembered(identity: Identity, head: RequestHead) -> bool:
        entry = answers.get(id(identity))
        if entry is not None:
            return entry[1]
        answer = test(identity, head)
        if len(answers) >= MAX_CALLERS:
            answers.clear()
        answers[id(identity)] = identity, answer
        return answer

    return remembered
