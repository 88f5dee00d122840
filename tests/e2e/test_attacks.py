"""Attack tokens at a real sidecar over HTTP: each refused with its code, and its twin served."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest
import pytest_asyncio
from msgspec.structs import replace

from tests.identity.attacks import ATTACKS
from tests.identity.forge import (
    FORMER,
    HOUR_S,
    OTHER_ISSUER,
    P256_ORDER,
    STOLEN,
    TYP,
    TYPED_ISSUER,
    Forge,
    bearer,
    halves,
    spelled,
)
from tests.identity.minting import AUDIENCE, ISSUER, jwks
from tests.support.messages import Answer, read_answer
from tests.support.sidecar import policy_flags, sidecar
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.sidecar import Sidecar
    from tests.support.upstream import ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

STATUS = {"token-missing": 401, "token-invalid": 401, "token-expired": 401, "tenant-denied": 403,
          "malformed-request": 400}  # fmt: skip
ALL = 'algorithms = ["RS256", "ES256", "EdDSA", "HS256"]\n'
TYPED = f'typ = "{TYP}"\n{ALL}'


class Guarded(NamedTuple):
    """A sidecar that believes three issuers, and what it stands before."""

    sidecar: Sidecar
    upstream: ScriptedUpstream
    forge: Forge


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    """One for all tests here: none of them changes it."""
    forge, folder = Forge(), tmp_path_factory.mktemp("keys")
    ours, others = folder / "ours.json", folder / "others.json"
    ours.write_bytes(jwks(*forge.trusted))
    others.write_bytes(jwks(forge.other.jwk))

    def issuer(name: str, keys: object, more: str = "") -> str:
        claims = 'grants_claim = "models"\nsegments_claim = "segments"\n'
        said = f'issuer = "{name}"\naudience = "{AUDIENCE}"\njwks_file = "{keys}"\n'
        return said + claims + more

    settings = (
        f"[identity]\n{issuer(ISSUER, ours, ALL)}"
        f"[[issuers]]\n{issuer(TYPED_ISSUER, ours, TYPED)}"
        f"[[issuers]]\n{issuer(OTHER_ISSUER, others)}"
    )
    async with (
        scripted_upstream() as up,
        sidecar(*policy_flags(v1=up.url), settings=settings) as running,
        running.editor() as editor,
    ):
        await editor.set(f"revoked:{STOLEN}", "stolen")
        await editor.set(f"revoked-before:{FORMER}", str(forge.now_s - HOUR_S))

        async def is_known() -> bool:
            return await running.counted("rmv_revocations") == 2

        await running.until(is_known, "revocations")
        yield Guarded(running, up, forge)


async def tell(running: Sidecar, request: bytes) -> Answer:
    """Send bytes on a connection of their own."""
    reader, writer = await asyncio.open_connection(*running.listen)
    try:
        writer.write(request)
        return await read_answer(reader)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def challenge_of(code: str) -> bytes | None:
    """Return how the challenge to a refused caller begins (RFC 6750 section 3)."""
    if code == "token-missing":
        return b'Bearer realm="rmv"'
    if STATUS[code] == 401:
        return b'Bearer realm="rmv", error="invalid_token", error_description="'
    return None


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_is_refused_and_its_twin_is_served(guarded: Guarded, name: str) -> None:
    running, up, forge = guarded
    forge.look_at_the_clock()
    attack = ATTACKS[name](forge)

    for turn in ("at first", "after the twin"):
        reached = len(up.received)
        refused = await tell(running, attack.bad)
        assert (refused.status, refused.code) == (STATUS[attack.code], attack.code), turn
        challenge, wanted = refused.get(b"WWW-Authenticate"), challenge_of(attack.code)
        assert (challenge is None) == (wanted is None), turn
        assert (challenge or b"").startswith(wanted or b""), turn
        assert len(up.received) == reached, turn

        served = await tell(running, attack.good)
        assert served.status == 200, served.body
        assert up.received[-1].get(b"X-Tenant") == attack.tenant


@pytest.mark.parametrize("scheme", [b"bearer ", b"BEARER ", b"bEaReR ", b"Bearer   ", b" Bearer "])
async def test_a_scheme_is_read_in_any_case_and_blanks_do_not_count(
    guarded: Guarded, scheme: bytes
) -> None:
    """RFC 9110 section 11.1."""
    running, _, forge = guarded
    token = forge.rsa.mint(forge.claims())

    assert (await tell(running, bearer(token, scheme))).status == 200
    assert (await tell(running, bearer(token[:-4], scheme))).code == "token-invalid"


async def test_the_other_s_of_an_ecdsa_signature_is_one_as_well(guarded: Guarded) -> None:
    """RFC 7518 section 3.4 asks for no low s; so nothing may hang on a token's bytes alone."""
    running, _, forge = guarded

    def mirrored(message: bytes) -> bytes:
        r, s = halves(forge.ec.sign(message))
        return spelled(r, P256_ORDER - s)

    other = replace(forge.ec, sign=mirrored)
    assert (await tell(running, bearer(other.mint(forge.claims())))).status == 200
    revoked = other.mint(forge.claims(jti=STOLEN))
    assert (await tell(running, bearer(revoked))).code == "token-invalid"


async def test_no_part_of_a_refused_token_stands_in_a_log_or_an_answer(guarded: Guarded) -> None:
    running, _, forge = guarded
    claims, others = forge.claims(sub="forged"), forge.claims(sub="original")
    token = b".".join((*forge.rsa.mint(claims).split(b".")[:2], forge.rsa.mint(others)[-342:]))

    answer = await tell(running, bearer(token))
    await running.record_of(answer)

    assert answer.code == "token-invalid"
    said = running.said() + running.exchange_log.read_text() + answer.body.decode()
    assert all(part.decode() not in said for part in token.split(b".")[1:])
    assert "forged" not in said
