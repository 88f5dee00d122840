"""What the development issuer makes, the verifier believes."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Literal

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sidecar.errors import Code
from sidecar.identity.claims import ClaimNames
from sidecar.identity.issuer import create_keys, issue
from sidecar.identity.keys import KeySetError, load_jwks
from sidecar.identity.tokens import TokenRefused, Verifier
from tests.identity.minting import AUDIENCE, ISSUER, NOW_S

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.model.identity import JSON


def token(directory: Path, lifetime_s: float = 60, claims: dict[str, JSON] | None = None) -> bytes:
    return issue(
        directory,
        tenant="acme",
        subject="ada",
        issuer=ISSUER,
        audience=AUDIENCE,
        lifetime_s=lifetime_s,
        now_s=NOW_S,
        claims=claims,
    ).encode()


def verifier(directory: Path) -> Verifier:
    keys = load_jwks((directory / "jwks.json").read_bytes(), ("RS256", "EdDSA"))
    return Verifier(keys, ISSUER, AUDIENCE, ClaimNames(), 0.0)


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_an_issued_token_verifies(tmp_path: Path, algorithm: Literal["RS256", "EdDSA"]) -> None:
    create_keys(tmp_path, algorithm)

    identity = verifier(tmp_path).verify(token(tmp_path, claims={"scope": "read"}), NOW_S)

    assert (identity.tenant, identity.subject, identity.scopes) == ("acme", "ada", ("read",))
    assert identity.expires_at_s == NOW_S + 60


def test_only_the_owner_can_read_the_private_key(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys", "EdDSA")

    mode = (tmp_path / "keys" / "private.pem").stat().st_mode

    assert stat.S_IMODE(mode) == 0o600


def test_the_key_set_holds_nothing_private(tmp_path: Path) -> None:
    create_keys(tmp_path, "EdDSA")

    (key,) = json.loads((tmp_path / "jwks.json").read_text())["keys"]

    assert set(key) == {"kty", "crv", "x", "alg", "use", "kid"}


def test_keys_in_use_are_not_overwritten(tmp_path: Path) -> None:
    create_keys(tmp_path, "EdDSA")
    before = (tmp_path / "private.pem").read_bytes()

    with pytest.raises(KeySetError, match="is there already"):
        create_keys(tmp_path, "EdDSA")

    assert (tmp_path / "private.pem").read_bytes() == before


def test_an_issued_token_ends(tmp_path: Path) -> None:
    create_keys(tmp_path, "EdDSA")

    with pytest.raises(TokenRefused) as refused:
        verifier(tmp_path).verify(token(tmp_path, lifetime_s=-1), NOW_S)

    assert refused.value.code is Code.TOKEN_EXPIRED


def test_added_claims_do_not_replace_arguments(tmp_path: Path) -> None:
    create_keys(tmp_path, "EdDSA")
    added: dict[str, JSON] = {"tenant": "other", "exp": 9e9, "azp": "console"}

    identity = verifier(tmp_path).verify(token(tmp_path, claims=added), NOW_S)

    assert (identity.tenant, identity.app) == ("acme", "console")
    assert identity.expires_at_s == NOW_S + 60


def test_without_a_usable_key_nothing_is_issued(tmp_path: Path) -> None:
    with pytest.raises(KeySetError, match="no private key can be read"):
        token(tmp_path)
    (tmp_path / "private.pem").write_bytes(b"not a key")
    with pytest.raises(KeySetError, match="no private key can be read"):
        token(tmp_path)
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "private.pem").write_bytes(other)
    with pytest.raises(KeySetError, match="neither an RSA nor an Ed25519 key"):
        token(tmp_path)
