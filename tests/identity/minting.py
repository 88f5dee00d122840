"""Tokens as a test wants them, well-formed or not; nothing here uses the code under test."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from msgspec import Struct

from sidecar.model.identity import JSON

NOW_S = 1_800_000_000.0
ISSUER = "https://issuer.test"
AUDIENCE = "models"
LEEWAY_S = 30.0


class Signer(Struct, frozen=True):
    """A private key: what it signs with, and the public JWK that verifies it."""

    algorithm: str
    kid: str
    sign: Callable[[bytes], bytes]
    jwk: dict[str, JSON]

    def mint(self, claims: dict[str, JSON] | bytes, **header: JSON) -> bytes:
        """Sign `claims` (bytes go in as they are); `header` members replace or add to the usual."""
        full: dict[str, JSON] = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT", **header}
        return self.mint_raw(json.dumps(full).encode(), encode(claims))

    def mint_raw(self, header: bytes, claims: bytes) -> bytes:
        """Sign the two parts byte for byte."""
        message = b64(header) + b"." + b64(claims)
        return message + b"." + b64(self.sign(message))


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def encode(claims: dict[str, JSON] | bytes) -> bytes:
    return claims if isinstance(claims, bytes) else json.dumps(claims).encode()


def good_claims(**changes: JSON) -> dict[str, JSON]:
    """Return claims that pass every check; a change to None takes a claim away."""
    claims: dict[str, JSON] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": NOW_S + 300,
        "iat": NOW_S - 10,
        "sub": "ada",
        "tenant": "acme",
        "azp": "console",
        "scope": "read write",
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def jwks(*keys: dict[str, JSON]) -> bytes:
    return json.dumps({"keys": keys}).encode()
