"""JWKs to keys that verify, and back: four kinds of key, each with one way to verify.

By cryptography alone. PyJWT does no more with a key, and costs a worker two megabytes.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from sidecar.identity.compact import decode_base64url, encode_base64url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model.identity import JSON

P256_BYTES: Final = 32  # of a coordinate, and of half a signature (RFC 7518 sections 3.4, 6.2.1)
MAX_RSA_BITS: Final = 8192  # a longer key makes every forgery dear to refuse
MAX_EXPONENT_BITS: Final = 64  # as OpenSSL has it for long keys; 65537 is what is used
_PADDING: Final = PKCS1v15()
_SHA256: Final = SHA256()
_ES256: Final = ECDSA(_SHA256)


class Verifying(Protocol):
    """A key that verifies by the one algorithm of its kind."""

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's over `message`."""
        ...

    def members(self) -> dict[str, JSON]:
        """Return the members of a JWK that say what the key is: `kty` and its numbers."""
        ...

    @property
    def bits(self) -> int:
        """How long the key is."""
        ...


class RsaKey:
    """RS256 (RFC 7518 section 3.3)."""

    def __init__(self, public: RSAPublicKey) -> None:
        """Take a public key; raises ValueError for one that takes long to verify with."""
        self._public = public
        self.bits = public.key_size
        exponent = public.public_numbers().e
        if self.bits > MAX_RSA_BITS or exponent.bit_length() > MAX_EXPONENT_BITS:
            raise ValueError("an RSA key this long")

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's over `message`."""
        try:
            self._public.verify(signature, message, _PADDING, _SHA256)
        except InvalidSignature:
            return False
        return True

    def members(self) -> dict[str, JSON]:
        """Return `kty`, `n` and `e` (RFC 7518 section 6.3.1)."""
        numbers = self._public.public_numbers()
        return {"kty": "RSA", "n": _spelled(numbers.n), "e": _spelled(numbers.e)}


class EcKey:
    """ES256: ECDSA on P-256 (RFC 7518 section 3.4)."""

    bits = 256

    def __init__(self, public: EllipticCurvePublicKey) -> None:
        """Take a public key; raises ValueError for one on another curve."""
        if not isinstance(public.curve, SECP256R1):
            raise ValueError("it is on another curve than P-256")  # noqa: TRY004 -- of the input, not of the caller
        self._public = public

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Return whether `signature`, both numbers at their full length, is this key's."""
        if len(signature) != 2 * P256_BYTES:
            return False
        halves = signature[:P256_BYTES], signature[P256_BYTES:]
        encoded = encode_dss_signature(*[int.from_bytes(half, "big") for half in halves])
        try:
            self._public.verify(encoded, message, _ES256)
        except InvalidSignature:
            return False
        return True

    def members(self) -> dict[str, JSON]:
        """Return `kty`, `crv`, `x` and `y` (RFC 7518 section 6.2.1)."""
        numbers = self._public.public_numbers()
        x, y = (
            _text(numbers.x.to_bytes(P256_BYTES, "big")),
            _text(numbers.y.to_bytes(P256_BYTES, "big")),
        )
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


class EdKey:
    """EdDSA: Ed25519 (RFC 8037 section 3.1)."""

    bits = 256

    def __init__(self, public: Ed25519PublicKey) -> None:
        self._public = public

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's over `message`."""
        try:
            self._public.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def members(self) -> dict[str, JSON]:
        """Return `kty`, `crv` and `x` (RFC 8037 section 2)."""
        return {"kty": "OKP", "crv": "Ed25519", "x": _text(self._public.public_bytes_raw())}


class SecretKey:
    """HS256: HMAC with SHA-256 (RFC 7518 section 3.2)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.bits = 8 * len(secret)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's over `message`; takes as long either way."""
        return hmac.compare_digest(hmac.digest(self._secret, message, "sha256"), signature)

    def members(self) -> dict[str, JSON]:
        """Return `kty` and `k`, which is the secret (RFC 7518 section 6.4)."""
        return {"kty": "oct", "k": _text(self._secret)}


def read_jwk(members: Mapping[str, JSON]) -> Verifying:
    """Read the key that a JWK describes; other members than its numbers are not looked at.

    Raises ValueError, without a word of the key in it, for one that is not well-formed, and for a
    kind that there is no algorithm for.
    """
    kind, curve = members.get("kty"), members.get("crv")
    if kind == "RSA":
        exponent = int.from_bytes(_bytes(members, "e"), "big")
        modulus = int.from_bytes(_bytes(members, "n"), "big")
        return RsaKey(RSAPublicNumbers(exponent, modulus).public_key())
    if kind == "EC" and curve == "P-256":
        x, y = _bytes(members, "x"), _bytes(members, "y")
        if len(x) != P256_BYTES or len(y) != P256_BYTES:
            raise ValueError("a coordinate has another length than the curve's")
        point = b"\x04" + x + y  # uncompressed: SEC 1 section 2.3.3
        return EcKey(EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point))
    if kind == "OKP" and curve == "Ed25519":
        return EdKey(Ed25519PublicKey.from_public_bytes(_bytes(members, "x")))
    if kind == "oct":
        return SecretKey(_bytes(members, "k"))
    raise ValueError("no kind of key that is known")


def of_public(key: object) -> Verifying:
    """Return what verifies with a public key of cryptography's; ValueError for other kinds."""
    if isinstance(key, RSAPublicKey):
        return RsaKey(key)
    if isinstance(key, EllipticCurvePublicKey):
        return EcKey(key)
    if isinstance(key, Ed25519PublicKey):
        return EdKey(key)
    raise ValueError("it is neither an RSA, nor a P-256, nor an Ed25519 key")


def _bytes(members: Mapping[str, JSON], name: str) -> bytes:
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"member '{name}' is not there")
    return decode_base64url(value.encode())


def _text(data: bytes) -> str:
    return encode_base64url(data).decode()


def _spelled(number: int) -> str:
    return _text(number.to_bytes((number.bit_length() + 7) // 8, "big"))
