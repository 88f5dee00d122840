"""Only what the issuer signed, for us, for now, is believed."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt import PyJWK

from sidecar.errors import Code, ConfigError
from sidecar.identity.claims import ClaimNames
from sidecar.identity.keys import load_jwks
from sidecar.identity.tokens import TokenRefused, Verifier
from tests.identity.minting import (
    AUDIENCE,
    ISSUER,
    LEEWAY_S,
    NOW_S,
    b64,
    encode,
    good_claims,
    jwks,
)

if TYPE_CHECKING:
    from sidecar.model.identity import JSON
    from tests.identity.minting import Signer


def refusal(verifier: Verifier, token: bytes, now_s: float = NOW_S) -> TokenRefused:
    """Return the refusal of `token`, none of whose parts may show in it."""
    with pytest.raises(TokenRefused) as caught:
        verifier.verify(token, now_s)
    for part in token.split(b"."):
        assert len(part) < 12 or part.decode("latin-1") not in caught.value.detail
    return caught.value


def test_a_good_token_tells_who_calls(verifier: Verifier, rs256: Signer) -> None:
    claims = good_claims(nbf=NOW_S)

    identity = verifier.verify(rs256.mint(claims), NOW_S)

    assert (identity.tenant, identity.subject, identity.app) == ("acme", "ada", "console")
    assert identity.scopes == ("read", "write")
    assert identity.claims == claims
    assert (identity.issuer, identity.issued_s) == (ISSUER, NOW_S - 10)


@pytest.mark.parametrize("kind", ["rs256", "es256", "eddsa"])
def test_each_public_algorithm_verifies(
    verifier: Verifier, kind: str, request: pytest.FixtureRequest
) -> None:
    signer: Signer = request.getfixturevalue(kind)

    identity = verifier.verify(signer.mint(good_claims()), NOW_S)

    assert identity.tenant == "acme"


def test_a_shared_secret_verifies_only_where_it_is_configured(
    verifier: Verifier, hs256: Signer
) -> None:
    keys = load_jwks(jwks(hs256.jwk), ("HS256",))
    by_secret = Verifier(keys, ISSUER, AUDIENCE, ClaimNames(), LEEWAY_S)
    token = hs256.mint(good_claims())

    assert by_secret.verify(token, NOW_S).tenant == "acme"
    assert refusal(verifier, token).code is Code.TOKEN_INVALID


# --- forgeries -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none", "None", "NONE", "", "HS256", "RS512", "ES256"])
def test_the_token_never_chooses_the_algorithm(
    verifier: Verifier, rs256: Signer, name: str
) -> None:
    token = rs256.mint(good_claims(), alg=name)

    assert refusal(verifier, token).code is Code.TOKEN_INVALID
    assert refusal(verifier, token.rpartition(b".")[0] + b".").code is Code.TOKEN_INVALID


def test_a_public_key_is_never_a_shared_secret(rs256: Signer, hs256: Signer) -> None:
    keys = load_jwks(jwks(rs256.jwk, hs256.jwk), ("RS256", "HS256"))
    verifier = Verifier(keys, ISSUER, AUDIENCE, ClaimNames(), LEEWAY_S)
    public = PyJWK(rs256.jwk, algorithm="RS256").key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for kid in ("rsa-1", "hmac-1"):
        header = json.dumps({"alg": "HS256", "kid": kid}).encode()
        message = b64(header) + b"." + b64(encode(good_claims()))
        seal = hmac.new(public, message, hashlib.sha256).digest()

        assert refusal(verifier, message + b"." + b64(seal)).code is Code.TOKEN_INVALID


def test_a_foreign_key_of_the_same_id_does_not_verify(verifier: Verifier, foreign: Signer) -> None:
    refused = refusal(verifier, foreign.mint(good_claims()))

    assert refused.code is Code.TOKEN_INVALID
    assert refused.is_final


def test_an_unknown_key_is_refused_but_may_become_known(verifier: Verifier, rs256: Signer) -> None:
    refused = refusal(verifier, rs256.mint(good_claims(), kid="rsa-2"))

    assert refused.code is Code.TOKEN_INVALID
    assert not refused.is_final


def test_a_key_inside_the_header_is_not_used(verifier: Verifier, foreign: Signer) -> None:
    token = foreign.mint(good_claims(), jwk=foreign.jwk, jku="https://evil.test", x5c=["AAAA"])

    assert refusal(verifier, token).code is Code.TOKEN_INVALID


def test_swapped_claims_do_not_verify(verifier: Verifier, rs256: Signer) -> None:
    header, _, seal = rs256.mint(good_claims()).split(b".")
    claims = b64(encode(good_claims(tenant="other")))

    assert refusal(verifier, b".".join((header, claims, seal))).code is Code.TOKEN_INVALID


@pytest.mark.parametrize("kind", ["rs256", "es256", "eddsa"])
@pytest.mark.parametrize("seal", [b"", b"\x00", b"\x00" * 64, b"\xff" * 256, b"\x00" * 257])
def test_a_signature_of_any_length_is_refused_in_good_order(
    verifier: Verifier, kind: str, seal: bytes, request: pytest.FixtureRequest
) -> None:
    signer: Signer = request.getfixturevalue(kind)
    message = signer.mint(good_claims()).rpartition(b".")[0]

    assert refusal(verifier, message + b"." + b64(seal)).code is Code.TOKEN_INVALID


LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\x00\xff"


# The fixtures hold only keys, which no example changes.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), letter=st.sampled_from(LETTERS), data=st.data())
def test_no_changed_byte_goes_unnoticed(
    verifier: Verifier, eddsa: Signer, rs256: Signer, where: float, letter: int, data: st.DataObject
) -> None:
    token = bytearray(data.draw(st.sampled_from([rs256, eddsa])).mint(good_claims()))
    at = int(where * len(token))
    if token[at] == letter:
        letter ^= 1
    token[at] = letter

    with pytest.raises(TokenRefused):
        verifier.verify(bytes(token), NOW_S)


def test_no_changed_last_letter_goes_unnoticed(verifier: Verifier, rs256: Signer) -> None:
    """The last letter has bits that no byte needs; a lenient reader lets them vary."""
    token = rs256.mint(good_claims())

    for letter in LETTERS:
        if letter != token[-1]:
            refusal(verifier, token[:-1] + bytes([letter]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token=st.binary(max_size=60) | st.lists(st.binary(max_size=9).map(b64)).map(b".".join))
def test_no_bytes_at_all_raise_anything_else(verifier: Verifier, token: bytes) -> None:
    with pytest.raises(TokenRefused):
        verifier.verify(token, NOW_S)


# --- spelling --------------------------------------------------------------------------------


def test_exactly_three_parts_make_a_token(verifier: Verifier, rs256: Signer) -> None:
    token = rs256.mint(good_claims())

    for changed in (b"", b".", b"..", token + b".", token + b".AAAA", b"." + token, token[:60]):
        assert refusal(verifier, changed).code is Code.TOKEN_INVALID


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("extra", [b"=", b"==", b" ", b"\n", b"\r\n", b"\x00"])
def test_nothing_may_follow_a_part(
    verifier: Verifier, rs256: Signer, part: int, extra: bytes
) -> None:
    parts = rs256.mint(good_claims()).split(b".")
    parts[part] += extra

    assert refusal(verifier, b".".join(parts)).code is Code.TOKEN_INVALID


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"RS256","alg":"RS256","kid":"rsa-1"}',
        b'{"alg":"none","alg":"RS256","kid":"rsa-1"}',
        b'{"alg":"RS256","kid":"rsa-1","x":{"a":1,"a":2}}',
        b'{"alg":"RS256","kid":"rsa-1","crit":["exp"],"exp":1}',
        b'{"alg":"RS256","kid":"rsa-1","crit":[]}',
        b'{"alg":"RS256","kid":"rsa-1","b64":false,"crit":["b64"]}',
        b'{"alg":"RS256","kid":"rsa-1","b64":true}',
        b'{"alg":["RS256"],"kid":"rsa-1"}',
        b'{"alg":"RS256","kid":1}',
        b'{"alg":"RS256","kid":""}',
        b'{"kid":"rsa-1"}',
        b"[]",
        b"RS256",
        b"",
    ],
)
def test_a_header_that_is_not_plain_is_refused_though_signed(
    verifier: Verifier, rs256: Signer, header: bytes
) -> None:
    token = rs256.mint_raw(header, encode(good_claims()))

    assert refusal(verifier, token).code is Code.TOKEN_INVALID


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"text", b"{", b'{"a":1,"a":1}', b"\xff"])
def test_claims_that_are_no_plain_object_are_refused_though_signed(
    verifier: Verifier, rs256: Signer, body: bytes
) -> None:
    assert refusal(verifier, rs256.mint(body)).code is Code.TOKEN_INVALID


def test_a_repeated_claim_is_refused_though_signed(verifier: Verifier, rs256: Signer) -> None:
    body = encode(good_claims())[:-1] + b', "tenant": "other"}'

    assert refusal(verifier, rs256.mint(body)).code is Code.TOKEN_INVALID


def test_a_token_without_key_id_verifies_by_the_only_key(verifier: Verifier, rs256: Signer) -> None:
    token = rs256.mint_raw(b'{"alg":"RS256"}', encode(good_claims()))

    assert verifier.verify(token, NOW_S).tenant == "acme"


# --- registered claims -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iss", "aud", "exp"])
@pytest.mark.parametrize("value", [None, True, [], {}, "other", "", [1]])
def test_issuer_audience_and_expiry_are_required(
    verifier: Verifier, rs256: Signer, name: str, value: JSON
) -> None:
    refused = refusal(verifier, rs256.mint(good_claims(**{name: value})))

    assert refused.code is Code.TOKEN_INVALID
    assert name in refused.detail


@pytest.mark.parametrize("value", ["null", "1e300", "-1e300", "9" * 400, '"1900000000"', "[1]"])
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_a_time_is_a_number_of_seconds(
    verifier: Verifier, rs256: Signer, name: str, value: str
) -> None:
    others = {key: claim for key, claim in good_claims().items() if key != name}
    body = encode(others)[:-1] + f', "{name}": {value}}}'.encode()

    assert refusal(verifier, rs256.mint(body)).code is Code.TOKEN_INVALID


@pytest.mark.parametrize(
    "audience", ["model", "modelss", "MODELS", ["other"], [[AUDIENCE]], [AUDIENCE, 1]]
)
def test_a_token_for_another_audience_is_refused(
    verifier: Verifier, rs256: Signer, audience: JSON
) -> None:
    assert refusal(verifier, rs256.mint(good_claims(aud=audience))).code is Code.TOKEN_INVALID


def test_one_of_several_audiences_is_enough(verifier: Verifier, rs256: Signer) -> None:
    token = rs256.mint(good_claims(aud=["other", AUDIENCE]))

    assert verifier.verify(token, NOW_S).tenant == "acme"


def test_a_token_is_good_until_expiry_and_leeway_are_over(
    verifier: Verifier, rs256: Signer
) -> None:
    token = rs256.mint(good_claims(exp=NOW_S))
    end_s = NOW_S + LEEWAY_S

    identity = verifier.verify(token, end_s - 0.001)

    assert identity.expires_at_s == end_s
    assert refusal(verifier, token, end_s).code is Code.TOKEN_EXPIRED


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_of_the_future_is_refused_until_then(
    verifier: Verifier, rs256: Signer, name: str
) -> None:
    token = rs256.mint(good_claims(**{name: NOW_S + LEEWAY_S}))

    refused = refusal(verifier, token, NOW_S - 1)

    assert refused.code is Code.TOKEN_INVALID
    assert not refused.is_final
    assert verifier.verify(token, NOW_S).tenant == "acme"


def test_expiry_of_a_forged_token_is_not_told(verifier: Verifier, foreign: Signer) -> None:
    token = foreign.mint(good_claims(exp=1))

    assert refusal(verifier, token).code is Code.TOKEN_INVALID


def test_a_good_token_without_tenant_is_denied(verifier: Verifier, rs256: Signer) -> None:
    refused = refusal(verifier, rs256.mint(good_claims(tenant=None)))

    assert refused.code is Code.TENANT_DENIED
    assert refused.is_final


@pytest.mark.parametrize(("issuer", "audience"), [("", "models"), ("https://issuer.test", "")])
def test_an_empty_issuer_or_audience_is_no_configuration(
    verifier: Verifier, issuer: str, audience: str
) -> None:
    with pytest.raises(ConfigError, match="must not be empty"):
        Verifier(verifier.keys, issuer, audience, ClaimNames(), LEEWAY_S)
