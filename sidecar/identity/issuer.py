"""An issuer of tokens FOR DEVELOPMENT ONLY: `rmv token` and the demo.

It keeps its private key in a plain file and gives a token of any tenant to whoever can read that
file. Never point a sidecar that serves real callers at a key set made here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from sidecar.identity.compact import encode_base64url
from sidecar.identity.keys import KeySetError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from sidecar.model.identity import JSON

PRIVATE_KEY_FILE = "private.pem"
JWKS_FILE = "jwks.json"


def create_keys(
    directory: str | os.PathLike[str], algorithm: Literal["RS256", "EdDSA"] = "RS256"
) -> None:
    """Make a key pair FOR DEVELOPMENT: `private.pem` (mode 0600) and `jwks.json` in `directory`.

    The directory is made if it is not there. Raises KeySetError where a private key is already:
    tokens that are in use would stop working.
    """
    folder = Path(directory)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    private = _generate(algorithm)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / PRIVATE_KEY_FILE
    try:
        path.touch(mode=0o600, exist_ok=False)  # never readable by others, not even while empty
    except FileExistsError:
        raise KeySetError(f"{path}: a private key is there already") from None
    path.write_bytes(pem)
    key_set = {"keys": [_public_jwk(private)]}
    (folder / JWKS_FILE).write_text(json.dumps(key_set, indent=2) + "\n")


def issue(  # noqa: PLR0913 -- one keyword for each thing a token says
    directory: str | os.PathLike[str],
    *,
    tenant: str,
    subject: str,
    issuer: str,
    audience: str,
    lifetime_s: float,
    now_s: float,
    claims: Mapping[str, JSON] | None = None,
) -> str:
    """Sign a token FOR DEVELOPMENT with the key that `create_keys` left in `directory`.

    It is valid from `now_s` (epoch seconds) for `lifetime_s`. `claims` are added to it; where they
    name a claim that an argument stands for, the argument wins. Raises KeySetError when there is
    no usable key.
    """
    private = _load_private(Path(directory) / PRIVATE_KEY_FILE)
    said = {
        **(claims or {}),
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "tenant": tenant,
        "iat": int(now_s),
        "exp": int(now_s + lifetime_s),
    }
    public = _public_jwk(private)
    return jwt.encode(said, private, algorithm=public["alg"], headers={"kid": public["kid"]})


def _generate(algorithm: Literal["RS256", "EdDSA"]) -> RSAPrivateKey | Ed25519PrivateKey:
    if algorithm == "EdDSA":
        return Ed25519PrivateKey.generate()
    return generate_private_key(public_exponent=65537, key_size=2048)


def _load_private(path: Path) -> RSAPrivateKey | Ed25519PrivateKey:
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise KeySetError(f"{path}: no private key can be read: {error}") from error
    if not isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
        raise KeySetError(f"{path}: neither an RSA nor an Ed25519 key")
    return private


def _public_jwk(private: RSAPrivateKey | Ed25519PrivateKey) -> dict[str, str]:
    """Describe the public half; its `kid` is the thumbprint of RFC 7638."""
    if isinstance(private, RSAPrivateKey):
        full = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
        algorithm, required = "RS256", ("e", "kty", "n")
    else:
        full = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
        algorithm, required = "EdDSA", ("crv", "kty", "x")
    jwk = {name: str(full[name]) for name in required}
    canonical = json.dumps(jwk, separators=(",", ":"), sort_keys=True).encode()
    kid = encode_base64url(hashlib.sha256(canonical).digest()).decode()
    return {**jwk, "alg": algorithm, "use": "sig", "kid": kid}
