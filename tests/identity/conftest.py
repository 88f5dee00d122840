"""Real keys, made once: an RSA key takes longer to find than all these tests to run."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from sidecar.identity.claims import ClaimNames
from sidecar.identity.keys import load_jwks
from sidecar.identity.tokens import Verifier
from tests.identity.minting import AUDIENCE, ISSUER, LEEWAY_S, Signer, jwks

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

SECRET = b"a secret of thirty-two bytes, ok"


def rsa_signer(kid: str, bits: int = 2048) -> Signer:
    private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    jwk: dict[str, JSON] = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    algorithm = RSAAlgorithm(RSAAlgorithm.SHA256)
    return Signer("RS256", kid, lambda m: algorithm.sign(m, private), {**jwk, "kid": kid})


@pytest.fixture(scope="session")
def rs256() -> Signer:
    return rsa_signer("rsa-1")


@pytest.fixture(scope="session")
def foreign() -> Signer:
    """Another issuer's key that calls itself by our key's id."""
    return rsa_signer("rsa-1")


@pytest.fixture(scope="session")
def weak() -> Signer:
    return rsa_signer("weak", bits=1024)


@pytest.fixture(scope="session")
def es256() -> Signer:
    private = ec.generate_private_key(ec.SECP256R1())
    jwk: dict[str, JSON] = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    algorithm = ECAlgorithm(ECAlgorithm.SHA256)
    return Signer("ES256", "ec-1", lambda m: algorithm.sign(m, private), {**jwk, "kid": "ec-1"})


@pytest.fixture(scope="session")
def eddsa() -> Signer:
    private = ed25519.Ed25519PrivateKey.generate()
    jwk: dict[str, JSON] = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return Signer("EdDSA", "ed-1", private.sign, {**jwk, "kid": "ed-1"})


@pytest.fixture(scope="session")
def hs256() -> Signer:
    secret = base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode()
    jwk: dict[str, JSON] = {"kty": "oct", "k": secret, "kid": "hmac-1"}
    algorithm = HMACAlgorithm(HMACAlgorithm.SHA256)
    return Signer("HS256", "hmac-1", lambda m: algorithm.sign(m, SECRET), jwk)


@pytest.fixture
def verifier(rs256: Signer, es256: Signer, eddsa: Signer) -> Verifier:
    """The usual: one key of each public kind."""
    keys = load_jwks(jwks(rs256.jwk, es256.jwk, eddsa.jwk), ("RS256", "ES256", "EdDSA"))
    return Verifier(keys, ISSUER, AUDIENCE, ClaimNames(), LEEWAY_S)
