"""A remembered token is as good as a verified one, for as long and no longer."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

from sidecar.errors import Code
from sidecar.identity.cache import MAX_REFUSALS, IdentityCache
from sidecar.identity.claims import ClaimNames
from sidecar.identity.keys import load_jwks
from sidecar.identity.tokens import TokenRefused, Verifier
from tests.identity.minting import AUDIENCE, ISSUER, LEEWAY_S, NOW_S, good_claims, jwks

if TYPE_CHECKING:
    from sidecar.model.identity import JSON, Identity
    from tests.identity.minting import Signer

MAX_TOKEN_BYTES = 2048


class CountingVerifier(Verifier):
    """The real verifier, which tells how often it was asked."""

    calls = 0

    def verify(self, token: bytes, now_s: float) -> Identity:
        self.calls += 1
        return super().verify(token, now_s)


@pytest.fixture
def counting(verifier: Verifier) -> CountingVerifier:
    return CountingVerifier(verifier.keys, ISSUER, AUDIENCE, ClaimNames(), LEEWAY_S)


@pytest.fixture
def cache(counting: CountingVerifier) -> IdentityCache:
    return IdentityCache(counting, 8, MAX_TOKEN_BYTES)


def bearer(signer: Signer, **changes: JSON) -> bytes:
    return b"Bearer " + signer.mint(good_claims(**changes))


def refusal(
    cache: IdentityCache, authorization: bytes | None, now_s: float = NOW_S
) -> TokenRefused:
    with pytest.raises(TokenRefused) as caught:
        cache.lookup(authorization, now_s)
    return caught.value


def test_a_token_is_verified_once(
    cache: IdentityCache, counting: CountingVerifier, rs256: Signer
) -> None:
    authorization = bearer(rs256)

    first = cache.lookup(authorization, NOW_S)
    again = cache.lookup(bytes(bytearray(authorization)), NOW_S + 1)

    assert again is first
    assert counting.calls == 1
    assert (cache.hits, cache.misses, cache.refused) == (1, 1, 0)


def test_a_remembered_token_is_never_used_past_its_end(cache: IdentityCache, rs256: Signer) -> None:
    authorization = bearer(rs256, exp=NOW_S + 10)
    end_s = cache.lookup(authorization, NOW_S).expires_at_s

    assert end_s == NOW_S + 10 + LEEWAY_S
    assert cache.lookup(authorization, end_s - 0.001).tenant == "acme"
    assert refusal(cache, authorization, end_s).code is Code.TOKEN_EXPIRED
    assert refusal(cache, authorization, end_s + 1).code is Code.TOKEN_EXPIRED


# --- the field -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer    ",
        b"Basic YTpi",
        b"Bearertoken",
        b"Bearer\ttoken",
        b" Bearer token",
        b"Digest Bearer token",
    ],
)
def test_no_bearer_token_is_a_missing_token(
    cache: IdentityCache, counting: CountingVerifier, authorization: bytes | None
) -> None:
    assert refusal(cache, authorization).code is Code.TOKEN_MISSING
    assert (cache.refused, counting.calls) == (1, 0)


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER ", b"bEaReR   "])
def test_the_scheme_has_no_case(cache: IdentityCache, rs256: Signer, scheme: bytes) -> None:
    authorization = scheme + rs256.mint(good_claims())

    assert cache.lookup(authorization, NOW_S).tenant == "acme"


@pytest.mark.parametrize("joint", [b" ", b",", b", ", b", Bearer ", b"\t", b"\n"])
def test_two_tokens_are_no_token(cache: IdentityCache, rs256: Signer, joint: bytes) -> None:
    token = rs256.mint(good_claims())

    assert refusal(cache, b"Bearer " + token + joint + token).code is Code.TOKEN_INVALID


def test_a_token_over_the_limit_is_not_even_read(
    cache: IdentityCache, counting: CountingVerifier, rs256: Signer
) -> None:
    longest = b"Bearer " + b"A" * MAX_TOKEN_BYTES
    padded = b"Bearer" + b" " * MAX_TOKEN_BYTES + rs256.mint(good_claims())

    for authorization in (longest + b"A", padded):
        refused = refusal(cache, authorization)
        assert refused.code is Code.TOKEN_INVALID
        assert "longer than 2048 bytes" in refused.detail
    assert counting.calls == 0
    assert "parts" in refusal(cache, longest).detail


# --- bounds ----------------------------------------------------------------------------------


def test_the_oldest_token_makes_room(
    cache: IdentityCache, counting: CountingVerifier, eddsa: Signer
) -> None:
    tokens = [bearer(eddsa, sub=f"user-{n}") for n in range(9)]

    for token in tokens:
        cache.lookup(token, NOW_S)

    assert len(cache) == 8
    for token in tokens[1:]:
        cache.lookup(token, NOW_S)
    assert counting.calls == 9
    cache.lookup(tokens[0], NOW_S)
    assert counting.calls == 10
    assert len(cache) == 8


def test_a_flood_of_bad_tokens_drives_out_no_good_one(
    cache: IdentityCache, counting: CountingVerifier, rs256: Signer
) -> None:
    good = bearer(rs256)
    cache.lookup(good, NOW_S)

    for n in range(3 * MAX_REFUSALS):
        refusal(cache, b"Bearer a.b.%d" % n)
    calls = counting.calls

    assert cache.lookup(good, NOW_S).tenant == "acme"
    assert counting.calls == calls
    assert len(cache) == 1


def test_even_one_entry_is_a_cache(verifier: Verifier, eddsa: Signer) -> None:
    cache = IdentityCache(verifier, 1, MAX_TOKEN_BYTES)

    for n in range(3):
        cache.lookup(bearer(eddsa, sub=str(n)), NOW_S)

    assert len(cache) == 1


# --- bad tokens ------------------------------------------------------------------------------


def test_a_bad_token_is_verified_once(
    cache: IdentityCache, counting: CountingVerifier, foreign: Signer
) -> None:
    authorization = bearer(foreign)

    first = refusal(cache, authorization)
    again = refusal(cache, authorization)

    assert counting.calls == 1
    assert (again.code, again.detail) == (first.code, first.detail)
    assert cache.refused == 2


def test_a_refusal_that_is_remembered_does_not_grow(cache: IdentityCache, foreign: Signer) -> None:
    authorization = bearer(foreign)
    refusal(cache, authorization)

    depths = {
        len(traceback.extract_tb(refusal(cache, authorization).__traceback__)) for _ in range(5)
    }

    assert len(depths) == 1


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_of_the_future_is_not_remembered_as_bad(
    cache: IdentityCache, rs256: Signer, name: str
) -> None:
    authorization = bearer(rs256, **{name: NOW_S + 100})

    assert refusal(cache, authorization).code is Code.TOKEN_INVALID
    assert cache.lookup(authorization, NOW_S + 100).tenant == "acme"


def test_an_expired_token_is_good_again_when_the_clock_was_wrong(
    cache: IdentityCache, counting: CountingVerifier, rs256: Signer
) -> None:
    authorization = bearer(rs256)

    assert refusal(cache, authorization, NOW_S + 1e6).code is Code.TOKEN_EXPIRED
    assert refusal(cache, authorization, NOW_S + 1e6 + 1).code is Code.TOKEN_EXPIRED
    assert counting.calls == 1
    assert cache.lookup(authorization, NOW_S).tenant == "acme"


def test_a_token_of_an_unknown_key_is_not_remembered_as_bad(
    cache: IdentityCache, counting: CountingVerifier, foreign: Signer
) -> None:
    authorization = b"Bearer " + foreign.mint(good_claims(), kid="new")

    refusal(cache, authorization)
    refusal(cache, authorization)

    assert counting.calls == 2


# --- key changes -----------------------------------------------------------------------------


def test_after_clear_every_token_is_verified_again(
    cache: IdentityCache, counting: CountingVerifier, rs256: Signer, foreign: Signer
) -> None:
    cache.lookup(bearer(rs256), NOW_S)
    refusal(cache, bearer(foreign))

    cache.clear()
    cache.lookup(bearer(rs256), NOW_S)
    refusal(cache, bearer(foreign))

    assert counting.calls == 4
    assert len(cache) == 1


def test_new_keys_rule_from_the_next_request_on(
    cache: IdentityCache, rs256: Signer, foreign: Signer
) -> None:
    old, new = bearer(rs256), bearer(foreign)
    cache.lookup(old, NOW_S)
    refusal(cache, new)
    keys = load_jwks(jwks(foreign.jwk), ("RS256",))

    cache.renew(Verifier(keys, ISSUER, AUDIENCE, ClaimNames(), LEEWAY_S))

    assert cache.lookup(new, NOW_S).tenant == "acme"
    assert refusal(cache, old).code is Code.TOKEN_INVALID
