"""The memory of tokens already verified: what makes the second request of a caller cheap."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.errors import Code
from sidecar.identity.refusal import TokenRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Set

    from sidecar.model.identity import Identity

MAX_REFUSALS = 256  # with tokens of 8 KiB that is 2 MiB; clients repeat few bad tokens at a time
LARGE_BYTES: Final = 2048  # of a token: it takes up the room of one more, and so on from there
MAX_FINGERPRINTS: Final = 4  # for each key; two where a tenant keeps what it has
LOOKED_AT: Final = 16  # tenants, to find one that has many tokens: Redis finds old keys like this
MISSING: Final = "the request carries no bearer token"


class Verifier(Protocol):
    """Who tells callers by their tokens: `tokens.Verifier`, or one for each of several issuers."""

    def verify(self, token: bytes, now_s: float) -> Identity:
        """Return the caller; raises TokenRefused."""
        ...


class IdentityCache:
    """Callers by the value of their `Authorization` field.

    At most `max_entries` (1 or more) are remembered, fewer where tokens are over `LARGE_BYTES`, and
    none is used from its identity's `expires_at_s` on. No number of tokens drives out those of a
    tenant that takes up less, nor do tokens that come once drive out what is used: `_Remembered`.
    Bad tokens are remembered apart, so they drive out no good one. A token of which `is_revoked`
    says so is a bad one. Every lookup adds one to `hits` (remembered), `misses` (verified now) or
    `refused`; `too_long` of the latter were over their limit. Who shows no token is told `missing`.
    """

    def __init__(
        self,
        verifier: Verifier,
        max_entries: int,
        max_token_bytes: int,
        is_revoked: Callable[[Identity], bool] | None = None,
        missing: str = MISSING,
    ) -> None:
        self.hits = 0
        self.misses = 0
        self.refused = 0
        self.too_long = 0  # of those
        self._verifier = verifier
        self._max_token_bytes = max_token_bytes
        self._is_revoked = is_revoked
        self._missing = missing
        self._identities = _Remembered(max_entries)
        self._refusals = _Refusals(MAX_REFUSALS)
        self._known = self._identities.entries  # the hit path has no attribute to spare

    def __len__(self) -> int:
        return len(self._known)

    @property
    def refusals(self) -> int:
        """How many bad tokens are remembered."""
        return len(self._refusals.entries)

    def remembered(self) -> Iterator[Identity]:
        """Iterate over the identities that are remembered, in no order."""
        return iter(list(self._known.values()))

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

    def forget(self, jtis: Set[str], tenants: Set[str], *, is_lifted: bool) -> None:
        """Verify these tokens, and all of these tenants, anew when they come again.

        `is_lifted` says that a token which was refused may be good by now.
        """
        self._identities.forget(jtis, tenants)
        if is_lifted:
            self._refusals.clear()

    def _learn(self, authorization: bytes | None, now_s: float) -> Identity:
        try:
            identity = self._verify(authorization, now_s)
        except TokenRefused:
            self.refused += 1
            raise
        self.misses += 1
        self._identities.put(authorization, identity, now_s)
        return identity

    def _verify(self, authorization: bytes | None, now_s: float) -> Identity:
        known = self._refusals.entries.get(authorization)
        # What was expired then is expired later; it need not be after the clock was set back.
        if known is not None and now_s >= known.since_s:
            raise TokenRefused(known.code, known.detail)
        token = self._bearer_token(authorization)
        try:
            identity = self._verifier.verify(token, now_s)
            self._refuse_revoked(identity)
        except TokenRefused as error:
            if error.is_final:
                refusal = _Refusal(error.code, error.detail, now_s)
                self._refusals.put(authorization, refusal)
            raise
        return identity

    def _refuse_revoked(self, identity: Identity) -> None:
        if self._is_revoked is not None and self._is_revoked(identity):
            raise TokenRefused(Code.TOKEN_INVALID, "the token has been revoked")

    def _bearer_token(self, authorization: bytes | None) -> bytes:
        """Take the token out of `Bearer <token>` (RFC 6750 section 2.1)."""
        scheme, _, rest = (authorization or b"").partition(b" ")
        token = rest.strip(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise TokenRefused(Code.TOKEN_MISSING, self._missing)
        # The field is what is remembered, so spaces before the token count as well.
        if len(rest) > self._max_token_bytes:
            self.too_long += 1
            detail = f"the token is longer than {self._max_token_bytes} bytes"
            raise TokenRefused(Code.TOKEN_INVALID, detail)
        return token


class _Tenant:
    """The keys of a tenant's tokens, oldest first, and what it showed that found no room.

    The latter is the doorkeeper of TinyLFU (Einziger, Friedman and Manes, ACM Transactions on
    Storage 13(4), 2017), here in two generations, each of as many fingerprints as there are keys.
    Every tenant has its own, so none is flooded by another.
    """

    def __init__(self) -> None:
        self.keys: deque[bytes | None] = deque()
        self.room = 0  # that they take up
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()

    def comes_again(self, key: bytes | None) -> bool:
        """Return whether this was asked of the same key lately."""
        # What the dict has computed already, with a secret of the process. Where two keys share
        # it, one is remembered too early: it has been verified like any other.
        fingerprint = hash(key)
        if fingerprint in self._seen or fingerprint in self._seen_before:
            return True
        if len(self._seen) >= len(self.keys):
            self._seen_before, self._seen = self._seen, set()
        self._seen.add(fingerprint)
        return False

    def shed(self) -> None:
        """Let fingerprints go that were taken when there were far more keys."""
        if len(self._seen) + len(self._seen_before) > MAX_FINGERPRINTS * len(self.keys):
            self._seen, self._seen_before = set(), set()


class _Remembered:
    """Identities that take up `size` at most. A new one gets its room from a tenant with many.

    Of the tenant that had most lately, the new one's own, and some in turn, the one that has most
    room gives its oldest up; so a tenant never loses any to one that has more. An identity that has
    expired goes first where one is met.

    Where all is taken and nobody has more than the new one's tenant, its token has to come twice:
    most that come once never come again, and to remember them all costs more than their keys.
    """

    def __init__(self, size: int) -> None:
        self.entries: dict[bytes | None, Identity] = {}
        self._size = size
        self._taken = 0  # of it
        # Keys by tenant, apart from the dict: finding a dict's first entry slows down as entries
        # go. A tenant that has none is let go of at its turn.
        self._tenants: dict[str, _Tenant] = {}
        self._turns: deque[str] = deque()  # the tenants of `_tenants`
        self._largest = _Tenant()

    def put(self, key: bytes | None, identity: Identity, now_s: float) -> None:
        """Remember an identity, be it at the second time."""
        if key in self.entries:
            self.entries[key] = identity  # the same token, so it is of the same tenant
            return
        tenant = self._tenants.get(identity.tenant)
        room = _room(key)
        if self._taken + room > self._size:
            if tenant is not None and not self._is_due(tenant, key, now_s):
                return
            self._make(room, tenant, now_s)
            tenant = self._tenants.get(identity.tenant)  # whose last one may have gone
        if tenant is None:
            tenant = self._tenants[identity.tenant] = _Tenant()
            self._turns.append(identity.tenant)
        tenant.keys.append(key)
        tenant.room += room
        self.entries[key] = identity
        self._taken += room
        if tenant.room > self._largest.room:
            self._largest = tenant

    def forget(self, jtis: Set[str], tenants: Set[str]) -> None:
        """Forget the tokens of these ids, and all of these tenants."""
        for tenant in tenants:
            known = self._tenants.get(tenant)
            while known is not None and known.keys:
                self._drop(known, known.keys.popleft())
        if not jtis:
            return
        gone = [(key, one.tenant) for key, one in self.entries.items() if one.jti in jtis]
        for key, tenant in gone:
            self._tenants[tenant].keys.remove(key)
            self._drop(self._tenants[tenant], key)

    def clear(self) -> None:
        """Forget all."""
        self.entries.clear()
        self._taken = 0
        self._tenants.clear()
        self._turns.clear()
        self._largest = _Tenant()

    def _is_due(self, tenant: _Tenant, key: bytes | None, now_s: float) -> bool:
        """Return whether a tenant's new key gets room where there is none left."""
        if tenant.room > self._largest.room:
            self._largest = tenant
        # By more than this one takes, lest one too many goes to and fro between tenants alike.
        if not tenant.keys or tenant.room + _room(key) < self._largest.room:
            return True
        has_expired = self.entries[tenant.keys[0]].expires_at_s <= now_s
        return has_expired or tenant.comes_again(key)

    def _make(self, room: int, tenant: _Tenant | None, now_s: float) -> None:
        """Make room for a new one of a tenant, as far as there is any."""
        while self.entries and self._taken + room > self._size:
            giver = self._richest(tenant, now_s)
            self._drop(giver, giver.keys.popleft())

    def _drop(self, tenant: _Tenant, key: bytes | None) -> None:
        """Forget what a key of a tenant, which has let go of it, stands for."""
        tenant.shed()
        del self.entries[key]
        room = _room(key)
        tenant.room -= room
        self._taken -= room

    def _richest(self, own: _Tenant | None, now_s: float) -> _Tenant:
        """Return who gives a key up; there is an entry."""
        turns = self._turns
        while not self._tenants[turns[0]].keys:
            del self._tenants[turns.popleft()]
        turns.rotate(-1)
        # At a tie the one whose turn it is: where all have one token, the oldest goes.
        richest = self._tenants[turns[-1]]
        for name in islice(turns, LOOKED_AT):
            tenant = self._tenants[name]
            if tenant.keys and self.entries[tenant.keys[0]].expires_at_s <= now_s:
                return tenant
            if tenant.room > richest.room:
                richest = tenant
        for other in (own, self._largest):
            if other is not None and other.room > richest.room:
                richest = other
        return richest


def _room(key: bytes | None) -> int:
    return 1 + len(key or b"") // LARGE_BYTES


class _Refusal:
    """What is raised again. Not the error itself, which would grow a traceback each time."""

    def __init__(self, code: Code, detail: str, since_s: float) -> None:
        self.code = code
        self.detail = detail
        self.since_s = since_s


class _Refusals:
    """At most `size` of the latest, the oldest of which makes room for the next."""

    def __init__(self, size: int) -> None:
        self.entries: dict[bytes | None, _Refusal] = {}
        self._size = size
        self._order: deque[bytes | None] = deque()  # apart from the dict, as above

    def put(self, key: bytes | None, refusal: _Refusal) -> None:
        """Remember a refusal."""
        if key not in self.entries:
            if len(self._order) >= self._size:
                del self.entries[self._order.popleft()]
            self._order.append(key)
        self.entries[key] = refusal

    def clear(self) -> None:
        """Forget all."""
        self.entries.clear()
        self._order.clear()
