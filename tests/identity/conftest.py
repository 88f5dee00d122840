"""Real keys, made once: an RSA key takes longer to find than all these tests to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sidecar.identity.claims import ClaimNames
from sidecar.identity.keys import load_jwks
from sidecar.identity.tokens import Verifier
from tests.identity.minting import AUDIENCE, ISSUER, LEEWAY_S, jwks
from tests.identity.signers import ec_signer, ed_signer, hmac_signer, rsa_signer

if TYPE_CHECKING:
    from tests.identity.minting import Signer


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
    return ec_signer()


@pytest.fixture(scope="session")
def eddsa() -> Signer:
    return ed_signer()


@pytest.fixture(scope="session")
def hs256() -> Signer:
    return hmac_signer()


@pytest.fixture
def verifier(rs256: Signer, es256: Signer, eddsa: Signer) -> Verifier:
    """The usual: one key of each public kind."""
    keys = load_jwks(jwks(rs256.jwk, es256.jwk, eddsa.jwk), ("RS256", "ES256", "EdDSA"))
    return Verifier(keys, ISSUER, AUDIENCE, ClaimNames(), LEEWAY_S)
