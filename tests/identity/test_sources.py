"""Keys in files, in the two spellings that issuers hand out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sidecar.identity.keys import KeySet, KeySetError
from sidecar.identity.sources import MAX_FILE_BYTES, source_of
from sidecar.model.issuer import IdentitySettings, KeyFile
from tests.identity.minting import AUDIENCE, ISSUER, jwks

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from sidecar.identity.sources import Source
    from tests.identity.minting import Signer


def jwks_source(file: Path) -> Source:
    return source_of(IdentitySettings(ISSUER, AUDIENCE, jwks_file=str(file)))


def pem_source(*keys: KeyFile) -> Source:
    return source_of(IdentitySettings(ISSUER, AUDIENCE, keys=keys))


def write(file: Path, public: PublicKeyTypes) -> str:
    """Write a public key in PEM; return the file's name."""
    file.write_bytes(
        public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return str(file)


def kids(keys: KeySet | None) -> list[str]:
    assert keys is not None
    return [key.kid for key in keys.keys]


async def test_a_file_is_read_again_when_it_has_changed_and_only_then(
    tmp_path: Path, rs256: Signer, es256: Signer
) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(rs256.jwk))
    source = jwks_source(file)

    assert kids(await source.read()) == ["rsa-1"]
    assert await source.read() is None

    (tmp_path / "new").write_bytes(jwks(es256.jwk))
    (tmp_path / "new").rename(file)
    assert kids(await source.read()) == ["ec-1"]
    assert await source.read() is None


async def test_a_secret_counts_only_where_the_settings_name_its_algorithm(
    tmp_path: Path, rs256: Signer, hs256: Signer
) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(rs256.jwk, hs256.jwk))
    asked = IdentitySettings(ISSUER, AUDIENCE, jwks_file=str(file), algorithms=("RS256", "HS256"))

    usual = await jwks_source(file).read()

    assert kids(usual) == ["rsa-1"]
    assert usual is not None
    assert [reason for reason in usual.refused if "HS256 is not among" in reason]
    assert kids(await source_of(asked).read()) == ["rsa-1", "hmac-1"]


async def test_a_file_that_is_no_good_is_a_fault_until_it_is_mended(
    tmp_path: Path, rs256: Signer
) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(rs256.jwk))
    source = jwks_source(file)
    await source.read()

    file.write_text("nothing at all")
    for _ in range(2):
        with pytest.raises(KeySetError, match=f"^{file}: not a JWK Set"):
            await source.read()
    file.unlink()
    with pytest.raises(KeySetError, match=f"^{file}: No such file"):
        await source.read()

    file.write_bytes(jwks(rs256.jwk))
    assert kids(await source.read()) == ["rsa-1"]


async def test_a_file_away_for_a_moment_has_not_changed(tmp_path: Path, rs256: Signer) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(rs256.jwk))
    source = jwks_source(file)
    await source.read()

    file.rename(tmp_path / "away")
    with pytest.raises(KeySetError):
        await source.read()
    (tmp_path / "away").rename(file)

    assert await source.read() is None


async def test_a_file_without_end_is_not_read_to_it(tmp_path: Path, rs256: Signer) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(rs256.jwk) + b" " * MAX_FILE_BYTES)

    with pytest.raises(KeySetError, match="is over 262144 bytes"):
        await jwks_source(file).read()


async def test_keys_in_pem_are_bound_to_the_algorithm_of_their_kind(tmp_path: Path) -> None:
    pems = [
        write(tmp_path / "rsa.pem", rsa.generate_private_key(65537, 2048).public_key()),
        write(tmp_path / "ec.pem", ec.generate_private_key(ec.SECP256R1()).public_key()),
        write(tmp_path / "ed.pem", ed25519.Ed25519PrivateKey.generate().public_key()),
    ]
    source = pem_source(KeyFile(pems[0], "1"), KeyFile(pems[1], "2", "ES256"), KeyFile(pems[2]))

    keys = await source.read()

    assert keys is not None
    assert [key.algorithm for key in keys.keys] == ["RS256", "ES256", "EdDSA"]
    assert keys.find("RS256", "1") is not None
    assert keys.find("ES256", "1") is None
    assert keys.find("EdDSA", None) is not None
    assert await source.read() is None
    write(tmp_path / "ed.pem", ed25519.Ed25519PrivateKey.generate().public_key())
    assert await source.read() is not None


async def test_a_key_in_pem_that_is_no_good_refuses_them_all(tmp_path: Path) -> None:
    good = write(tmp_path / "good.pem", ed25519.Ed25519PrivateKey.generate().public_key())
    weak = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505
    private = tmp_path / "private.pem"
    private.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (tmp_path / "none.pem").write_text("none")
    p384 = write(tmp_path / "p384.pem", ec.generate_private_key(ec.SECP384R1()).public_key())
    reasons = {
        KeyFile(write(tmp_path / "weak.pem", weak)): "weak",
        KeyFile(str(private)): "it is a private key",
        KeyFile(str(tmp_path / "none.pem")): "no public key in PEM",
        KeyFile(p384): "",
        KeyFile(good, algorithm="RS256"): "EdDSA is not among the accepted algorithms",
        KeyFile(good, "1"): "its kid '1' is another key's already",
    }

    for key, reason in reasons.items():
        with pytest.raises(KeySetError, match=f"^{key.file}: .*{reason}"):
            await pem_source(KeyFile(good, "1"), key).read()


async def test_what_is_told_to_workers_is_the_same_for_the_same_keys(
    tmp_path: Path, rs256: Signer, es256: Signer
) -> None:
    file = tmp_path / "jwks.json"
    spelled = []
    for keys in ([rs256.jwk, es256.jwk], [es256.jwk | {"x5c": ["..."]}, rs256.jwk]):
        file.write_bytes(jwks(*keys))
        read = await jwks_source(file).read()
        assert read is not None
        spelled.append(read.spelled())

    assert spelled[0] == spelled[1]
    assert "x5c" not in spelled[0]
    assert [key["kid"] for key in json.loads(spelled[0])["keys"]] == ["ec-1", "rsa-1"]
