"""How every Redis key is spelled and parsed (DESIGN section 6: one fact, one key)."""

from __future__ import annotations

import re
from typing import assert_never

from msgspec import Struct

from sidecar.errors import SidecarError
from sidecar.model.identity import MAX_JTI_CHARS, is_tenant

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # as `model.policy.Name`
MAX_TENANT = 512  # characters; a tenant comes from a claim, not from a person's typing
MAX_KEY_BYTES = 4 * 1024  # of a key that means anything; a Redis key may have half a gigabyte


class BadNameError(SidecarError):
    """A model, version or tenant that cannot stand in a key."""


class PolicyKey(Struct, frozen=True, gc=False):
    """The policy document of `model`."""

    model: str


class PinKey(Struct, frozen=True, gc=False):
    """The version that `tenant` is held to."""

    model: str
    tenant: str


class KillKey(Struct, frozen=True, gc=False):
    """The switch of one version, or of the whole model when `version` is empty."""

    model: str
    version: str


class RevokedKey(Struct, frozen=True, gc=False):
    """That the token of this `jti` is not believed, whatever the value."""

    jti: str


class CutoffKey(Struct, frozen=True, gc=False):
    """That tokens of `tenant` made before a moment, epoch seconds, are not believed."""

    tenant: str


Revocation = RevokedKey | CutoffKey
"""A key that takes tokens back."""

Numerous = PinKey | Revocation
"""A key of which there may be a million."""

Key = PolicyKey | PinKey | KillKey | Revocation
"""A key that decisions depend on."""


def model_of(key: Key) -> str:
    """Return the model that a key is about; empty for one that is about tokens."""
    return "" if isinstance(key, Revocation) else key.model


class Keys:
    """Spells and parses keys under one prefix. Spelling a bad name raises `BadNameError`."""

    def __init__(self, prefix: str = "rmv") -> None:
        self._policy = f"{prefix}:policy:"
        self._pin = f"{prefix}:pin:"
        self._kill = f"{prefix}:kill:"
        self._revoked = f"{prefix}:revoked:"
        self._cutoff = f"{prefix}:revoked-before:"
        self._history = f"{prefix}:history:"
        self._contexts = f"{prefix}:contexts:"
        self._evidence = f"{prefix}:evidence:"
        self._spent = f"{prefix}:spent:"
        self.shadows = f"{prefix}:shadow"
        """The sorted set of shadow tests that have been told of."""
        self.audit = f"{prefix}:audit"
        """The stream of what was done and decided."""
        self.fleet = f"{prefix}:fleet"
        """The sorted set of workers that tell of themselves."""
        self.probe = f"{prefix}:probe:"
        """The prefix of keys that watchers write to see whether changes are reported to them."""
        self.watched = (self._policy, self._pin, self._kill, self._revoked, self._cutoff)
        """The prefixes of the keys that decisions depend on."""
        # One SCAN for all; `parse` drops what the wider pattern lets in besides them.
        self.watched_pattern = f"{prefix}:[pkr]*"
        self.policy_pattern = f"{self._policy}*"
        self.revocations_pattern = f"{prefix}:revoked*"

    def policy(self, model: str) -> str:
        """Spell the key of a policy document."""
        return self._policy + _checked(model)

    def pin(self, model: str, tenant: str) -> str:
        """Spell the key of a pin; `tenant` may contain colons."""
        if not tenant or len(tenant) > MAX_TENANT:
            raise BadNameError(f"a tenant has 1 to {MAX_TENANT} characters, not {len(tenant)}")
        return f"{self._pin}{_checked(model)}:{tenant}"

    def kill(self, model: str, version: str = "") -> str:
        """Spell the key of a kill; an empty `version` is the whole model."""
        whole = self._kill + _checked(model)
        return f"{whole}:{_checked(version)}" if version else whole

    def revoked(self, jti: str) -> str:
        """Spell the key that takes the token of this `jti` back."""
        if not 0 < len(jti) <= MAX_JTI_CHARS:
            raise BadNameError(f"a jti has 1 to {MAX_JTI_CHARS} characters, not {len(jti)}")
        return self._revoked + jti

    def cutoff(self, tenant: str) -> str:
        """Spell the key that takes a tenant's older tokens back."""
        if not is_tenant(tenant):
            raise BadNameError(f"no token can have the tenant {tenant!r}")
        return self._cutoff + tenant

    def history(self, model: str) -> str:
        """Spell the key of the stream of a model's committed revisions."""
        return self._history + _checked(model)

    def contexts(self, model: str) -> str:
        """Spell the key of the stream of contexts of a model's requests."""
        return self._contexts + _checked(model)

    def shadow(self, model: str, version: str, test: str) -> str:
        """Spell the key of what workers have counted of one shadow test."""
        return f"{self.shadows}:{':'.join(map(_checked, (model, version, test)))}"

    def evidence(self, model: str, version: str) -> str:
        """Spell the key of the stream of pairs in which a shadow disagreed."""
        return f"{self._evidence}{_checked(model)}:{_checked(version)}"

    def spent(self, model: str, version: str, day: str) -> str:
        """Spell the key of what copies to a shadow have cost on one UTC day."""
        return f"{self._spent}{_checked(model)}:{_checked(version)}:{_checked(day)}"

    def member(self, name: str) -> str:
        """Spell the key of what one worker tells of itself."""
        return f"{self.fleet}:{name}"

    def pins_pattern(self, model: str) -> str:
        """Return the SCAN pattern of all pins of `model`."""
        return f"{self._pin}{_checked(model)}:*"  # a checked name has no glob characters

    def kills_pattern(self, model: str) -> str:
        """Return the SCAN pattern of the version kills of `model`; the model's own is not in it."""
        return f"{self._kill}{_checked(model)}:*"

    def spell(self, key: Key) -> str:
        """Spell a key as `parse` read it, good names or not."""
        match key:
            case PolicyKey(model=model):
                return self._policy + model
            case PinKey(model=model, tenant=tenant):
                return f"{self._pin}{model}:{tenant}"
            case KillKey(model=model, version=version):
                return f"{self._kill}{model}:{version}" if version else self._kill + model
            case RevokedKey(jti=jti):
                return self._revoked + jti
            case CutoffKey(tenant=tenant):
                return self._cutoff + tenant
            case _:
                assert_never(key)

    def parse(self, raw: bytes) -> Key | None:
        """Return what a key means, or None when it is not one that decisions depend on."""
        if len(raw) > MAX_KEY_BYTES:
            return None
        try:
            key = raw.decode()
        except UnicodeDecodeError:
            return None
        if key.startswith(self._pin):
            model, _, tenant = key[len(self._pin) :].partition(":")
            return PinKey(model, tenant) if model and tenant else None
        if key.startswith(self._policy):
            model = key[len(self._policy) :]
            return PolicyKey(model) if _NAME.fullmatch(model) else None
        if key.startswith(self._kill):
            model, colon, version = key[len(self._kill) :].partition(":")
            is_whole = not colon
            return KillKey(model, version) if model and (is_whole or version) else None
        return self._parse_revocation(key)

    def _parse_revocation(self, key: str) -> Revocation | None:
        if key.startswith(self._revoked):
            jti = key[len(self._revoked) :]
            return RevokedKey(jti) if 0 < len(jti) <= MAX_JTI_CHARS else None
        if key.startswith(self._cutoff):
            tenant = key[len(self._cutoff) :]
            return CutoffKey(tenant) if is_tenant(tenant) else None
        return None


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadNameError(
            f"{name!r} is not a name: 1 to 64 letters, digits, '.', '_', '-', "
            "the first of them a letter or digit"
        )
    return name
