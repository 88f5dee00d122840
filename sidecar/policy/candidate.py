"""A version as the resolver sees it: whom and what it is for, and whether it can serve at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.model.decision import Cause
from sidecar.model.policy import DefaultAccess, State
from sidecar.policy.match import Needs, any_of, compiling_matchers, remembering

if TYPE_CHECKING:
    from sidecar.model.identity import Identity
    from sidecar.model.policy import Matcher, Version
    from sidecar.model.request import RequestHead
    from sidecar.policy.match import Memberships, Test
    from sidecar.policy.steps import Steps

_NOT_SERVING = {
    State.REGISTERED: Cause.NOT_ACTIVE,
    State.WARMING: Cause.NOT_ACTIVE,
    State.RETIRED: Cause.RETIRED,
}


class Entitlement:
    """Who may use something by one `allow` and one `deny`, compiled: without a `test`, everybody.

    `is_closed` says that without an `allow` of its own nothing below it is open.
    """

    __slots__ = ("is_closed", "needs", "test", "tests")

    def __init__(
        self, test: Test | None, needed: Needs, tests: tuple[Test, ...], *, is_closed: bool
    ) -> None:
        self.test = test
        self.needs = needed
        self.tests = tests
        self.is_closed = is_closed


def compiling_entitlement(
    allow: tuple[Matcher, ...] | None,
    deny: tuple[Matcher, ...],
    segments: Memberships,
    default: DefaultAccess = DefaultAccess.ALLOW,
) -> Steps[Entitlement]:
    """Compile an `allow` and a `deny`, in steps; `default` is what holds below without `allow`."""
    allowed, of_allow = yield from compiling_matchers(allow or (), segments)
    denied, of_deny = yield from compiling_matchers(deny, segments)
    needed = max(of_allow, of_deny)
    test: Test | None = None
    if allow is not None or denied:
        allows = None if allow is None else any_of(allowed)
        test = remembering(_entitlement(allows, any_of(denied)), needed)
    is_closed = allow is None and default is DefaultAccess.DENY
    return Entitlement(test, needed, (*allowed, *denied), is_closed=is_closed)


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


def compiling_access(
    version: Version, segments: Memberships, of_model: Entitlement
) -> Steps[Access]:
    """Compile `allow`, `deny` and `accepts` of a version below those of its model, in steps."""
    own = yield from compiling_entitlement(version.allow, version.deny, segments)
    accept, of_accept = yield from compiling_matchers(version.accepts or (), segments)
    accepts: Test | None = None
    if version.accepts is not None:
        accepts = remembering(any_of(accept), of_accept)
    entitled, needed = _both(of_model.test, own.test), max(of_model.needs, own.needs)
    if of_model.is_closed and version.allow is None:
        entitled, needed = nobody, Needs.NOTHING
    return Access(entitled, accepts, max(needed, of_accept), (*own.tests, *accept))


class Candidate:
    """One version as things stand.

    `out` is why it serves nobody who asks for it or is pinned to it, `passed` why no rule, default
    or fallback leads to it: a draining version serves the former alone. One that is not granted is
    out for that alone, lest anybody learns of its state.
    """

    __slots__ = ("access", "name", "out", "passed")

    def __init__(
        self,
        name: str,
        access: Access,
        state: State,
        *,
        is_killed: bool,
        is_ready: bool,
        is_granted: bool = True,
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
        if not is_granted:
            self.out = self.passed = Cause.NOT_ENTITLED

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


def nobody(_identity: Identity, _head: RequestHead) -> bool:
    """Hold for no one."""
    return False


def _both(one: Test | None, other: Test | None) -> Test | None:
    if one is None:
        return other
    if other is None:
        return one
    first, second = one, other
    return lambda identity, head: first(identity, head) and second(identity, head)


def _entitlement(allows: Test | None, denies: Test) -> Test:
    def entitled(identity: Identity, head: RequestHead) -> bool:
        if denies(identity, head):
            return False
        return allows is None or allows(identity, head)

    return entitled
