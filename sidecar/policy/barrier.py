"""What keeps a caller from a version, or lets it in: of all parts of entitlement, those that count.

Here they are asked one by one; `candidate` and the views of `snapshot` have their sum.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from sidecar.model.policy import DefaultAccess
from sidecar.policy import grant
from sidecar.policy.match import compile_matcher
from sidecar.policy.segment import compile_segments

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.model.identity import Identity
    from sidecar.model.policy import Matcher, Policy
    from sidecar.model.request import RequestHead
    from sidecar.policy.match import Test


class Bar(Enum):
    """What says no; the first that does is told, in this order."""

    MODEL_DENY = "model-deny"
    VERSION_DENY = "version-deny"
    DEFAULT_ACCESS = "default-access"
    MODEL_ALLOW = "model-allow"
    VERSION_ALLOW = "version-allow"
    GRANT = "grant"


class Barrier(Struct, frozen=True, omit_defaults=True):
    """Why a caller may not use a version; `number` is that of the matcher of a `deny` that fits."""

    by: Bar
    number: int | None = None

    def in_words(self) -> str:
        """Say it to who reads the document."""
        match self.by:
            case Bar.MODEL_DENY:
                return f"deny[{self.number}] of the model"
            case Bar.VERSION_DENY:
                return f"its deny[{self.number}]"
            case Bar.DEFAULT_ACCESS:
                return "default_access is deny"
            case Bar.MODEL_ALLOW:
                return "no allow of the model fits"
            case Bar.VERSION_ALLOW:
                return "no allow of it fits"
            case Bar.GRANT:
                return "the token does not grant it"


class Barriers:
    """All that can keep callers from the versions of one policy."""

    def __init__(self, policy: Policy) -> None:
        """Compile them; raises KeyError or ValueError for a policy that is not valid."""
        self._policy = policy
        self._segments = compile_segments(policy.segments)
        self._allow = None if policy.allow is None else self._tests(policy.allow)
        self._deny = self._tests(policy.deny)
        self._versions = {
            name: (None if one.allow is None else self._tests(one.allow), self._tests(one.deny))
            for name, one in policy.versions.items()
        }

    def met(self, version: str, identity: Identity, head: RequestHead) -> Barrier | None:
        """Return why a caller may not use a version of the policy; None: it may."""
        allow, deny = self._versions[version]
        barrier = _denied(((Bar.MODEL_DENY, self._deny), (Bar.VERSION_DENY, deny)), identity, head)
        if barrier is not None:
            return barrier
        closed = self._policy.default_access is DefaultAccess.DENY
        if closed and self._allow is None and allow is None:
            return Barrier(Bar.DEFAULT_ACCESS)
        for by, allowed in ((Bar.MODEL_ALLOW, self._allow), (Bar.VERSION_ALLOW, allow)):
            if allowed is not None and not any(test(identity, head) for test in allowed):
                return Barrier(by)
        return None if self._is_granted(version, identity) else Barrier(Bar.GRANT)

    def passed(self, version: str, identity: Identity, head: RequestHead) -> tuple[str, ...]:
        """Say what lets a caller in who may use a version; nothing where all may use it."""
        allow, _ = self._versions[version]
        told = []
        for words, tests in (("allow[{}] of the model", self._allow), ("its allow[{}]", allow)):
            for number, test in enumerate(tests or ()):
                if test(identity, head):
                    told.append(words.format(number))
                    break
        if identity.grants is not None:
            told.append("the token grants it")
        return tuple(told)

    def _is_granted(self, version: str, identity: Identity) -> bool:
        if identity.grants is None:
            return True
        texts = grant.of_model(identity.grants, self._policy.model)
        return version in grant.granted(texts, self._policy)

    def _tests(self, matchers: tuple[Matcher, ...]) -> tuple[Test, ...]:
        return tuple(compile_matcher(one, self._segments) for one in matchers)


def doors_of(policy: Policy) -> Policy:
    """Return a policy that says nothing but who may use which version."""
    return replace(
        policy,
        versions={name: replace(one, accepts=None) for name, one in policy.versions.items()},
        rules=(),
        shadows=(),
    )


def _denied(
    lists: Iterable[tuple[Bar, tuple[Test, ...]]], identity: Identity, head: RequestHead
) -> Barrier | None:
    for by, tests in lists:
        for number, test in enumerate(tests):
            if test(identity, head):
                return Barrier(by, number)
    return None
