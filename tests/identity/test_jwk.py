"""A key reads as what it is, and verifies what it signed and nothing else."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils

from sidecar.identity.jwk import MAX_RSA_BITS, RsaKey, Verifying, of_public, read_jwk
from tests.identity.minting import b64

if TYPE_CHECKING:
    from sidecar.model.identity import JSON
    from tests.identity.minting import Signer

KINDS = ["rs256", "es256", "eddsa", "hs256"]
# The order of P-256's base point: FIPS 186-5, SP 800-186 section 3.2.1.3.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(params=KINDS)
def signer(request: pytest.FixtureRequest) -> Signer:
    found: Signer = request.getfixturevalue(request.param)
    return found


def test_a_key_verifies_what_it_signed(signer: Signer) -> None:
    key, signature = read_jwk(signer.jwk), signer.sign(b"message")

    assert key.verify(b"message", signature)
    assert not key.verify(b"massage", signature)
    assert not key.verify(b"", signature)
    assert not key.verify(b"message", signature[:-1])
    assert not key.verify(b"message", signature + b"\x00")
    assert not key.verify(b"message", b"\x00" + signature)
    assert not key.verify(b"message", b"")
    assert not key.verify(b"message", bytes(len(signature)))


def test_a_key_is_spelled_as_it_was_read(signer: Signer) -> None:
    key = read_jwk(signer.jwk)

    assert key.members().items() <= signer.jwk.items()
    assert read_jwk(key.members()).verify(b"message", signer.sign(b"message"))


def test_a_public_key_of_the_library_is_the_same_key() -> None:
    pairs: list[tuple[Verifying, bytes]] = []
    edwards = ed25519.Ed25519PrivateKey.generate()
    pairs.append((of_public(edwards.public_key()), edwards.sign(b"message")))
    curve = ec.generate_private_key(ec.SECP256R1())
    r, s = utils.decode_dss_signature(curve.sign(b"message", ec.ECDSA(hashes.SHA256())))
    pairs.append((of_public(curve.public_key()), raw(r, s)))

    assert all(key.verify(b"message", signature) for key, signature in pairs)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1()])
def test_no_other_curve_than_p256_is_taken(curve: ec.EllipticCurve) -> None:
    with pytest.raises(ValueError, match="P-256"):
        of_public(ec.generate_private_key(curve).public_key())
    with pytest.raises(ValueError, match="neither"):
        of_public("text")


# --- ECDSA ------------------------------------------------------------------------------------


def raw(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def test_a_signature_of_ecdsa_is_two_numbers_and_no_der(es256: Signer) -> None:
    key, signature = read_jwk(es256.jwk), es256.sign(b"message")
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))

    assert not key.verify(b"message", utils.encode_dss_signature(r, s))
    assert not key.verify(b"message", signature[32:] + signature[:32])
    assert not key.verify(b"message", signature[:32] + b"\x00" + signature[32:])
    assert not key.verify(b"message", b"\x00" + signature[:32] + b"\x00" + signature[32:])


@pytest.mark.parametrize("r", [0, 1, ORDER - 1, ORDER, ORDER + 1, 2**256 - 1])
@pytest.mark.parametrize("s", [0, 1, ORDER - 1, ORDER, ORDER + 1, 2**256 - 1])
def test_numbers_at_the_edges_sign_nothing(es256: Signer, r: int, s: int) -> None:
    """Zero for both signs everything where a library forgets to look: CVE-2022-21449."""
    assert not read_jwk(es256.jwk).verify(b"message", raw(r, s))


def test_a_number_that_is_larger_by_the_order_is_another(es256: Signer) -> None:
    signature = es256.sign(b"message")
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))

    for larger in ((r + ORDER, s), (r, s + ORDER)):
        if max(larger) < 2**256:
            assert not read_jwk(es256.jwk).verify(b"message", raw(*larger))


# --- EdDSA ------------------------------------------------------------------------------------


def test_a_signature_of_ed25519_has_one_spelling(eddsa: Signer) -> None:
    """S and S plus the group's order are the same to a lenient reader: RFC 8032 section 8.4."""
    signature = eddsa.sign(b"message")
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(signature[32:], "little") + order

    assert not read_jwk(eddsa.jwk).verify(b"message", signature[:32] + s.to_bytes(32, "little"))


# --- keys that are none ------------------------------------------------------------------------


def test_a_key_that_makes_forgeries_dear_is_refused(rs256: Signer) -> None:
    modulus = rs256.jwk["n"]
    dear = b64((2**2046 + 1).to_bytes(256, "big")).decode()

    with pytest.raises(ValueError, match="long"):
        read_jwk({"kty": "RSA", "n": modulus, "e": dear})
    longest = rsa.RSAPublicNumbers(65537, 2 ** (MAX_RSA_BITS + 7) + 1).public_key()
    with pytest.raises(ValueError, match="long"):
        RsaKey(longest)


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "rsa"},
        {"kty": ["RSA"]},
        {"kty": "RSA", "n": "AQAB", "e": ""},
        {"kty": "EC", "crv": "P-384", "x": "A" * 64, "y": "A" * 64},
        {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43},
        {"kty": "EC", "crv": "P-256", "x": "A" * 44, "y": "A" * 43},
        {"kty": "OKP", "crv": "Ed448", "x": "A" * 76},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 42},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 42 + "B"},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43 + "="},
        {"kty": "oct", "k": "a+b/"},
        {"kty": "oct", "k": "é"},
    ],
)
def test_what_is_no_key_that_is_known_is_refused(jwk: dict[str, JSON]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- all of them, whatever they say
        read_jwk(jwk)


def test_verifying_needs_no_pyjwt() -> None:
    """It is two megabytes of every worker."""
    ask = (
        "import sys, sidecar.identity.tokens, sidecar.identity.keys; sys.exit('jwt' in sys.modules)"
    )

    subprocess.run([sys.executable, "-c", ask], check=True)
