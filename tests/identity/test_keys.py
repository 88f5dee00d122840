"""A key set is refused with the key's name and the reason, or every key in it is sound."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sidecar.errors import SidecarError
from sidecar.identity.keys import KeySetError, load_jwks
from tests.identity.minting import jwks

if TYPE_CHECKING:
    from sidecar.model.identity import JSON
    from tests.identity.minting import Signer

PUBLIC = ("RS256", "ES256", "EdDSA")


def test_each_kind_of_key_has_one_algorithm(
    rs256: Signer, es256: Signer, eddsa: Signer, hs256: Signer
) -> None:
    raw = jwks(rs256.jwk, es256.jwk, eddsa.jwk, hs256.jwk)

    keys = load_jwks(raw, (*PUBLIC, "HS256"))

    assert [key.algorithm for key in keys.keys] == ["RS256", "ES256", "EdDSA", "HS256"]
    assert keys.refused == ()


def test_a_key_is_found_only_by_its_id_with_its_algorithm(rs256: Signer, es256: Signer) -> None:
    keys = load_jwks(jwks(rs256.jwk, es256.jwk), PUBLIC)

    found = keys.find("RS256", "rsa-1")

    assert found is not None
    assert found.kid == "rsa-1"
    assert keys.find("ES256", "rsa-1") is None
    assert keys.find("RS256", "rsa-2") is None
    assert keys.find("RS256", "") is None


def test_without_an_id_only_the_single_key_of_an_algorithm_is_found(
    rs256: Signer, foreign: Signer, es256: Signer
) -> None:
    keys = load_jwks(jwks(rs256.jwk, foreign.jwk | {"kid": "rsa-2"}, es256.jwk), PUBLIC)

    assert keys.find("RS256", None) is None
    assert keys.find("ES256", None) is not None
    assert keys.find("EdDSA", None) is None


def test_a_key_without_an_id_is_usable_when_it_is_the_only_one(rs256: Signer) -> None:
    nameless = {name: value for name, value in rs256.jwk.items() if name != "kid"}

    keys = load_jwks(jwks(nameless), PUBLIC)

    assert keys.find("RS256", None) is not None
    assert keys.find("RS256", "rsa-1") is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"alg": "RS512"}, "alg"),
        ({"alg": "HS256"}, "alg"),
        ({"alg": None}, "alg"),
        ({"kty": "XYZ"}, "XYZ"),
        ({"kty": "EC", "crv": "P-384"}, "P-384"),
        ({"kty": "OKP", "crv": "Ed448"}, "Ed448"),
    ],
)
def test_a_key_of_another_kind_or_algorithm_is_left_out_by_name(
    rs256: Signer, es256: Signer, change: dict[str, JSON], reason: str
) -> None:
    keys = load_jwks(jwks(rs256.jwk | change, es256.jwk), PUBLIC)

    assert [key.kid for key in keys.keys] == ["ec-1"]
    assert len(keys.refused) == 1
    assert "'rsa-1'" in keys.refused[0]
    assert reason in keys.refused[0]


OTHER_USES = [
    ({"use": "enc"}, "its use is not 'sig'"),
    ({"use": "enc", "alg": "RSA-OAEP"}, "its use is not 'sig'"),
    ({"use": "enc", "kty": "XYZ"}, "its use is not 'sig'"),
    ({"use": ["sig"]}, "its use is not 'sig'"),
    ({"use": None}, "its use is not 'sig'"),
    ({"key_ops": ["sign"]}, "its key_ops do not include 'verify'"),
    ({"key_ops": []}, "its key_ops do not include 'verify'"),
    ({"key_ops": "verify"}, "its key_ops do not include 'verify'"),
    ({"use": "sig", "key_ops": ["encrypt"]}, "its key_ops do not include 'verify'"),
]


@pytest.mark.parametrize(("change", "reason"), OTHER_USES)
def test_a_key_that_is_not_to_verify_refuses_the_set_and_what_to_set_is_told(
    rs256: Signer, es256: Signer, change: dict[str, JSON], reason: str
) -> None:
    with pytest.raises(KeySetError) as caught:
        load_jwks(jwks(es256.jwk, rs256.jwk | change), PUBLIC)

    assert str(caught.value).startswith(f"key 'rsa-1': {reason}; ")
    assert 'keys_of_other_use = "skip"' in str(caught.value)


@pytest.mark.parametrize(("change", "reason"), OTHER_USES)
def test_a_key_that_is_not_to_verify_is_left_out_where_that_is_said(
    rs256: Signer, es256: Signer, change: dict[str, JSON], reason: str
) -> None:
    keys = load_jwks(jwks(es256.jwk, rs256.jwk | change), PUBLIC, skips_other_uses=True)

    assert [key.kid for key in keys.keys] == ["ec-1"]
    assert keys.refused == (f"key 'rsa-1': {reason}",)
    assert keys.why_not("rsa-1").endswith(reason)


def test_a_set_without_a_usable_key_is_refused_with_every_reason(
    rs256: Signer, hs256: Signer
) -> None:
    raw = jwks(rs256.jwk | {"use": "enc"}, hs256.jwk)

    with pytest.raises(KeySetError, match=r"no usable key; key 'rsa-1'.*use.*key 'hmac-1'.*HS256"):
        load_jwks(raw, PUBLIC, skips_other_uses=True)


def test_a_shared_secret_counts_only_where_hs256_is_accepted(hs256: Signer) -> None:
    with pytest.raises(KeySetError, match="'hmac-1': HS256 is not among"):
        load_jwks(jwks(hs256.jwk), PUBLIC)

    assert load_jwks(jwks(hs256.jwk), ("HS256",)).find("HS256", "hmac-1") is not None


def test_weak_rsa_refuses_the_set(weak: Signer, es256: Signer) -> None:
    with pytest.raises(KeySetError, match="'weak': RSA of 1024 bits"):
        load_jwks(jwks(weak.jwk, es256.jwk), PUBLIC)


def test_a_short_secret_refuses_the_set() -> None:
    short: dict[str, JSON] = {"kty": "oct", "k": "c2hvcnQ", "kid": "short"}

    with pytest.raises(KeySetError, match="'short': a secret of 5 bytes"):
        load_jwks(jwks(short), ("HS256",))


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth"])
def test_a_private_key_refuses_the_set_whatever_it_is_for(
    rs256: Signer, es256: Signer, member: str
) -> None:
    leaked = rs256.jwk | {member: "AQAB", "use": "enc"}

    with pytest.raises(KeySetError, match="'rsa-1': it is a private key"):
        load_jwks(jwks(es256.jwk, leaked), PUBLIC)


def test_a_repeated_id_refuses_the_set(rs256: Signer, foreign: Signer) -> None:
    with pytest.raises(KeySetError, match="'rsa-1': its kid is repeated"):
        load_jwks(jwks(rs256.jwk, foreign.jwk), PUBLIC)


def test_an_id_that_a_key_left_out_repeats_refuses_the_set(rs256: Signer, foreign: Signer) -> None:
    for one, other in ((rs256.jwk, foreign.jwk), (foreign.jwk, rs256.jwk)):
        with pytest.raises(KeySetError, match="'rsa-1': its kid is repeated"):
            load_jwks(jwks(one | {"use": "enc"}, other), PUBLIC, skips_other_uses=True)


@pytest.mark.parametrize(
    "broken",
    [
        {"kty": "RSA", "kid": "x"},
        {"kty": "RSA", "kid": "x", "n": 5, "e": "AQAB"},
        {"kty": "RSA", "kid": "x", "n": "AQAB", "e": "AQ"},
        {"kty": "EC", "crv": "P-256", "kid": "x", "x": "AQAB", "y": "AQAB"},
        {"kty": "EC", "crv": "P-256", "kid": "x", "x": "A" * 43, "y": "A" * 43},
        {"kty": "OKP", "crv": "Ed25519", "kid": "x", "x": "AQAB"},
        {"kty": "oct", "kid": "x"},
        {"kty": "oct", "kid": "x", "k": ""},
    ],
)
def test_a_malformed_key_refuses_the_set(broken: dict[str, JSON]) -> None:
    with pytest.raises(KeySetError, match="key 'x': "):
        load_jwks(jwks(broken), (*PUBLIC, "HS256"))


def test_an_id_that_is_no_string_refuses_the_set(rs256: Signer) -> None:
    with pytest.raises(KeySetError, match="key number 1: its kid"):
        load_jwks(jwks(rs256.jwk | {"kid": 7}), PUBLIC)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [1]}',
        b'{"keys": []}',
        b"\xff",
        b'{"keys": [], "keys": []}',
        b"-----BEGIN PUBLIC KEY-----",
    ],
)
def test_what_is_no_key_set_is_refused(raw: bytes) -> None:
    with pytest.raises(KeySetError):
        load_jwks(raw, PUBLIC)


def test_what_is_no_key_among_keys_refuses_the_set(rs256: Signer) -> None:
    raw = jwks(rs256.jwk).replace(b"]}", b', "key"]}')

    with pytest.raises(KeySetError, match="a key is not an object"):
        load_jwks(raw, PUBLIC)


def test_repeated_members_of_a_key_refuse_the_set(rs256: Signer) -> None:
    raw = jwks(rs256.jwk).replace(b'"kty"', b'"use": "enc", "use": "sig", "kty"')

    with pytest.raises(KeySetError, match="repeated"):
        load_jwks(raw, PUBLIC)


def test_the_reason_never_shows_the_secret() -> None:
    secret = "!!not base64 but secret!!"  # noqa: S105
    raw = json.dumps({"keys": [{"kty": "oct", "k": secret, "kid": "x"}]}).encode()

    with pytest.raises(SidecarError) as caught:
        load_jwks(raw, ("HS256",))

    assert secret not in str(caught.value)
