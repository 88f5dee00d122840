"""Who may pass, told by real tokens at a real sidecar."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
import pytest_asyncio

from sidecar.identity.issuer import JWKS_FILE, create_keys, issue
from tests.support.sidecar import policy_flags, sidecar
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.sidecar import Sidecar
    from tests.support.upstream import ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
ISSUER, AUDIENCE = "https://issuer.test", "models"


class Issuer:
    """An issuer of tokens with keys of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        create_keys(folder, "EdDSA")

    def bearer(self, tenant: str = "acme", *, audience: str = AUDIENCE, age_s: float = 0.0) -> str:
        """Return the Authorization field of a token made `age_s` ago that lives for a minute."""
        token = issue(
            self.folder,
            tenant=tenant,
            subject="ada",
            issuer=ISSUER,
            audience=audience,
            lifetime_s=60.0,
            now_s=time.time() - age_s,  # noqa: TID251 -- the sidecar reads the same clock
        )
        return f"Bearer {token}"


class Guarded(NamedTuple):
    """A sidecar that believes one issuer's tokens; v2 is closed to the tenant acme."""

    sidecar: Sidecar
    upstream: ScriptedUpstream
    issuer: Issuer


def believing(jwks: Path) -> str:
    """Return the settings of a sidecar that believes the keys in a file."""
    return f'[identity]\njwks_file = "{jwks}"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    """One for all tests here: none of them changes it."""
    issuer = Issuer(tmp_path_factory.mktemp("issuer") / "keys")
    settings = believing(issuer.folder / JWKS_FILE)
    async with (
        scripted_upstream() as up,
        sidecar(*policy_flags(v1=up.url, v2=up.url), settings=settings) as running,
        running.editor() as editor,
    ):
        document = await editor.document()
        versions = {
            "v1": {"endpoints": [up.url]},
            "v2": {"endpoints": [up.url], "deny": [{"tenant": "acme"}]},
        }
        await editor.put({**document, "versions": versions})

        async def is_live() -> bool:
            return await running.counted("rmv_policy_changes_total") > 1

        await running.until(is_live, "policy")
        yield Guarded(running, up, issuer)


async def test_a_caller_is_whom_its_token_names_and_not_whom_it_claims(guarded: Guarded) -> None:
    running, up, issuer = guarded
    answer = await running.ask("globex", Authorization=issuer.bearer("acme"))

    assert answer.status == 200
    assert up.received[-1].get(b"X-Tenant") == b"acme"
    record = await running.record_of(answer)
    assert (record["tenant"], record["subject"]) == ("acme", "ada")
    assert "AUTH IS OFF" not in running.said()


async def test_no_request_without_a_good_token_reaches_a_model(
    guarded: Guarded, tmp_path: Path
) -> None:
    running, up, issuer = guarded
    reached = len(up.received)
    good = issuer.bearer()
    head, claims, seal = good.split(".")
    forged = f"{head}.{Issuer(tmp_path / 'other').bearer('globex').split('.')[1]}.{seal}"
    stranger = Issuer(tmp_path / "stranger").bearer()
    fields = {
        "missing": {},
        "of another scheme": {"Authorization": "Basic YWRhOnB3"},
        "forged": {"Authorization": forged},
        "of a stranger's key": {"Authorization": stranger},
        "unsigned": {"Authorization": f"{head}.{claims}."},
        "for another audience": {"Authorization": issuer.bearer(audience="others")},
        "expired": {"Authorization": issuer.bearer(age_s=3600)},
        "too long": {"Authorization": good + "A" * 8192},
    }

    answers = {name: await running.ask("acme", **field) for name, field in fields.items()}

    assert {name: answer.code for name, answer in answers.items()} == {
        "missing": "token-missing",
        "of another scheme": "token-missing",
        "forged": "token-invalid",
        "of a stranger's key": "token-invalid",
        "unsigned": "token-invalid",
        "for another audience": "token-invalid",
        "expired": "token-expired",
        "too long": "token-invalid",
    }
    assert await running.counted("rmv_limits_hit_total", limit="token") == 1
    for name, answer in answers.items():
        challenge = answer.get(b"WWW-Authenticate") or b""
        assert answer.status == answer.problem["status"] == 401, name
        assert challenge.startswith(b'Bearer realm="rmv"'), name
        assert (b'error="invalid_token"' in challenge) == (answer.code != "token-missing")
    assert len(up.received) == reached
    assert (await running.ask(Authorization=good)).status == 200


async def test_a_version_that_is_asked_for_is_served_or_refused_with_the_cause(
    guarded: Guarded,
) -> None:
    running, up, issuer = guarded
    reached = len(up.received)
    acme, globex = issuer.bearer("acme"), issuer.bearer("globex")

    closed = await running.ask(Authorization=acme, X_Model_Version="v2")
    unknown = await running.ask(Authorization=acme, X_Model_Version="v9")
    assert len(up.received) == reached
    served = await running.ask(Authorization=globex, X_Model_Version="v2")

    assert (closed.status, closed.code) == (403, "version-forbidden")
    assert (unknown.status, unknown.code) == (404, "no-such-version")
    assert (served.status, served.get(b"X-Model-Decision")) == (200, b"EXPLICIT")
    assert served.get(b"X-Model-Version") == b"v2"


async def test_no_token_stands_in_any_log(guarded: Guarded) -> None:
    running, _, issuer = guarded
    good, bad = issuer.bearer(), issuer.bearer(audience="others")

    await running.ask(Authorization=good)
    refused = await running.ask(Authorization=bad)
    await running.record_of(refused)

    logs = running.said() + running.exchange_log.read_text()
    assert all(part not in logs for token in (good, bad) for part in token[7:].split("."))
