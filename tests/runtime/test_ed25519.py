"""A signature is of one key over one message; a key file that is none is named, and not shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sidecar.runtime.ed25519 import KeyFileError, generate, load_private, load_public

if TYPE_CHECKING:
    from pathlib import Path

# brainpoolP224t1 (RFC 5639 section 3.4), which cryptography does not have
PRIVATE_OF_BRAINPOOL = """-----BEGIN EC PRIVATE KEY-----
MGwCAQEEHDoxlHZv7bdNAOoMHTWFKmbZPrSvlyCbSfnjZfKgCwYJKyQDAwIIAQEG
oTwDOgAEinxTjv9iCbRwL6Fzbt0uP+9ZOYxeiSavGNrI4gYe93aD1kK9jb3zGril
hnYHKndUL1Igo8UgSUY=
-----END EC PRIVATE KEY-----
"""
PUBLIC_OF_BRAINPOOL = """-----BEGIN PUBLIC KEY-----
MFIwFAYHKoZIzj0CAQYJKyQDAwIIAQEGAzoABIp8U47/Ygm0cC+hc27dLj/vWTmM
XokmrxjayOIGHvd2g9ZCvY298xq4pYZ2Byp3VC9SIKPFIElG
-----END PUBLIC KEY-----
"""


def test_a_signature_is_of_one_key_over_one_message(tmp_path: Path) -> None:
    generate(tmp_path, "a")
    other = generate(tmp_path, "b")
    private, public = load_private(tmp_path / "a.key"), load_public(tmp_path / "a.pub")

    signature = private.sign(b"message")

    assert public.verify(b"message", signature)
    assert not public.verify(b"messagf", signature)
    assert not other.verify(b"message", signature)
    assert private.id == public.id != other.id


@pytest.mark.parametrize("signature", [b"", b"x", bytes(64), b"\xff" * 64, bytes(65)])
def test_any_bytes_may_be_given_as_a_signature(tmp_path: Path, signature: bytes) -> None:
    assert not generate(tmp_path, "a").verify(b"message", signature)


def test_a_signature_has_one_spelling(tmp_path: Path) -> None:
    public = generate(tmp_path, "a")
    signature = load_private(tmp_path / "a.key").sign(b"message")
    order = 2**252 + 27742317777372353535851937790883648493  # RFC 8032 section 5.1: L
    scalar = int.from_bytes(signature[32:], "little") + order

    assert not public.verify(b"message", signature[:32] + scalar.to_bytes(32, "little"))


def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    generate(tmp_path / "keys", "a")

    assert [(tmp_path / "keys" / name).stat().st_mode & 0o777 for name in ("a.key", "a.pub")] == [
        0o600,
        0o600,
    ]


def test_a_key_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    generate(tmp_path, "a")
    before = (tmp_path / "a.key").read_bytes()

    with pytest.raises(KeyFileError, match=r"a\.key: a key is there already"):
        generate(tmp_path, "a")

    assert (tmp_path / "a.key").read_bytes() == before


def test_half_a_pair_is_not_left_behind(tmp_path: Path) -> None:
    generate(tmp_path, "a")
    (tmp_path / "a.key").unlink()
    before = (tmp_path / "a.pub").read_bytes()

    with pytest.raises(KeyFileError, match=r"a\.pub: a key is there already"):
        generate(tmp_path, "a")

    assert [path.name for path in tmp_path.iterdir()] == ["a.pub"]
    assert (tmp_path / "a.pub").read_bytes() == before


def test_a_public_key_may_be_given_as_text(tmp_path: Path) -> None:
    public = generate(tmp_path, "a")

    assert load_public(public.pem()).id == public.id


def test_a_private_key_is_no_public_key_and_not_shown(tmp_path: Path) -> None:
    generate(tmp_path, "a")

    with pytest.raises(KeyFileError, match="a private key, which has no place here") as caught:
        load_public(tmp_path / "a.key")

    assert (tmp_path / "a.key").read_text().splitlines()[1] not in str(caught.value)


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ec.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    with pytest.raises(KeyFileError, match=r"ec\.key: not an Ed25519 key"):
        load_private(tmp_path / "ec.key")
    with pytest.raises(KeyFileError, match="the given key: not an Ed25519 key"):
        load_public(pem.decode())


def test_a_key_of_a_curve_that_nobody_knows_here_is_refused(tmp_path: Path) -> None:
    (tmp_path / "curve.key").write_text(PRIVATE_OF_BRAINPOOL)

    with pytest.raises(KeyFileError, match=r"curve\.key: not an Ed25519 key"):
        load_private(tmp_path / "curve.key")
    with pytest.raises(KeyFileError, match="the given key: not an Ed25519 key"):
        load_public(PUBLIC_OF_BRAINPOOL)


def test_a_file_that_is_no_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x00\xff")

    with pytest.raises(KeyFileError, match="x: no private key"):
        load_private(tmp_path / "x")
    with pytest.raises(KeyFileError, match="x: no public key"):
        load_public(tmp_path / "x")
    with pytest.raises(KeyFileError, match="y: No such file"):
        load_public(tmp_path / "y")
