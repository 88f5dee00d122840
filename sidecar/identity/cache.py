"""The memory of tokens already verified: what makes the second request of a caller cheap."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from sidecar.errors import Code
from sidecar.identity.refusal import TokenRefused

if TYPE_CHECKING:
    from sidecar.model.identity import Identity

MAX_REFUSALS = 256  # with tokens of 8 KiB that is 2 MiB; clients repeat few bad tokens at a time

_V = TypeVar("_V")


class Verifier(Protocol):
    """Who tells callers by their tokens: `tokens.Verifier`, or one for each of several issuers."""

    def verify(self, token: bytes, now_s: float) -> Identity:
        """Return the caller; raises TokenRefused."""
        ...


class IdentityCache:
    """Callers by the value of their `Authorization` field.

    At most `max_entries` (1 or more) are remembered, the oldest is forgotten first, and none is
    used from its identity's `expires_at_s` on. Bad tokens are remembered apart, so no number of
    them drives out a good one. Every lookup adds one to `hits` (remembered), `misses` (verified
    now) or `refused`.
    """

    def __init__(self, verifier: Verifier, max_entries: int, max_token_bytes: int) -> None:
        self.hits = 0
        self.misses = 0
        self.refused = 0
        self._verifier = verifier
        self._max_token_bytes = max_token_bytes
        self._identities: _Bounded[Identity] = _Bounded(max_entries)
        self._refusals: _Bounded[_Refusal] = _Bounded(MAX_REFUSALS)
        self._known = self._identities.entries  # the hit path has no attribute to spare

    def __len__(self) -> int:
        return len(self._known)

    def lookup(self, authorization: bytes | None, now_s: float) -> Identity:
        """Return the caller of a request by its `Authorization` field; raise TokenRefused.

        `now_s` is epoch seconds.
        """
        identity = self._known.get(authorization)
        if identity is not None and now_s < identity.expires_at_s:
            self.hits += 1
            return identity
        return self._learn(authorization, now_s)

    def clear(self) -> None:
        """Forget every token, good and bad."""
        self._identities.clear()
        self._refusals.clear()

    def renew(self, verifier: Verifier) -> None:
        """Verify by `verifier` from now on, and forget what another one has said."""
        self._verifier = verifier
        self.clear()

    def _learn(self, authorization: bytes | None, now_s: float) -> Identity:
        try:
            identity = self._verify(authorization, now_s)
        except TokenRefused:
            self.refused += 1
            raise
        self.misses += 1
        self._identities.put(authorization, identity)
        return identity

    def _verify(self, authorization: bytes | None, now_s: float) -> Identity:
        known = self._refusals.entries.get(authorization)
        # What was expired then is expired later; it need not be after the clock was set back.
        if known is not None and now_s >= known.since_s:
            raise TokenRefused(known.code, known.detail)
        token = self._bearer_token(authorization)
        try:
            return self._verifier.verify(token, now_s)
        except TokenRefused as error:
            if error.is_final:
                refusal = _Refusal(error.code, error.detail, now_s)
                self._refusals.put(authorization, refusal)
            raise

    def _bearer_token(self, authorization: bytes | None) -> bytes:
        """Take the token out of `Bearer <token>` (RFC 6750 section 2.1)."""
        scheme, _, rest = (authorization or b"").partition(b" ")
        token = rest.strip(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise TokenRefused(Code.TOKEN_MISSING, "the request carries no bearer token")
        # The field is what is remembered, so spaces before the token count as well.
        if len(rest) > self._max_token_bytes:
            detail = f"the token is longer than {self._max_token_bytes} bytes"
            raise TokenRefused(Code.TOKEN_INVALID, detail)
        return token


class _Refusal:
    """What is raised again. Not the error itself, which would grow a traceback each time."""

    def __init__(self, code: Code, detail: str, since_s: float) -> None:
        self.code = code
        self.detail = detail
        self.since_s = since_s


class _Bounded(Generic[_V]):
    """At most `size` entries, the oldest of which makes room for the next, in constant time."""

    def __init__(self, size: int) -> None:
        self.entries: dict[bytes | None, _V] = {}
        self._size = size
        # Order apart from the dict: finding a dict's first entry slows down as entries go.
        self._order: deque[bytes | None] = deque()

    def put(self, key: bytes | None, value: _V) -> None:
        if key not in self.entries:
            if len(self._order) >= self._size:
                del self.entries[self._order.popleft()]
            self._order.append(key)
        self.entries[key] = value

    def clear(self) -> None:
        self.entries.clear()
        self._order.clear()
