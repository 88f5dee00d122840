"""A version as the resolver sees it: whom and what it is for, and whether it can serve at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.model.decision import Cause
from sidecar.model.policy import State
from sidecar.policy.match import Needs, any_of, compiling_matchers, remembering

if TYPE_CHECKING:
    from sidecar.model.identity import Identity
    from sidecar.model.policy import Version
    from sidecar.model.request import RequestHead
    from sidecar.policy.match import Memberships, Test
    from sidecar.policy.steps import Steps

_NOT_SERVING = {
    State.REGISTERED: Cause.NOT_ACTIVE,
    State.WARMING: Cause.NOT_ACTIVE,
    State.RETIRED: Cause.RETIRED,
}


class Access:
    """Who may use a version (`entitled`), and for what (`accepts`): its document, compiled.

    `needs` says what must be known to decide both, `tests` are those that they are made of.
    """

    __slots__ = ("accepts", "entitled", "is_open", "is_variable", "needs", "tests")

    def __init__(
        self,
        entitled: Test | None,
        accepts: Test | None,
        needed: Needs,
        tests: tuple[Test, ...],
    ) -> None:
        self.tests = tests
        self.entitled = entitled
        self.accepts = accepts
        self.is_open = entitled is None and accepts is None
        """Whether it is for everybody and everything."""
        self.needs = needed
        self.is_variable = needed > Needs.TENANT
        """Whether requests of one tenant may differ."""


def compiling_access(version: Version, segments: Memberships) -> Steps[Access]:
    """Compile `allow`, `deny` and `accepts` of a version, in steps."""
    allow, of_allow = yield from compiling_matchers(version.allow or (), segments)
    deny, of_deny = yield from compiling_matchers(version.deny, segments)
    accept, of_accept = yield from compiling_matchers(version.accepts or (), segments)
    entitled: Test | None = None
    accepts: Test | None = None
    of_caller = max(of_allow, of_deny)
    if version.allow is not None or deny:
        allows = None if version.allow is None else any_of(allow)
        entitled = _kept(_entitlement(allows, any_of(deny)), of_caller)
    if version.accepts is not None:
        accepts = _kept(any_of(accept), of_accept)
    return Access(entitled, accepts, max(of_caller, of_accept), (*allow, *deny, *accept))


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


def _entitlement(allows: Test | None, denies: Test) -> Test:
    def entitled(identity: Identity, head: RequestHead) -> bool:
        if denies(identity, head):
            return False
        return allows is None or allows(identity, head)

    return entitled


def _kept(test: Test, needed: Needs) -> Test:
    """Remember a test's answers by identity, unless the request has a say in them."""
    return test if needed is Needs.REQUEST else remembering(test)
