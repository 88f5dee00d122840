"""What RFC 8725 warns of, and what the test cases of Wycheproof for JWS are about.

Each attack stands beside a twin that is the same but for it, and that is believed: so it is the
attack that is refused, and not a mistake in making it. Nothing here is copied from either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from jwt.algorithms import RSAAlgorithm
from msgspec.structs import replace

from sidecar.errors import Code
from sidecar.identity.claims import ClaimNames
from sidecar.identity.keys import KeySetError, load_jwks
from sidecar.identity.tokens import TokenRefused, Verifier
from tests.identity.minting import (
    AUDIENCE,
    ISSUER,
    LEEWAY_S,
    NOW_S,
    Signer,
    b64,
    encode,
    good_claims,
    jwks,
)

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")  # RFC 8017 section 9.2
BYTES = 256  # of an RSA key of 2048 bits


def believes(verifier: Verifier, token: bytes) -> bool:
    try:
        return verifier.verify(token, NOW_S).tenant == "acme"
    except TokenRefused as refused:
        return refused.code is not Code.TOKEN_INVALID


def of_one_key(signer: Signer, typ: str = "") -> Verifier:
    keys = load_jwks(jwks(signer.jwk), (signer.algorithm,))
    return Verifier(keys, ISSUER, AUDIENCE, ClaimNames(), LEEWAY_S, typ)


# --- 2.1, 3.1: the algorithm is the key's, and one --------------------------------------------


@pytest.mark.parametrize(
    "algorithm",
    ["none", "HS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES256K", "EdDSA", "rs256", ""],
)
def test_an_rsa_key_verifies_rs256_and_nothing_that_calls_itself_otherwise(
    rs256: Signer, algorithm: str
) -> None:
    verifier = of_one_key(rs256)

    assert believes(verifier, rs256.mint(good_claims()))
    assert not believes(verifier, rs256.mint(good_claims(), alg=algorithm))


@pytest.mark.parametrize("hashed", [hashes.SHA224(), hashes.SHA384(), hashes.SHA512()])
def test_a_signature_over_another_hash_is_none(hashed: hashes.HashAlgorithm) -> None:
    private, signer = own_key()
    other = replace(signer, sign=lambda m: private.sign(m, padding.PKCS1v15(), hashed))

    assert believes(of_one_key(signer), signer.mint(good_claims()))
    assert not believes(of_one_key(signer), other.mint(good_claims()))


def test_a_signature_with_probabilistic_padding_is_none() -> None:
    private, signer = own_key()
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    other = replace(signer, sign=lambda m: private.sign(m, pss, hashes.SHA256()))

    assert believes(of_one_key(signer), signer.mint(good_claims()))
    assert not believes(of_one_key(signer), other.mint(good_claims()))


# --- 3.3: every cryptographic operation is checked --------------------------------------------


def own_key(exponent: int = 65537) -> tuple[rsa.RSAPrivateKey, Signer]:
    """Return a private RSA key and what signs with it by the book."""
    private = _KEYS.get(exponent)
    if private is None:
        small = 3 if exponent == 3 else 65537
        private = _KEYS[exponent] = rsa.generate_private_key(public_exponent=small, key_size=2048)
    jwk: dict[str, JSON] = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    by_book = padding.PKCS1v15()
    key = private
    signer = Signer("RS256", "own", lambda m: key.sign(m, by_book, hashes.SHA256()), jwk)
    return private, replace(signer, jwk={**jwk, "kid": "own"})


_KEYS: dict[int, rsa.RSAPrivateKey] = {}


def raw(private: rsa.RSAPrivateKey, block: bytes) -> bytes:
    """Apply the private key to a block of bytes, whatever it is."""
    numbers = private.private_numbers()
    signed = pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n)
    return signed.to_bytes(BYTES, "big")


def padded(tail: bytes, *, kind: bytes = b"\x00\x01", filler: bytes = b"\xff") -> bytes:
    return kind + filler * (BYTES - 3 - len(tail)) + b"\x00" + tail


Block = Callable[[bytes], bytes]

BLOCKS: dict[str, Block] = {
    "no NULL behind the hash's name": lambda digest: padded(
        bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20" + digest
    ),
    "a length in long form": lambda digest: padded(
        bytes.fromhex("308131300d060960864801650304020105000420") + digest
    ),
    "no name of a hash at all": padded,
    "garbage behind the hash": lambda digest: (
        b"\x00\x01" + b"\xff" * 8 + b"\x00" + SHA256_INFO + digest
    ).ljust(BYTES, b"\x5a"),
    "zeros behind the hash": lambda digest: (
        b"\x00\x01" + b"\xff" * 8 + b"\x00" + SHA256_INFO + digest
    ).ljust(BYTES, b"\x00"),
    "a block of type 0": lambda digest: padded(
        SHA256_INFO + digest, kind=b"\x00\x00", filler=b"\0"
    ),
    "a block of type 2": lambda digest: padded(SHA256_INFO + digest, kind=b"\x00\x02"),
    "padding that is not ff": lambda digest: padded(SHA256_INFO + digest, filler=b"\xfe"),
    "a hash that is cut": lambda digest: padded(SHA256_INFO + digest[:-1]),
    "another hash": lambda digest: padded(SHA256_INFO + hashlib.sha256(digest).digest()),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_an_rsa_signature_is_of_the_one_block_that_the_book_makes(name: str) -> None:
    private, signer = own_key()

    def signing(block: Block) -> Signer:
        return replace(signer, sign=lambda m: raw(private, block(hashlib.sha256(m).digest())))

    by_hand = signing(lambda digest: padded(SHA256_INFO + digest))
    assert believes(of_one_key(signer), by_hand.mint(good_claims()))
    assert not believes(of_one_key(signer), signing(BLOCKS[name]).mint(good_claims()))


def test_a_cube_root_is_no_signature() -> None:
    """With an exponent of 3 anybody can sign for a reader that stops at the end of the hash."""
    _, signer = own_key(3)

    def forge(message: bytes) -> bytes:
        digest = hashlib.sha256(message).digest()
        wanted = b"\x00\x01" + b"\xff" * 8 + b"\x00" + SHA256_INFO + digest
        least = int.from_bytes(wanted.ljust(BYTES, b"\x00"), "big")
        root = cube_root(least) + 1
        assert (root**3).to_bytes(BYTES, "big").startswith(wanted)
        return root.to_bytes(BYTES, "big")

    assert believes(of_one_key(signer), signer.mint(good_claims()))
    assert not believes(of_one_key(signer), replace(signer, sign=forge).mint(good_claims()))


def cube_root(number: int) -> int:
    """Return the greatest integer whose cube is at most `number`."""
    low, high = 0, 1 << (number.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle - 1)
    return low


@pytest.mark.parametrize("kind", ["rs256", "es256", "eddsa"])
@pytest.mark.parametrize(
    "change",
    [
        lambda seal: b"",
        lambda seal: seal[:-1],
        lambda seal: seal[1:],
        lambda seal: seal + b"\x00",
        lambda seal: b"\x00" + seal,
        lambda seal: seal + seal,
        lambda seal: seal[::-1],
        lambda seal: bytes(len(seal)),
        lambda seal: b"\xff" * len(seal),
        lambda seal: bytes([seal[0] ^ 0x80]) + seal[1:],
        lambda seal: seal[:-1] + bytes([seal[-1] ^ 1]),
    ],
)
def test_a_signature_that_is_not_quite_the_signature_is_none(
    kind: str, change: Callable[[bytes], bytes], request: pytest.FixtureRequest
) -> None:
    signer: Signer = request.getfixturevalue(kind)
    changed = replace(signer, sign=lambda m: change(signer.sign(m)))

    assert believes(of_one_key(signer), signer.mint(good_claims()))
    assert not believes(of_one_key(signer), changed.mint(good_claims()))


def test_a_token_in_a_token_is_not_unwrapped(rs256: Signer) -> None:
    inner = rs256.mint(good_claims())

    assert not believes(of_one_key(rs256), rs256.mint(inner, cty="JWT"))
    assert not believes(of_one_key(rs256), rs256.mint(json.dumps(inner.decode()).encode()))


def test_no_other_serialisation_is_read(rs256: Signer) -> None:
    header, claims, seal = (part.decode() for part in rs256.mint(good_claims()).split(b"."))
    one = {"protected": header, "signature": seal}
    flattened = {"payload": claims, **one}
    general = {"payload": claims, "signatures": [one]}

    assert believes(of_one_key(rs256), f"{header}.{claims}.{seal}".encode())
    for token in (
        json.dumps(flattened).encode(),
        json.dumps(general).encode(),
        f"{header}..{seal}".encode(),  # detached: RFC 7515 appendix F
        f"{header}.{claims}.{seal}.{claims}.{seal}".encode(),  # as many parts as encryption has
        f"{header}.{claims}".encode(),
        f"{header}.{claims}.".encode(),
    ):
        assert not believes(of_one_key(rs256), token)


# --- 3.4, 3.5: keys that are none -------------------------------------------------------------


def test_a_point_that_is_not_on_the_curve_is_no_key(es256: Signer) -> None:
    swapped = {**es256.jwk, "x": es256.jwk["y"], "y": es256.jwk["x"]}

    assert load_jwks(jwks(es256.jwk), ("ES256",)).keys
    with pytest.raises(KeySetError, match="well-formed"):
        load_jwks(jwks(swapped), ("ES256",))


def test_what_a_header_says_of_its_key_is_no_key(rs256: Signer, foreign: Signer) -> None:
    """`jwk`, `x5c`, `jku`, `x5u`: RFC 8725 section 3.10."""
    said: dict[str, JSON] = {
        "jwk": foreign.jwk,
        "jku": "http://127.0.0.1:1/jwks.json",
        "x5u": "file:///etc/passwd",
        "x5c": ["AAAA"],
        "epk": foreign.jwk,
    }

    assert believes(of_one_key(rs256), rs256.mint(good_claims(), **said))
    assert not believes(of_one_key(rs256), foreign.mint(good_claims(), **said))


@pytest.mark.parametrize(
    "kid",
    [
        "",
        "../../dev/null",
        "rsa-1\x00",
        "rsa-1 ",
        "RSA-1",
        "' OR 1=1 --",
        "x" * 4000,
        "rsa\ufeff-1",
    ],
)
def test_a_key_id_is_looked_up_and_nothing_else(rs256: Signer, kid: str) -> None:
    assert believes(of_one_key(rs256), rs256.mint(good_claims(), kid="rsa-1"))
    assert not believes(of_one_key(rs256), rs256.mint(good_claims(), kid=kid))


# --- 3.7: one reading of every byte -----------------------------------------------------------


def also(members: bytes) -> Callable[[bytes], bytes]:
    """Return what adds members to the end of a JSON object, as they are spelled."""
    return lambda text: text[:-1] + b"," + members + b"}"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.decode().encode("utf-16"),
        lambda text: text.decode().encode("utf-16-le"),
        lambda text: text.decode().encode("utf-32"),
        lambda text: text + b"x",
        lambda text: text + text,
        lambda text: text[:-1],
        lambda text: text[:-1] + b",}",
        lambda text: b"/**/" + text,
        lambda text: text.replace(b'"', b"'"),
        lambda text: text.replace(b'"acme"', b'"ac\xffme"'),
        lambda text: text.replace(b'"acme"', b'"\xc1\xa1cme"'),  # an overlong a
        lambda text: text.replace(b'"acme"', b'"acme\\ud800"'),
        lambda text: text.replace(b'"acme"', b'"ac\nme"'),
        lambda text: text.replace(b'"acme"', b'"acme\\x00"'),
        also(b'"tenant":"acme"'),
        also(b'"t\\u0065nant":"acme"'),  # the same name once it is read
        also(b'"x":{"a":1,"b":{"c":1,"c":1}}'),
        also(b'"x":[[{"c":1,"c":1}]]'),
        also(b'"x":NaN'),
        also(b'"x":Infinity'),
        also(b'"x":01'),
        also(b'"x":+1'),
        also(b'"x":.5'),
        also(b'"x":0x10'),
        also(b'"x":True'),
        also(b'"x":' + b"[" * 2000 + b"]" * 2000),
        lambda text: b"[" + text + b"]",
        lambda text: json.dumps(text.decode()).encode(),
        lambda text: b"",
        lambda text: b"null",
        lambda text: b"{}",
    ],
)
def test_claims_have_one_reading(eddsa: Signer, change: Callable[[bytes], bytes]) -> None:
    text = encode(good_claims())

    assert believes(of_one_key(eddsa), eddsa.mint(text))
    assert believes(of_one_key(eddsa), eddsa.mint(b"\n\t " + text + b"\r\n"))  # JSON allows it
    assert not believes(of_one_key(eddsa), eddsa.mint(change(text)))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        also(b'"alg":"EdDSA"'),
        also(b'"\\u0061lg":"EdDSA"'),
        also(b'"x":{"a":1,"a":1}'),
        also(b'"crit":["exp"]'),
        also(b'"crit":[]'),
        also(b'"crit":null'),
        also(b'"b64":true'),
        also(b'"typ":7'),
        lambda text: text + b" x",
        lambda text: text.replace(b'"EdDSA"', b'["EdDSA"]'),
        lambda text: text.replace(b'"EdDSA"', b'"eddsa"'),
        lambda text: text.replace(b'"EdDSA"', b'"EdDSA\\u0000"'),
        lambda text: text.replace(b'"EdDSA"', b"null"),
        lambda text: text.replace(b'"alg"', b'"Alg"'),
        also(b'"x":' + b"[" * 2000 + b"]" * 2000),
    ],
)
def test_a_header_has_one_reading(eddsa: Signer, change: Callable[[bytes], bytes]) -> None:
    text = b'{"alg":"EdDSA","kid":"ed-1"}'
    claims = encode(good_claims())
    verifier = of_one_key(eddsa)

    for _ in range(2):  # headers are remembered: only good ones
        assert not believes(verifier, eddsa.mint_raw(change(text), claims))
        assert believes(verifier, eddsa.mint_raw(text, claims))


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + b"=",
        lambda text: text + b"==",
        lambda text: text + b"\n",
        lambda text: b" " + text,
        lambda text: text[:20] + b"\r\n" + text[20:],
        lambda text: text[:20] + b"*" + text[20:],
        lambda text: text[:20] + b"\x00" + text[20:],
        lambda text: text[:20] + b"\xc3\xa9" + text[20:],
        lambda text: text + b"A",
        lambda text: text.replace(b"_", b"/").replace(b"-", b"+") + b"/",
    ],
)
def test_base64url_has_one_spelling(
    rs256: Signer, part: int, change: Callable[[bytes], bytes]
) -> None:
    """Signed anew as it is spelled: a reader that takes it would find the signature right."""
    parts = rs256.mint(good_claims()).split(b".")
    parts[part] = change(parts[part])
    if part < 2:
        parts[2] = b64(rs256.sign(b".".join(parts[:2])))

    assert not believes(of_one_key(rs256), b".".join(parts))


@pytest.mark.parametrize("part", [0, 1])
def test_bits_that_no_byte_needs_are_zero(eddsa: Signer, part: int) -> None:
    texts = [b'{"alg":"EdDSA","kid":"ed-1"}', encode(good_claims())]
    while len(texts[part]) % 3 != 1:  # two letters for the last byte, with four bits to spare
        texts[part] += b" "
    parts = [b64(text) for text in texts]
    good = b".".join(parts)
    parts[part] = parts[part][:-1] + bytes([parts[part][-1] + 1])
    other = b".".join(parts)

    assert believes(of_one_key(eddsa), good + b"." + b64(eddsa.sign(good)))
    assert not believes(of_one_key(eddsa), other + b"." + b64(eddsa.sign(other)))


# --- 3.8, 3.9: whose, and for whom ------------------------------------------------------------


@pytest.mark.parametrize(
    "issuer",
    [
        ISSUER + "/",
        ISSUER.upper(),
        ISSUER.replace("https", "http"),
        ISSUER[:-1],
        ISSUER + "\x00",
        " " + ISSUER,
        "",
        [ISSUER],
        {"iss": ISSUER},
        True,
    ],
)
def test_an_issuer_is_compared_letter_by_letter(eddsa: Signer, issuer: JSON) -> None:
    assert believes(of_one_key(eddsa), eddsa.mint(good_claims()))
    assert not believes(of_one_key(eddsa), eddsa.mint(good_claims(iss=issuer)))


@pytest.mark.parametrize(
    "audience",
    [
        AUDIENCE + "/",
        AUDIENCE.upper(),
        AUDIENCE[:-1],
        f"{AUDIENCE} other",
        f"{AUDIENCE},other",
        [],
        [[AUDIENCE]],
        [AUDIENCE, None],
        {AUDIENCE: True},
        True,
    ],
)
def test_an_audience_is_compared_letter_by_letter(eddsa: Signer, audience: JSON) -> None:
    assert believes(of_one_key(eddsa), eddsa.mint(good_claims(aud=["other", AUDIENCE])))
    assert not believes(of_one_key(eddsa), eddsa.mint(good_claims(aud=audience)))


@pytest.mark.parametrize("name", ["iss", "aud", "exp"])
def test_what_bounds_a_token_is_never_left_out(eddsa: Signer, name: str) -> None:
    assert not believes(of_one_key(eddsa), eddsa.mint(good_claims(**{name: None})))


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", [b'"1800000100"', b"true", b"[1800000100]", b"{}", b"1e400", b"-1e400", b"9" * 30]
)
def test_a_time_is_a_number_that_somebody_can_live_to_see(
    eddsa: Signer, name: str, value: bytes
) -> None:
    others = encode(good_claims(**{name: None}))[:-1]

    assert believes(of_one_key(eddsa), eddsa.mint(others + b', "%b": 1.8e9}' % name.encode()))
    assert not believes(
        of_one_key(eddsa), eddsa.mint(others + b', "%b": %b}' % (name.encode(), value))
    )


# --- 3.11, 3.12: tokens of one kind are none of another ---------------------------------------


@pytest.mark.parametrize(
    "typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt", "application/at+JWT"]
)
@pytest.mark.parametrize("wanted", ["at+jwt", "application/at+jwt", "At+Jwt"])
def test_a_type_is_a_media_type_in_any_case_with_or_without_its_tree(
    eddsa: Signer, typ: str, wanted: str
) -> None:
    """RFC 9068 section 4, RFC 7515 section 4.1.9."""
    assert believes(of_one_key(eddsa, wanted), eddsa.mint(good_claims(), typ=typ))


@pytest.mark.parametrize(
    "typ",
    [
        "JWT",
        "",
        "at",
        "jwt+at",
        "at+jwt ",
        " at+jwt",
        "at+jwt;v=1",
        "x/at+jwt",
        "application/application/at+jwt",
        "text/at+jwt",
        "id+jwt",
        "at\uff0bjwt",
        ["at+jwt"],
        None,
        True,
    ],
)
def test_a_token_of_another_type_is_refused(eddsa: Signer, typ: JSON) -> None:
    assert believes(of_one_key(eddsa, "at+jwt"), eddsa.mint(good_claims(), typ="at+jwt"))
    assert not believes(of_one_key(eddsa, "at+jwt"), eddsa.mint(good_claims(), typ=typ))


def test_a_token_without_a_type_is_refused_where_one_is_wanted(eddsa: Signer) -> None:
    token = eddsa.mint_raw(b'{"alg":"EdDSA","kid":"ed-1"}', encode(good_claims()))

    assert believes(of_one_key(eddsa), token)
    assert not believes(of_one_key(eddsa, "at+jwt"), token)


def test_a_letter_that_is_ascii_only_in_lower_case_makes_no_type(eddsa: Signer) -> None:
    """The Kelvin sign becomes k."""
    token = eddsa.mint(good_claims(), typ="\u212a+jwt")

    assert believes(of_one_key(eddsa, "k+jwt"), eddsa.mint(good_claims(), typ="K+jwt"))
    assert not believes(of_one_key(eddsa, "k+jwt"), token)


# --- ECDSA ------------------------------------------------------------------------------------


def test_an_ecdsa_signature_in_der_is_none(es256: Signer) -> None:
    def in_der(message: bytes) -> bytes:
        seal = es256.sign(message)
        r, s = int.from_bytes(seal[:32], "big"), int.from_bytes(seal[32:], "big")
        return utils.encode_dss_signature(r, s)

    assert believes(of_one_key(es256), es256.mint(good_claims()))
    assert not believes(of_one_key(es256), replace(es256, sign=in_der).mint(good_claims()))


def test_a_signature_of_another_curve_is_none(es256: Signer) -> None:
    other = ec.generate_private_key(ec.SECP384R1())

    def sign(message: bytes) -> bytes:
        r, s = utils.decode_dss_signature(other.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")

    assert not believes(of_one_key(es256), replace(es256, sign=sign).mint(good_claims()))
