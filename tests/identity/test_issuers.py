"""Each token is judged by the keys of the issuer that it names, and by no other's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sidecar.errors import Code
from sidecar.identity.holding import Holding, decode, encode
from sidecar.identity.issuers import Issuers, issuer_of, verifier_of
from sidecar.identity.keys import load_jwks
from sidecar.identity.refusal import TokenRefused
from sidecar.model.issuer import IdentitySettings
from tests.identity.minting import AUDIENCE, ISSUER, NOW_S, b64, good_claims, jwks
from tests.support.clock import HandClock

if TYPE_CHECKING:
    from tests.identity.minting import Signer

OTHER = "https://other.test"
PUBLIC = ("RS256", "ES256", "EdDSA")


class Trusting:
    """Issuers of these names, and whose keys were asked for."""

    def __init__(self, *names: str, audience: str = AUDIENCE) -> None:
        self.clock = HandClock()
        self.asked: list[str] = []
        settings = [IdentitySettings(name, audience, discovery=True) for name in names]
        self.issuers = Issuers(settings, self.asked.append, self.clock.monotonic_s)

    def take(
        self, issuer: str, *signers: Signer, settled: int = 0, rests_s: float = 0.0
    ) -> tuple[bool, list[str]]:
        return self.issuers.take([held(issuer, *signers, settled=settled, rests_s=rests_s)])

    def refusal(self, token: bytes) -> TokenRefused:
        with pytest.raises(TokenRefused) as caught:
            self.issuers.verify(token, NOW_S)
        return caught.value


def held(issuer: str, *signers: Signer, settled: int = 0, rests_s: float = 0.0) -> Holding:
    spelled = load_jwks(jwks(*(one.jwk for one in signers)), PUBLIC).spelled()
    return Holding(issuer, spelled, settled=settled, rests_s=rests_s)


@pytest.fixture
def two(rs256: Signer, foreign: Signer) -> Trusting:
    """Two issuers whose keys have the same id, and are not the same."""
    two = Trusting(ISSUER, OTHER)
    two.take(ISSUER, rs256)
    two.take(OTHER, foreign)
    return two


def test_a_token_is_verified_by_the_keys_of_its_issuer(
    two: Trusting, rs256: Signer, foreign: Signer
) -> None:
    first = two.issuers.verify(rs256.mint(good_claims()), NOW_S)
    second = two.issuers.verify(foreign.mint(good_claims(iss=OTHER)), NOW_S)

    assert (first.issuer, second.issuer) == (ISSUER, OTHER)


def test_who_calls_is_read_where_the_settings_of_the_issuer_say(rs256: Signer) -> None:
    """With the usual claims beside those that are named: these say nothing then."""
    settings = IdentitySettings(
        ISSUER,
        "others",
        discovery=True,
        tenant_claim="org.tenant",
        subject_claim="uid",
        app_claim="https://example.com/app",
        scope_claim="scp",
        segments_claim="org.lists",
        grants_claim="may",
        typ="at+jwt",
        leeway_s=5.0,
    )
    verifier = verifier_of(settings, load_jwks(jwks(rs256.jwk), PUBLIC))
    claims = good_claims(
        aud="others",
        org={"tenant": "globex", "lists": ["beta"]},
        uid="eve",
        scp=["a", "b"],
        may={"m": ["v1"]},
        segments=["vip"],
        **{"https://example.com/app": "batch"},
    )

    found = verifier.verify(rs256.mint(claims, typ="at+jwt"), NOW_S)

    assert (found.tenant, found.subject, found.app) == ("globex", "eve", "batch")
    assert (found.scopes, found.segments) == (("a", "b"), ("beta",))
    assert found.grants == {"m": ("v1",)}
    assert (found.issuer, found.expires_at_s) == (ISSUER, NOW_S + 305)
    with pytest.raises(TokenRefused, match="typ"):
        verifier.verify(rs256.mint(claims), NOW_S)


def test_an_issuer_cannot_speak_for_another(two: Trusting, rs256: Signer, foreign: Signer) -> None:
    for token in (rs256.mint(good_claims(iss=OTHER)), foreign.mint(good_claims())):
        refused = two.refusal(token)
        assert refused.code is Code.TOKEN_INVALID
        assert "signature" in refused.detail


@pytest.mark.parametrize("issuer", ["https://nobody.test", "", None, 7, [ISSUER], {"a": 1}])
def test_an_issuer_that_is_not_trusted_has_no_keys_here(
    two: Trusting, rs256: Signer, issuer: object
) -> None:
    claims = good_claims(iss=None) | ({} if issuer is None else {"iss": issuer})

    refused = two.refusal(rs256.mint(claims))  # type: ignore[arg-type]

    assert refused.code is Code.TOKEN_INVALID
    assert two.asked == []


def test_an_issuer_that_is_named_twice_is_not_believed(two: Trusting, rs256: Signer) -> None:
    claims = b'{"iss": "%b", "iss": "%b", "aud": "models", "exp": 1900000000, "tenant": "a"}'
    for first, second in ((ISSUER, OTHER), (OTHER, ISSUER), (ISSUER, ISSUER)):
        token = rs256.mint(claims % (first.encode(), second.encode()))
        assert two.refusal(token).code is Code.TOKEN_INVALID


DEEP = b"[" * 2500 + b"]" * 2500


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b".",
        b"..",
        b"a.b.c",
        b"a.!.c",
        b"a.e30.c",
        b"x" * 9000,
        b"a." + b64(b'{"x":' + DEEP + b',"iss":"a"}') + b".c",
        b"a." + b64(b'{"iss":' + DEEP + b"}") + b".c",
    ],
)
def test_what_is_no_token_is_refused_in_any_number_of_issuers(
    two: Trusting, rs256: Signer, token: bytes
) -> None:
    one = Trusting(ISSUER)
    one.take(ISSUER, rs256)

    assert issuer_of(token) == ""
    assert {two.refusal(token).code, one.refusal(token).code} == {Code.TOKEN_INVALID}


def test_without_keys_nobody_is_refused_for_good(rs256: Signer, foreign: Signer) -> None:
    trusting = Trusting(ISSUER, OTHER)
    token = rs256.mint(good_claims())
    refused = trusting.refusal(token)
    assert (refused.code, refused.is_final, refused.awaits) == (Code.NOT_READY, False, "")
    assert trusting.issuers.lacking() == f"no keys of {ISSUER}, {OTHER}"

    trusting.take(ISSUER, rs256)
    assert trusting.issuers.lacking() == f"no keys of {OTHER}"
    assert trusting.issuers.verify(token, NOW_S).tenant == "acme"

    trusting.take(OTHER, foreign)
    assert trusting.issuers.lacking() == ""


def test_keys_that_are_too_old_close_their_issuer_and_no_other(
    two: Trusting, rs256: Signer, foreign: Signer
) -> None:
    assert two.issuers.take([Holding(ISSUER, is_closed=True)]) == (True, [])

    assert two.refusal(rs256.mint(good_claims())).code is Code.NOT_READY
    assert two.issuers.verify(foreign.mint(good_claims(iss=OTHER)), NOW_S).issuer == OTHER
    assert two.issuers.lacking() == ""

    two.issuers.take([Holding(OTHER, is_closed=True)])
    assert two.issuers.lacking() == f"no keys of {ISSUER}, {OTHER}"


def test_only_other_keys_are_a_change(two: Trusting, rs256: Signer, es256: Signer) -> None:
    assert two.take(ISSUER, rs256) == (False, [])
    assert two.take(ISSUER, rs256, settled=1) == (False, [ISSUER])
    assert two.take(ISSUER, rs256, es256, settled=1) == (True, [])
    left_out = Holding(ISSUER, held(ISSUER, rs256).jwks, left_out={"x": "its use is not 'sig'"})
    assert two.issuers.take([left_out]) == (True, [ISSUER])


def test_an_unknown_key_is_asked_for_once(two: Trusting, rs256: Signer) -> None:
    for number in range(100):
        refused = two.refusal(rs256.mint(good_claims(), kid=f"new-{number}"))
        assert (refused.awaits, refused.is_final) == (ISSUER, False)
    assert two.asked == [ISSUER]


def test_an_unknown_key_is_awaited_only_where_it_may_come(
    two: Trusting, rs256: Signer, es256: Signer
) -> None:
    two.take(ISSUER, rs256, settled=1, rests_s=30.0)
    known_otherwise = es256.mint(good_claims(), kid="rsa-1")
    nameless = es256.mint_raw(b'{"alg": "ES256"}', b'{"iss": "https://issuer.test"}')
    new = rs256.mint(good_claims(), kid="new")
    assert [two.refusal(token).awaits for token in (known_otherwise, nameless, new)] == [""] * 3
    assert two.asked == []

    two.clock.advance(30.0)
    assert [two.refusal(token).awaits for token in (known_otherwise, nameless)] == [""] * 2
    assert two.refusal(new).awaits == ISSUER
    assert two.asked == [ISSUER]


def test_a_lone_issuer_looks_for_no_keys_of_others(rs256: Signer) -> None:
    one = Trusting(ISSUER)
    one.take(ISSUER, rs256)

    refused = one.refusal(rs256.mint(good_claims(iss=OTHER), kid="new"))

    assert (refused.awaits, one.asked) == ("", [])


def test_a_key_that_was_left_out_is_not_looked_for_and_its_fault_is_told(
    rs256: Signer, es256: Signer
) -> None:
    one = Trusting(ISSUER)
    keys = held(ISSUER, rs256).jwks
    one.issuers.take([Holding(ISSUER, keys, left_out={"ec-1": "its use is not 'sig'"})])

    refused = one.refusal(es256.mint(good_claims()))

    assert refused.detail == "the key that the token names is no good: its use is not 'sig'"
    assert (refused.awaits, one.asked) == ("", [])


def test_keys_inside_of_a_token_are_not_looked_at(two: Trusting, foreign: Signer) -> None:
    """`jku`, `x5u`, `jwk` and `x5c` say where a forger's key is (RFC 8725 section 3.10)."""
    members = {
        "jku": "https://forger.test/keys",
        "x5u": "https://forger.test/chain",
        "jwk": foreign.jwk,
        "x5c": [b64(b"certificate").decode()],
    }
    for name, value in members.items():
        refused = two.refusal(foreign.mint(good_claims(), **{name: value}))  # type: ignore[arg-type]
        assert refused.code is Code.TOKEN_INVALID
        assert two.refusal(foreign.mint(good_claims(), kid="x", **{name: value})).awaits == ISSUER  # type: ignore[arg-type]


def test_what_is_told_to_workers_survives_the_way(rs256: Signer) -> None:
    told = (
        Holding(ISSUER, "{}\n", {"k\u00e9y": "its use\nis not"}, settled=3, rests_s=1.5),
        held(OTHER, rs256),
    )

    assert "\n" not in encode(told)
    assert decode(encode(told)) == told
