"""A token that is taken back is refused by every worker, also one that has just let it pass."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sidecar.identity.issuer import JWKS_FILE, create_keys, issue
from tests.support.sidecar import policy_flags, sidecar
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.sidecar import Sidecar

ISSUER, AUDIENCE = "https://issuer.test", "models"
WORKERS = 2


def bearer(keys: Path, tenant: str, jti: str, *, age_s: float = 0.0) -> str:
    """Return the Authorization field of a token that lives for ten minutes."""
    token = issue(
        keys,
        tenant=tenant,
        subject="ada",
        issuer=ISSUER,
        audience=AUDIENCE,
        lifetime_s=600.0,
        now_s=time.time() - age_s,  # noqa: TID251 -- the sidecar reads the same clock
        claims={"jti": jti},
    )
    return f"Bearer {token}"


@asynccontextmanager
async def guarded(keys: Path) -> AsyncIterator[Sidecar]:
    """Run a sidecar of two workers that believes the issuer of these keys."""
    create_keys(keys, "EdDSA")
    settings = (
        f'[identity]\njwks_file = "{keys / JWKS_FILE}"\n'
        f'issuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n'
    )
    async with scripted_upstream() as up:
        flags = ("--workers", str(WORKERS), *policy_flags(v1=up.url))
        async with sidecar(*flags, settings=settings) as running:
            yield running


async def statuses(running: Sidecar, field: str) -> set[int]:
    """Return with what each worker answers a request with this token."""
    answers = await running.ask_workers(WORKERS, Authorization=field)
    return {answer.status for answer in answers}


async def test_what_is_revoked_is_refused_in_every_worker_until_that_is_lifted(
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys"
    async with guarded(keys) as running, running.editor() as editor:
        stolen, other = bearer(keys, "acme", "t-1"), bearer(keys, "acme", "t-2", age_s=10)
        foreign = bearer(keys, "globex", "t-3", age_s=10)
        for field in (stolen, other, foreign):
            assert await statuses(running, field) == {200}

        await editor.set("revoked:t-1", "stolen")

        async def all_are(field: str, status: int) -> bool:
            return await statuses(running, field) == {status}

        await running.until(lambda: all_are(stolen, 401), "revocation")
        refused = await running.ask(Authorization=stolen)
        assert b"has been revoked" in refused.body
        assert await statuses(running, other) == {200}

        now_s = time.time()  # noqa: TID251 -- as above
        await editor.set("revoked-before:acme", f"{now_s - 5:.0f}")
        await running.until(lambda: all_are(other, 401), "cut-off")
        assert await statuses(running, bearer(keys, "acme", "t-4")) == {200}
        assert await statuses(running, foreign) == {200}
        assert await running.counted("rmv_revocations") == 2
        assert await running.counted("rmv_identity_lookups_total", outcome="hit") > 0
        assert await running.counted("rmv_identity_lookups_total", outcome="miss") > 0
        assert await running.counted("rmv_identity_lookups_total", outcome="refused") > 0
        assert await running.counted("rmv_identities") > 0

        await editor.delete("revoked:t-1")
        await editor.delete("revoked-before:acme")
        await running.until(lambda: all_are(stolen, 200), "belief")
        await running.until(lambda: all_are(other, 200), "belief")
        assert "stolen" not in running.said()
