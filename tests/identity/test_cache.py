"""A remembered token is as good as a verified one, for as long and no longer."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Code
from sidecar.identity.cache import LARGE_BYTES, MAX_REFUSALS, IdentityCache
from sidecar.identity.claims import ClaimNames
from sidecar.identity.keys import load_jwks
from sidecar.identity.tokens import TokenRefused, Verifier
from sidecar.model.identity import Identity
from tests.identity.minting import AUDIENCE, ISSUER, LEEWAY_S, NOW_S, good_claims, jwks

if TYPE_CHECKING:
    from sidecar.model.identity import JSON
    from tests.identity.minting import Signer

MAX_TOKEN_BYTES = 2048


class CountingVerifier:
    """The real verifier, which tells how often it was asked."""

    def __init__(self, verifier: Verifier) -> None:
        self.calls = 0
        self._verifier = verifier

    def verify(self, token: bytes, now_s: float) -> Identity:
        self.calls += 1
        return self._verifier.verify(token, now_s)


@pytest.fixture
def counting(verifier: Verifier) -> CountingVerifier:
    return CountingVerifier(verifier)


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


def test_the_oldest_token_makes_room_for_one_that_comes_twice(
    cache: IdentityCache, counting: CountingVerifier, eddsa: Signer
) -> None:
    tokens = [bearer(eddsa, sub=f"user-{n}") for n in range(9)]

    for token in (*tokens, tokens[8]):
        cache.lookup(token, NOW_S)

    assert len(cache) == 8
    for token in tokens[1:]:
        cache.lookup(token, NOW_S)
    assert counting.calls == 10
    cache.lookup(tokens[0], NOW_S)
    assert counting.calls == 11
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


class Naming:
    """A verifier for whom a token is `tenant.number`: floods need many, and RSA takes its time."""

    def __init__(self) -> None:
        self.calls = 0

    def verify(self, token: bytes, now_s: float) -> Identity:
        self.calls += 1
        tenant, _, rest = token.decode().partition(".")
        jti, _, lifetime = rest.partition("/")
        if not tenant:
            raise TokenRefused(Code.TOKEN_INVALID, "it is bad")
        return Identity(tenant, jti=jti, expires_at_s=now_s + float(lifetime or "inf"))


def named(text: str) -> bytes:
    return b"Bearer " + text.encode()


def meet(cache: IdentityCache, *texts: str) -> None:
    """Have these tokens come, one after the other."""
    for text in texts:
        cache.lookup(named(text), NOW_S)


def known(cache: IdentityCache, naming: Naming, *texts: str, now_s: float = NOW_S) -> list[str]:
    """Return which of these tokens are remembered; the others are left forgotten."""
    found = []
    for text in texts:
        calls = naming.calls
        cache.lookup(named(text), now_s)
        if naming.calls == calls:
            found.append(text)
    return found


def test_a_hundred_thousand_bad_tokens_drive_out_no_good_one_and_take_no_room() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 100, MAX_TOKEN_BYTES)
    good = [f"tenant-{n}.1" for n in range(100)]
    meet(cache, *good)

    for n in range(100_000):
        with pytest.raises(TokenRefused):
            cache.lookup(b"Bearer .%d" % n, NOW_S)

    assert known(cache, naming, *good) == good
    assert cache.refused == 100_000
    assert len(cache) == 100
    assert cache.refusals == MAX_REFUSALS


def test_a_hundred_thousand_good_tokens_of_one_tenant_drive_out_no_others() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 1000, MAX_TOKEN_BYTES)
    few = [f"tenant-{n}.{token}" for n in range(50) for token in range(5)]
    meet(cache, *few[::2])

    for n in range(50_000):
        cache.lookup(b"Bearer flood.%d" % n, NOW_S)
    meet(cache, *few[1::2])  # callers who come while it floods have room made for them
    for n in range(50_000, 100_000):
        cache.lookup(b"Bearer flood.%d" % n, NOW_S)

    assert len(cache) == 1000
    assert known(cache, naming, *few) == few


def test_one_tenant_alone_may_have_all_the_room() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 100, MAX_TOKEN_BYTES)
    texts = [f"acme.{n}" for n in range(100)]

    meet(cache, *texts)

    assert known(cache, naming, *texts) == texts


def test_with_one_token_each_the_oldest_makes_room() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 100, MAX_TOKEN_BYTES)
    texts = [f"tenant-{n}.1" for n in range(250)]

    meet(cache, *texts)

    assert len(cache) == 100
    assert known(cache, naming, *texts[-80:]) == texts[-80:]


def test_tokens_that_come_once_drive_out_none() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 100, MAX_TOKEN_BYTES)
    # 100 is no multiple of 3: the one that is over must not wander either.
    texts = [f"tenant-{n % 3}.{n}" for n in range(100)]
    meet(cache, *texts)

    meet(cache, *[f"tenant-{n % 3}.{n}" for n in range(100, 10_000)])

    assert naming.calls == 10_000
    assert known(cache, naming, *texts) == texts


def test_what_came_once_is_not_kept_for_ever() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 10, MAX_TOKEN_BYTES)
    meet(cache, *[f"acme.{n}" for n in range(10)], "acme.again", "acme.soon")

    meet(cache, *[f"acme.{n}" for n in range(10, 20)], "acme.soon")
    soon = known(cache, naming, "acme.soon")
    meet(cache, *[f"acme.{n}" for n in range(20, 40)], "acme.again")

    assert soon == ["acme.soon"]
    assert known(cache, naming, "acme.again") == []


def test_a_tenant_that_lost_its_room_keeps_no_record_of_what_came_once() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 10, MAX_TOKEN_BYTES)
    meet(cache, *[f"acme.{n}" for n in range(30)])

    meet(cache, *[f"tenant-{n}.1" for n in range(6)], "acme.29")

    assert known(cache, naming, "acme.29") == []


def test_a_tenant_with_fewer_than_another_has_its_tokens_remembered_at_once() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 100, MAX_TOKEN_BYTES)
    meet(cache, *[f"tenant-{n}.1" for n in range(20)], *[f"acme.{n}" for n in range(20)])
    meet(cache, *[f"flood.{n}" for n in range(1_000)])

    for n in range(20, 35):  # far above what each would have if all had the same
        meet(cache, f"acme.{n}", *[f"flood.{n}-{m}" for m in range(100)])

    texts = [f"acme.{n}" for n in range(35)]
    assert known(cache, naming, *texts) == texts


def test_the_flood_of_one_tenant_makes_nobody_forget_what_came_once_of_another() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 100, MAX_TOKEN_BYTES)
    meet(cache, *[f"{tenant}.{n}" for n in range(50) for tenant in ("acme", "flood")])

    meet(cache, "acme.new", *[f"flood.{n}" for n in range(50, 10_000)], "acme.new")

    assert known(cache, naming, "acme.new") == ["acme.new"]


def test_a_token_of_its_own_that_has_expired_makes_room_at_once() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 2, MAX_TOKEN_BYTES)
    meet(cache, "acme.1/10", "acme.2")

    cache.lookup(named("acme.3"), NOW_S + 10)

    assert known(cache, naming, "acme.2", "acme.3", now_s=NOW_S + 10) == ["acme.2", "acme.3"]


def test_a_token_that_has_expired_makes_room_first() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 3, MAX_TOKEN_BYTES)
    meet(cache, "acme.1", "acme.2", "globex.1/10")

    cache.lookup(named("hooli.1"), NOW_S + 10)

    assert known(cache, naming, "acme.1", "acme.2", "hooli.1", now_s=NOW_S + 10) == [
        "acme.1", "acme.2", "hooli.1",
    ]  # fmt: skip


def test_large_tokens_take_up_the_room_of_several() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 100, 8192)

    for n in range(100):
        cache.lookup(named(f"acme.{n}-" + "x" * 2 * LARGE_BYTES), NOW_S)
    assert len(cache) == 33
    cache.forget(set(), {"acme"}, is_lifted=False)
    for n in range(150):
        cache.lookup(named(f"acme.{n}"), NOW_S)

    assert len(cache) == 100


def test_large_tokens_drive_out_none_of_a_tenant_that_takes_up_less_room() -> None:
    naming = Naming()
    cache = IdentityCache(naming, 100, 16_384)
    few = [f"acme.{n}" for n in range(40)]
    meet(cache, *few)

    for n in range(200):
        meet(cache, *[f"flood.{n}-" + "x" * 4 * LARGE_BYTES] * 2)

    assert known(cache, naming, *few) == few
    assert len(cache) == 40 + 60 // 5


OPS = st.lists(
    st.tuples(
        st.sampled_from(["look", "look", "look", "jti", "tenant", "clear"]),
        st.integers(0, 5),
        st.integers(0, 9),
        st.sampled_from(["", "1", "5"]),
    ),
    max_size=80,
)


@given(size=st.integers(1, 6), operations=OPS)
def test_whatever_happens_it_never_remembers_too_much_nor_what_it_forgot(
    size: int, operations: list[tuple[str, int, int, str]]
) -> None:
    naming = Naming()
    cache = IdentityCache(naming, size, MAX_TOKEN_BYTES)
    for at, (operation, tenant, jti, lifetime) in enumerate(operations):
        if operation == "look":
            text = f"{tenant}.{jti}/{lifetime}"
            for _ in range(2):  # at the second time there is room, whoever has what
                assert cache.lookup(named(text), NOW_S + at).tenant == str(tenant)
            assert known(cache, naming, text, now_s=NOW_S + at) == [text]
        elif operation == "clear":
            cache.clear()
        else:
            gone = {str(jti)} if operation == "jti" else {str(tenant)}
            by_jti = operation == "jti"
            cache.forget(gone if by_jti else set(), set() if by_jti else gone, is_lifted=False)
            held = list(cache.remembered())
            assert not [one for one in held if (one.jti if by_jti else one.tenant) in gone]
        assert len(cache) <= size


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


# --- revocation ------------------------------------------------------------------------------


def test_a_remembered_token_that_is_revoked_is_refused_once_it_is_forgotten(
    verifier: Verifier, rs256: Signer
) -> None:
    revoked: set[str] = set()
    cache = IdentityCache(verifier, 8, MAX_TOKEN_BYTES, lambda identity: identity.jti in revoked)
    stolen, other = bearer(rs256, jti="t-1"), bearer(rs256, jti="t-2")
    cache.lookup(stolen, NOW_S)
    cache.lookup(other, NOW_S)

    revoked.add("t-1")
    cache.forget({"t-1"}, set(), is_lifted=False)

    refused = refusal(cache, stolen)
    assert refused.code is Code.TOKEN_INVALID
    assert "revoked" in refused.detail
    assert cache.lookup(other, NOW_S).jti == "t-2"


def test_every_spelling_of_a_revoked_token_is_forgotten(verifier: Verifier, rs256: Signer) -> None:
    revoked: set[str] = set()
    cache = IdentityCache(verifier, 8, MAX_TOKEN_BYTES, lambda identity: identity.jti in revoked)
    token = rs256.mint(good_claims(jti="t-1"))
    spellings = [b"Bearer " + token, b"bearer " + token, b"Bearer   " + token]
    for spelling in spellings:
        cache.lookup(spelling, NOW_S)

    revoked.add("t-1")
    cache.forget({"t-1"}, set(), is_lifted=False)

    for spelling in spellings:
        refusal(cache, spelling)
    assert len(cache) == 0


def test_a_revoked_token_is_verified_once_and_good_again_when_that_is_lifted(
    counting: CountingVerifier, rs256: Signer
) -> None:
    revoked = {"t-1"}
    cache = IdentityCache(counting, 8, MAX_TOKEN_BYTES, lambda identity: identity.jti in revoked)
    token = bearer(rs256, jti="t-1")
    refusal(cache, token)
    refusal(cache, token)
    assert counting.calls == 1

    revoked.clear()
    cache.forget({"t-1"}, set(), is_lifted=True)

    assert cache.lookup(token, NOW_S).jti == "t-1"


def test_a_tenant_that_is_cut_off_is_verified_anew(
    counting: CountingVerifier, rs256: Signer
) -> None:
    cache = IdentityCache(counting, 8, MAX_TOKEN_BYTES)
    tokens = [bearer(rs256, sub=f"user-{n}") for n in range(3)]
    for token in (*tokens, bearer(rs256, tenant="globex")):
        cache.lookup(token, NOW_S)

    cache.forget(set(), {"acme", "unknown"}, is_lifted=False)

    assert [one.tenant for one in cache.remembered()] == ["globex"]


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
