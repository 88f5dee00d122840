"""The keys that tokens are verified with, and what each of them may verify."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct

from sidecar.errors import SidecarError
from sidecar.identity.compact import decode_object
from sidecar.identity.jwk import Verifying, of_public, read_jwk

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sidecar.model.identity import JSON

MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: no shorter than the hash

# One algorithm per kind of key: a token's own word never chooses how a key is used.
_ALGORITHM = {"RSA": "RS256", "EC P-256": "ES256", "OKP Ed25519": "EdDSA", "oct": "HS256"}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
_SKIPPING = 'keys_of_other_use = "skip" takes such a set without it'


class KeySetError(SidecarError):
    """A key set cannot be used; the text names the key and the reason."""


class Key(Struct, frozen=True):
    """One verification key, bound to one algorithm. `kid` is empty for a key without one."""

    kid: str
    algorithm: str
    verifying: Verifying

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's over `message`."""
        return self.verifying.verify(message, signature)

    def members(self) -> dict[str, JSON]:
        """Return the members of a JWK that is this key, and none besides."""
        return {**self.verifying.members(), "kid": self.kid, "alg": self.algorithm}


class KeySet:
    """Keys by id and algorithm.

    `refused` says which keys were left out, and why; `left_out` the reasons by `kid`.
    """

    def __init__(
        self,
        keys: Sequence[Key],
        refused: Sequence[str] = (),
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        self.keys = tuple(keys)
        self.refused = tuple(refused)
        self.left_out = dict(left_out or {})
        self._by_kid = {key.kid: key for key in keys if key.kid}
        self._by_algorithm: dict[str, list[Key]] = {}
        for key in keys:
            self._by_algorithm.setdefault(key.algorithm, []).append(key)

    def find(self, algorithm: str, kid: str | None) -> Key | None:
        """Return the key that a token's header names.

        Without a `kid` that is the only key of the algorithm: trying several keys in turn would
        make the cost of a forged token grow with the set.
        """
        if kid is not None:
            key = self._by_kid.get(kid)
            return key if key is not None and key.algorithm == algorithm else None
        keys = self._by_algorithm.get(algorithm, [])
        return keys[0] if len(keys) == 1 else None

    def knows(self, kid: str) -> bool:
        """Return whether the set has a key of this id, be it one that was left out."""
        return kid in self._by_kid or kid in self.left_out

    def why_not(self, kid: str | None) -> str:
        """Return why a key that a token names verifies no token; empty if it is not known."""
        reason = None if kid is None else self.left_out.get(kid)
        return "" if reason is None else f"the key that the token names is no good: {reason}"

    def spelled(self) -> str:
        """Return the keys as one JWK Set: the same text for the same keys in any order."""
        keys = [key.members() for key in self.keys]
        keys.sort(key=lambda members: (members["kid"], members["alg"]))
        return json.dumps({"keys": keys}, separators=(",", ":"), sort_keys=True)

    def digest(self) -> str:
        """Return a digest of the public keys; of secrets nothing may be told."""
        public = KeySet([key for key in self.keys if key.algorithm != "HS256"])
        return f"sha256:{hashlib.sha256(public.spelled().encode()).hexdigest()}"


class _UnsuitableError(SidecarError):
    """A sound key that is for something else."""


class _OtherUseError(_UnsuitableError):
    """A key that says itself that it verifies nothing."""


def load_jwks(raw: bytes, algorithms: Collection[str], *, skips_other_uses: bool = False) -> KeySet:
    """Read a JWK Set (RFC 7517) of keys for `algorithms` (RS256, ES256, EdDSA, HS256).

    Keys of other kinds, curves and algorithms are left out and named in `KeySet.refused`, as RFC
    7517 section 5 asks. A key that must not be in such a set at all (private, weak, malformed, of
    a repeated `kid`) refuses the whole set, and so does a set without any usable key: KeySetError.
    A key whose `use` or `key_ops` (sections 4.2 and 4.3) are not to verify signatures refuses it
    too, or is left out if the set `skips_other_uses`.
    """
    keys: dict[str, Key] = {}
    refused: list[str] = []
    left_out: dict[str, str] = {}
    seen: set[str] = set()
    for position, members in enumerate(_members(raw)):
        label = _label(position, members)
        if label in seen:
            raise KeySetError(f"{label}: its kid is repeated")
        seen.add(label)
        try:
            keys[label] = _read_key(members, algorithms)
        except _UnsuitableError as error:
            if isinstance(error, _OtherUseError) and not skips_other_uses:
                raise KeySetError(f"{label}: {error}; {_SKIPPING}") from error
            refused.append(f"{label}: {error}")
            left_out[str(members.get("kid", ""))] = str(error)
        except KeySetError as error:
            raise KeySetError(f"{label}: {error}") from error
    if not keys:
        raise KeySetError("; ".join(["no usable key", *refused]))
    return KeySet(tuple(keys.values()), refused, left_out)


def load_pem(raw: bytes, kid: str, algorithms: Collection[str]) -> Key:
    """Read one public key in PEM (SubjectPublicKeyInfo), bound to the algorithm of its kind.

    Raises KeySetError for a key that is not of one of `algorithms`, is weak, or is none.
    """
    if b"PRIVATE KEY-----" in raw:
        raise KeySetError("it is a private key, which has no place here")
    try:
        key = load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        raise KeySetError("it is no public key in PEM") from None
    try:
        return _read_key({**of_public(key).members(), "kid": kid}, algorithms)
    except (_UnsuitableError, ValueError) as error:
        raise KeySetError(str(error)) from error


def _members(raw: bytes) -> list[dict[str, JSON]]:
    try:
        found = decode_object(raw).get("keys")
    except ValueError as error:
        raise KeySetError(f"not a JWK Set: {error}") from error
    if not isinstance(found, list):
        raise KeySetError("not a JWK Set: member 'keys' is not a list")
    keys = [key for key in found if isinstance(key, dict)]
    if len(keys) != len(found):
        raise KeySetError("not a JWK Set: a key is not an object")
    return keys


def _label(position: int, members: dict[str, JSON]) -> str:
    kid = members.get("kid")
    return f"key '{kid}'" if isinstance(kid, str) and kid else f"key number {position + 1}"


def _read_key(members: dict[str, JSON], algorithms: Collection[str]) -> Key:
    kid = members.get("kid", "")
    if not isinstance(kid, str):
        raise KeySetError("its kid is not a string")
    # Before all else: a private key in this file is a leak, whatever the key is for.
    if members.get("kty") != "oct" and not _PRIVATE.isdisjoint(members):
        raise KeySetError("it is a private key, which has no place in a file of public keys")
    _check_use(members)
    algorithm = _algorithm(members, algorithms)
    try:
        verifying = read_jwk(members)
    except ValueError:
        # Without the cause's text, which may hold the key.
        raise KeySetError(f"it is no well-formed {algorithm} key") from None
    _check_strength(algorithm, verifying.bits)
    return Key(kid, algorithm, verifying)


def _check_use(members: dict[str, JSON]) -> None:
    if members.get("use", "sig") != "sig":
        raise _OtherUseError("its use is not 'sig'")
    operations = members.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _OtherUseError("its key_ops do not include 'verify'")


def _algorithm(members: dict[str, JSON], algorithms: Collection[str]) -> str:
    kind = str(members.get("kty"))
    if kind in {"EC", "OKP"}:
        kind = f"{kind} {members.get('crv')}"
    algorithm = _ALGORITHM.get(kind)
    if algorithm is None:
        raise _UnsuitableError(f"keys of kind {kind} are not supported")
    if members.get("alg", algorithm) != algorithm:
        raise _UnsuitableError(f"its alg is not {algorithm}, the one used with {kind} keys")
    if algorithm not in algorithms:
        raise _UnsuitableError(f"{algorithm} is not among the accepted algorithms")
    return algorithm


def _check_strength(algorithm: str, bits: int) -> None:
    if algorithm == "RS256" and bits < MIN_RSA_BITS:
        raise KeySetError(f"RSA of {bits} bits is weak; {MIN_RSA_BITS} is the least")
    if algorithm == "HS256" and bits < 8 * MIN_SECRET_BYTES:
        raise KeySetError(f"a secret of {bits // 8} bytes is weak; {MIN_SECRET_BYTES} is the least")
