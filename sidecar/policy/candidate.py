"""A version as the resolver sees it: whom and what it is for, and whether it can serve at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.model.decision import Cause
from sidecar.model.policy import State
from sidecar.policy.match import Needs, compile_matcher, needs, remembering

if TYPE_CHECKING:
    from sidecar.model.identity import Identity
    from sidecar.model.policy import Matcher, Version
    from sidecar.model.request import RequestHead
    from sidecar.policy.match import Memberships, Test

_NOT_SERVING = {
    State.REGISTERED: Cause.NOT_ACTIVE,
    State.WARMING: Cause.NOT_ACTIVE,
    State.RETIRED: Cause.RETIRED,
}


class Access:
    """Who may use a version (`allow`, `deny`), and for what (`accepts`): its document, compiled.

    `needs` says what must be known to decide both.
    """

    __slots__ = ("accepts", "entitled", "is_open", "is_variable", "needs")

    def __init__(self, version: Version, segments: Memberships) -> None:
        self.entitled = _entitlement(version, segments)
        self.accepts: Test | None = None
        if version.accepts is not None:
            self.accepts = _kept(_any_of(version.accepts, segments), version.accepts, segments)
        self.is_open = self.entitled is None and self.accepts is None
        """Whether it is for everybody and everything."""
        matchers = (*(version.allow or ()), *version.deny, *(version.accepts or ()))
        self.needs = needs(matchers, segments)
        self.is_variable = self.needs > Needs.TENANT
        """Whether requests of one tenant may differ."""


class Candidate:
    """One version as things stand.

    `out` is why it serves nobody who asks for it or is pinned to it, `passed` why no rule, default
    or fallback leads to it: a draining version serves the former alone.
    """

    __slots__ = ("access", "name", "out", "passed")

    def __init__(
        self, name: str, access: Access, state: State, *, is_killed: bool, is_ready: bool
    ) -> None:
        self.name = name
        self.access = access
        self.out = Cause.KILLED if is_killed else _NOT_SERVING.get(state)
        self.passed = self.out
        if self.out is None and state is State.DRAINING:
            self.passed = Cause.DRAINING
        if not is_ready:
            self.out = self.out or Cause.NOT_READY
            self.passed = self.passed or Cause.NOT_READY

    @property
    def serves_all(self) -> bool:
        """Whether nothing about a caller or a request can keep it from serving by name."""
        return self.out is None and self.access.is_open

    def cause(self, identity: Identity, head: RequestHead) -> Cause | None:
        """Return why this version may not serve a caller who asks for it or is pinned to it."""
        return self._judge(self.out, identity, head)

    def cause_to_pass(self, identity: Identity, head: RequestHead) -> Cause | None:
        """Return why a rule, the default or a fallback passes this version over."""
        return self._judge(self.passed, identity, head)

    def _judge(self, out: Cause | None, identity: Identity, head: RequestHead) -> Cause | None:
        # Entitlement first: whoever may not use a version learns nothing about its state.
        entitled, accepts = self.access.entitled, self.access.accepts
        if entitled is not None and not entitled(identity, head):
            return Cause.NOT_ENTITLED
        if out is None and accepts is not None and not accepts(identity, head):
            return Cause.INCOMPATIBLE
        return out


def _entitlement(version: Version, segments: Memberships) -> Test | None:
    if version.allow is None and not version.deny:
        return None
    allows = None if version.allow is None else _any_of(version.allow, segments)
    denies = _any_of(version.deny, segments)

    def entitled(identity: Identity, head: RequestHead) -> bool:
        if denies(identity, head):
            return False
        return allows is None or allows(identity, head)

    return _kept(entitled, (*(version.allow or ()), *version.deny), segments)


def _any_of(matchers: tuple[Matcher, ...], segments: Memberships) -> Test:
    tests = tuple(compile_matcher(matcher, segments) for matcher in matchers)
    return lambda identity, head: any(test(identity, head) for test in tests)


def _kept(test: Test, matchers: tuple[Matcher, ...], segments: Memberships) -> Test:
    """Remember a test's answers by identity, unless the request has a say in them."""
    return test if needs(matchers, segments) is Needs.REQUEST else remembering(test)
