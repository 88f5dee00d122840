"""Tokens that are taken back before they expire: one by its `jti`, or a tenant's older ones.

What the store says holds until it says otherwise. While it is out of reach, what was taken back
stays so, and nothing new is heard of; so too when it has lost its policies. A key that expires is
reported as gone, by when its token should have expired as well.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sidecar.policy.pins import Pins
from sidecar.store.keys import CutoffKey, Revocation, RevokedKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.model.identity import Identity

MAX_REVOCATIONS: Final = 1_000_000  # of tokens, in a worker; more is a mistake
TOO_MANY: Final = f"over {MAX_REVOCATIONS} tokens are revoked: cut their tenants off"
MAX_CUTOFFS: Final = 100_000  # of tenants; that many are the whole issuer
TOO_MANY_CUTOFFS: Final = (
    f"over {MAX_CUTOFFS} tenants are cut off: have the issuer replace its keys"
)
NO_MOMENT: Final = "not a time in epoch seconds"
_MOMENT: Final = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?")


def moment(text: str) -> float | None:
    """Read the epoch seconds of a cut-off; None for anything else."""
    return float(text) if _MOMENT.fullmatch(text) else None


class Changes(Struct, frozen=True):
    """What was taken back lately; `is_lifted` says that some token is believed again."""

    jtis: frozenset[str]
    tenants: frozenset[str]
    is_lifted: bool


class Revocations:
    """What is taken back, as far as is known.

    `on_change` is called after each change, of which `take` then tells.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[], None] | None = None
        self._jtis = Pins()  # a mapping that grows without a pause, whatever it maps
        self._number = 0
        self._cutoffs: dict[str, float] = {}
        self._fresh_jtis: set[str] = set()
        self._fresh_tenants: set[str] = set()
        self._is_lifted = False

    def __len__(self) -> int:
        return self._number + len(self._cutoffs)

    def is_revoked(self, identity: Identity) -> bool:
        """Return whether the token of an identity is taken back.

        A token that does not say when it was made was made before any cut-off.
        """
        if self._cutoffs:
            cutoff_s = self._cutoffs.get(identity.tenant)
            if cutoff_s is not None and identity.issued_s < cutoff_s:
                return True
        jti = identity.jti if self._number else ""
        return bool(jti) and self._jtis.get(jti) is not None

    def put(self, key: Revocation, value: str | None) -> str:
        """Take tokens back, or believe them again when `value` is None.

        Returns why that cannot be done, or an empty text; then nothing has changed.
        """
        if isinstance(key, RevokedKey):
            return self._put_jti(key.jti, value)
        before_s = None if value is None else moment(value)
        if value is not None and before_s is None:
            return NO_MOMENT
        return self._put_cutoff(key.tenant, before_s)

    def has(self, key: Revocation) -> bool:
        """Return whether a key is held."""
        if isinstance(key, RevokedKey):
            return self._jtis.get(key.jti) is not None
        return key.tenant in self._cutoffs

    def portions(self, size: int) -> Iterator[list[Revocation]]:
        """Yield the keys that are held, at most `size` at a time; they may change in between."""
        for jtis in self._jtis.portions(size):
            yield [RevokedKey(jti) for jti in jtis]
        tenants = iter(list(self._cutoffs))
        while portion := list(islice(tenants, size)):
            yield [CutoffKey(tenant) for tenant in portion]

    def take(self) -> Changes:
        """Return what has changed since this was called last."""
        changes = Changes(
            frozenset(self._fresh_jtis), frozenset(self._fresh_tenants), self._is_lifted
        )
        self._fresh_jtis.clear()
        self._fresh_tenants.clear()
        self._is_lifted = False
        return changes

    def _put_jti(self, jti: str, value: str | None) -> str:
        is_held = self._jtis.get(jti) is not None
        if is_held == (value is not None):
            return ""
        if value is not None and self._number >= MAX_REVOCATIONS:
            return TOO_MANY
        # That it is there is all that counts; its reason is kept by the store alone.
        self._jtis.put(jti, None if value is None else "")
        self._number += -1 if is_held else 1
        self._changed(self._fresh_jtis, jti, is_lifted=is_held)
        return ""

    def _put_cutoff(self, tenant: str, cutoff_s: float | None) -> str:
        before_s = self._cutoffs.get(tenant)
        if before_s == cutoff_s:
            return ""
        if before_s is None and len(self._cutoffs) >= MAX_CUTOFFS:
            return TOO_MANY_CUTOFFS
        if cutoff_s is None:
            del self._cutoffs[tenant]
        else:
            self._cutoffs[tenant] = cutoff_s
        is_lifted = cutoff_s is None or (before_s is not None and cutoff_s < before_s)
        self._changed(self._fresh_tenants, tenant, is_lifted=is_lifted)
        return ""

    def _changed(self, fresh: set[str], name: str, *, is_lifted: bool) -> None:
        if self.on_change is None:  # nobody would take it, and it would pile up
            return
        fresh.add(name)
        self._is_lifted = self._is_lifted or is_lifted
        self.on_change()
