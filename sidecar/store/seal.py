"""Signatures over what a store holds: what they are made over, and how they are spelled.

A policy carries its own, in its member `signature`: `<key id>:<signature>`. Behind the value of a
pin or a kill stands a seal: `v2 sealed:<key id>:<issued>:<until>:<signature>`, both times in
milliseconds since the epoch, `until` 0 for ever. A seal without a value before it ends the pin or
kill: unlike a key that is gone, it says who ended it. Signatures are base64url.
"""

from __future__ import annotations

import base64
import hashlib
import re
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import structs

from sidecar.policy import codec
from sidecar.store.keys import KillKey, PinKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.model.policy import Policy
    from sidecar.runtime.ed25519 import PrivateKey, PublicKey

MAX_SEAL_CHARS: Final = 150  # of a seal with the blank before it

_AHEAD_MS: Final = 60_000

# What is signed begins with what it is, so that no signature passes for one of something else.
_POLICY: Final = b"rmv policy 1\n"
_MARK: Final = b"rmv mark 1\n"
_WORD: Final = "sealed:"
_SEALED: Final = re.compile(
    r"(?:(?P<value>.*) )?sealed:(?P<key>[0-9a-f]{16})"
    r":(?P<issued>[0-9]{1,15}):(?P<until>[0-9]{1,15}):(?P<signature>[A-Za-z0-9_-]{86})",
    re.DOTALL,
)
_SIGNATURE: Final = re.compile(r"(?P<key>[0-9a-f]{16}):(?P<signature>[A-Za-z0-9_-]{86})")


class Cause(Enum):
    """Why something that a store holds is not believed."""

    UNSIGNED = "unsigned"
    UNKNOWN_KEY = "unknown-key"
    FORGED = "forged"  # the signature is over something else: another text, model, tenant, revision
    OLDER = "older"
    EXPIRED = "expired"
    EARLY = "early"
    DELETED = "deleted"


WORDS: Final = {
    Cause.UNSIGNED: "not signed",
    Cause.UNKNOWN_KEY: "signed by a key that is not trusted",
    Cause.FORGED: "the signature does not fit: it is of something else, or was changed",
    Cause.OLDER: "signed, but older than what was in force",
    Cause.EXPIRED: "signed, but only until a moment that is past",
    Cause.EARLY: "signed for a moment to come: one of the clocks is wrong",
    Cause.DELETED: "deleted without a signature: what was signed goes on",
}
"""What people read of a cause."""


class Seal(NamedTuple):
    """Who signed the value of a pin or kill, and from when to when it holds, in milliseconds."""

    key_id: str
    issued_ms: int
    until_ms: int
    signature: bytes


class Mark(NamedTuple):
    """The value of a pin or kill; empty under a seal when it is ended. `seal` may be missing."""

    value: str
    seal: Seal | None

    @property
    def in_force(self) -> str | None:
        """The value, None when the mark says that there is none."""
        return None if self.seal is not None and not self.value else self.value


def read(text: str) -> Mark:
    """Take the text of a pin or kill apart; whoever trusts nobody goes by the value alone."""
    found = _SEALED.fullmatch(text)
    if found is None:
        return Mark(text, None)
    seal = Seal(
        found["key"], int(found["issued"]), int(found["until"]), _decoded(found["signature"])
    )
    return Mark(found["value"] or "", seal)


def bare(text: str | None) -> str | None:
    """Return the value that a text means without its seal, None when that ends it."""
    if text is None or _WORD not in text:  # there may be a million pins
        return text
    return read(text).in_force


class Signer:
    """Signs with one private key."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key

    @property
    def public(self) -> PublicKey:
        """What verifies it."""
        return self._key.public

    def policy(self, policy: Policy) -> Policy:
        """Return a policy as committed, model and revision included, with its signature."""
        signature = _encoded(self._key.sign(said(policy)))
        return structs.replace(policy, signature=f"{self._key.id}:{signature}")

    def mark(self, key: PinKey | KillKey, value: str, issued_ms: int, until_ms: int = 0) -> str:
        """Return the text of a pin or kill; an empty `value` ends it."""
        message = _mark_said(key, value, issued_ms, until_ms)
        signature = _encoded(self._key.sign(message))
        return f"{value} {_WORD}{self._key.id}:{issued_ms}:{until_ms}:{signature}".lstrip()


class Keyring:
    """The public keys that are trusted, by id."""

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self._keys = {key.id: key for key in keys}

    def fault_of_policy(self, policy: Policy, message: bytes = b"") -> Cause | None:
        """Return why a policy is not believed, whatever was seen before it; None when it is.

        `message` is what `said` returns of it, if that is known.
        """
        found = _SIGNATURE.fullmatch(policy.signature)
        if found is None:
            return Cause.FORGED if policy.signature else Cause.UNSIGNED
        if not policy.revision:  # a commit begins with 1: what has none is older than nothing
            return Cause.FORGED
        return self._fault(found["key"], message or said(policy), _decoded(found["signature"]))

    def fault_of_mark(self, key: PinKey | KillKey, mark: Mark) -> Cause | None:
        """Return why a pin or kill is not believed, whatever was seen and the time is."""
        value, seal = mark
        if seal is None:
            return Cause.UNSIGNED
        message = _mark_said(key, value, seal.issued_ms, seal.until_ms)
        return self._fault(seal.key_id, message, seal.signature)

    def __contains__(self, key_id: str) -> bool:
        """Return whether the key of an id is trusted."""
        return key_id in self._keys

    def _fault(self, key_id: str, message: bytes, signature: bytes) -> Cause | None:
        key = self._keys.get(key_id)
        if key is None:
            return Cause.UNKNOWN_KEY
        return None if key.verify(message, signature) else Cause.FORGED


def renewed(
    signer: Signer,
    key: PinKey | KillKey,
    value: str,
    *,
    ttl_s: float | None,
    before: str | None,
    now_s: float,
) -> str:
    """Return the text that says `value` from now on, for `ttl_s` seconds when given.

    It is newer than the text `before` it, also where whoever signed that is a little ahead of us.
    """
    issued_ms = int(now_s * 1000)
    sealed = None if before is None else read(before).seal
    if sealed is not None and issued_ms <= sealed.issued_ms <= issued_ms + _AHEAD_MS:
        issued_ms = sealed.issued_ms + 1
    until_ms = 0 if ttl_s is None else issued_ms + max(1, round(ttl_s * 1000))
    return signer.mark(key, value.strip(), issued_ms, until_ms)


class Reader:
    """What somebody who looks at a store may believe of it, whatever was seen of it before.

    Without keys that is all of it.
    """

    def __init__(self, keyring: Keyring | None = None, *, exempts_kills: bool = False) -> None:
        self._keyring = keyring
        self._exempts_kills = exempts_kills

    def doubt_of_policy(self, policy: Policy) -> str:
        """Return in words why a policy is not believed, or nothing."""
        cause = None if self._keyring is None else self._keyring.fault_of_policy(policy)
        return WORDS[cause] if cause else ""

    def doubt_of_mark(self, key: PinKey | KillKey, text: str) -> str:
        """Return in words why a pin or kill is not believed, or nothing."""
        cause = None if self._keyring is None else self._keyring.fault_of_mark(key, read(text))
        if cause is Cause.UNSIGNED and self._exempts_kills and isinstance(key, KillKey):
            return ""
        return WORDS[cause] if cause else ""


class Sealing:
    """What stores have in common: who signs what they write, and what of it is believed."""

    def __init__(self) -> None:
        self.signer: Signer | None = None
        """Who signs what is written; None: nobody."""
        self._reader = Reader()

    def sign_with(self, signer: Signer) -> None:
        """Have everything signed from now on."""
        self.signer = signer

    def believe(self, reader: Reader) -> None:
        """Tell of pins and kills from now on what `reader` does not believe of them."""
        self._reader = reader

    def doubt_of(self, policy: Policy) -> str:
        """Return why a stored policy is not believed, or nothing."""
        return self._reader.doubt_of_policy(policy)


def signer_of(policy: Policy) -> str:
    """Return the id of the key that a policy says it is signed by, empty when it says none."""
    found = _SIGNATURE.fullmatch(policy.signature)
    return found["key"] if found else ""


def said(policy: Policy) -> bytes:
    """Return what a signature of a policy is over: all of it but the signature, by its SHA-256.

    Ed25519 would read the text twice, and a long one without letting requests through meanwhile.
    """
    return _POLICY + hashlib.sha256(codec.encode(structs.replace(policy, signature=""))).digest()


def _mark_said(key: PinKey | KillKey, value: str, issued_ms: int, until_ms: int) -> bytes:
    # JSON: nothing in a tenant or a reason passes for the end of it.
    if isinstance(key, PinKey):
        said = ("pin", key.model, key.tenant, value, issued_ms, until_ms)
    else:
        said = ("kill", key.model, key.version, value, issued_ms, until_ms)
    return _MARK + msgspec.json.encode(said)


def _encoded(signature: bytes) -> str:
    return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")  # 86 letters are 64 bytes
