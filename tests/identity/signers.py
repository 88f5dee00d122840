"""Private keys of each kind, and what they sign with; nothing here uses the code under test."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.identity.minting import Signer

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

SECRET = b"a secret of thirty-two bytes, ok"


def rsa_signer(kid: str, bits: int = 2048) -> Signer:
    private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    jwk: dict[str, JSON] = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    algorithm = RSAAlgorithm(RSAAlgorithm.SHA256)
    return Signer("RS256", kid, lambda m: algorithm.sign(m, private), {**jwk, "kid": kid})


def ec_signer(kid: str = "ec-1") -> Signer:
    private = ec.generate_private_key(ec.SECP256R1())
    jwk: dict[str, JSON] = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    algorithm = ECAlgorithm(ECAlgorithm.SHA256)
    return Signer("ES256", kid, lambda m: algorithm.sign(m, private), {**jwk, "kid": kid})


def ed_signer(kid: str = "ed-1") -> Signer:
    private = ed25519.Ed25519PrivateKey.generate()
    jwk: dict[str, JSON] = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return Signer("EdDSA", kid, private.sign, {**jwk, "kid": kid})


def hmac_signer(kid: str = "hmac-1") -> Signer:
    secret = base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode()
    jwk: dict[str, JSON] = {"kty": "oct", "k": secret, "kid": kid}
    algorithm = HMACAlgorithm(HMACAlgorithm.SHA256)
    return Signer("HS256", kid, lambda m: algorithm.sign(m, SECRET), jwk)
