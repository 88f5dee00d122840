"""A token leads to the versions that it grants and to no other, at a real sidecar over HTTP."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest
import pytest_asyncio

from sidecar.identity.issuer import JWKS_FILE, create_keys, issue
from tests.support.sidecar import policy_flags, sidecar
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sidecar.model.identity import JSON
    from tests.support.sidecar import Sidecar
    from tests.support.upstream import ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
FREE, STRICT, AUDIENCE = "https://issuer.test", "https://strict.test", "models"
MODEL = "m"
NOWHERE = "http://127.0.0.1:1"


class Guarded(NamedTuple):
    """A sidecar before v1, v2 and v3; v3 is the default, `dead` refuses and falls back to v2."""

    sidecar: Sidecar
    upstreams: dict[str, ScriptedUpstream]
    folder: Path

    def bearer(self, grants: JSON = None, issuer: str = FREE, **claims: JSON) -> str:
        """Return the Authorization field of a token of acme; without grants it has no claim."""
        token = issue(
            self.folder,
            tenant="acme",
            subject="ada",
            issuer=issuer,
            audience=AUDIENCE,
            lifetime_s=60.0,
            now_s=time.time(),  # noqa: TID251 -- the sidecar reads the same clock
            claims=claims if grants is None else {**claims, "models": grants},
        )
        return f"Bearer {token}"

    def reached(self) -> dict[str, int]:
        """Return how many requests each upstream got."""
        return {name: len(one.received) for name, one in self.upstreams.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("issuer") / "keys"
    create_keys(folder, "EdDSA")
    jwks = f'jwks_file = "{folder / JWKS_FILE}"\naudience = "{AUDIENCE}"\ngrants_claim = "models"\n'
    settings = (
        f'[identity]\nissuer = "{FREE}"\n{jwks}'
        f'[[issuers]]\nissuer = "{STRICT}"\n{jwks}grants_required = true\n'
    )
    async with AsyncExitStack() as stack:
        ups = {
            name: await stack.enter_async_context(scripted_upstream())
            for name in ("v1", "v2", "v3")
        }
        flags = policy_flags(**{name: one.url for name, one in ups.items()})
        running = await stack.enter_async_context(sidecar(*flags, settings=settings))
        editor = await stack.enter_async_context(running.editor())
        versions: dict[str, JSON] = {name: {"endpoints": [one.url]} for name, one in ups.items()}
        versions["dead"] = {"endpoints": [NOWHERE], "fallback": "v2", "idempotent": True}
        document = await editor.document()
        await editor.put(
            {
                **document,
                "versions": versions,
                "labels": {"stable": "v1"},
                "rules": [{"id": "dead", "when": {"header.x-dead": "1"}, "serve": "dead"}],
                "default": "v3",
            }
        )

        async def is_live() -> bool:
            answer = await running.ask(Authorization=made.bearer(), X_Model_Version="stable")
            return answer.status == 200

        made = Guarded(running, ups, folder)
        await running.until(is_live, "policy")
        yield made


async def served(guarded: Guarded, bearer: str, **fields: str) -> tuple[int, str]:
    """Return the status of an answer, and the version that gave it or the code of the refusal."""
    answer = await guarded.sidecar.ask(Authorization=bearer, **fields)
    version = answer.get(b"X-Model-Version")
    return answer.status, str(answer.code) if version is None else version.decode()


async def test_tokens_of_one_tenant_get_what_each_grants(guarded: Guarded) -> None:
    bearers = {
        "": guarded.bearer(),
        "label": guarded.bearer({MODEL: ["label:stable"]}),
        "range": guarded.bearer({MODEL: [">=3 <4", "v1"]}),
        "others": guarded.bearer({"*": ["*"]}),
        "nothing": guarded.bearer({MODEL: [], "*": ["*"]}),
    }

    for _ in range(3):
        answers = {name: await served(guarded, bearer) for name, bearer in bearers.items()}
        assert answers == {
            "": (200, "v3"),
            "label": (403, "tenant-denied"),
            "range": (200, "v3"),
            "others": (200, "v3"),
            "nothing": (403, "tenant-denied"),
        }
    asked = await served(guarded, bearers["label"], X_Model_Version="stable")
    assert asked == (200, "v1")


async def test_nothing_leads_to_a_version_that_is_not_granted(guarded: Guarded) -> None:
    only = guarded.bearer({MODEL: ["v1", "dead"]})
    reached = guarded.reached()

    asked = await served(guarded, only, X_Model_Version="v2")
    by_path = await guarded.sidecar.ask(
        path=f"/v2/models/{MODEL}/versions/v2/infer", Authorization=only
    )
    failed = await served(guarded, only, X_Dead="1")
    assert guarded.reached()["v2"] == reached["v2"]
    async with guarded.sidecar.editor() as editor:
        await editor.set(f"pin:{MODEL}:acme", "v2")

        async def is_pinned() -> bool:
            return await served(guarded, guarded.bearer()) == (200, "v2")

        await guarded.sidecar.until(is_pinned, "pin")
        reached = guarded.reached()
        pinned = await served(guarded, only)
        assert guarded.reached() == reached
        await editor.delete(f"pin:{MODEL}:acme")

        async def is_free() -> bool:
            return await served(guarded, guarded.bearer()) == (200, "v3")

        await guarded.sidecar.until(is_free, "unpin")

    assert asked == pinned == (403, "version-forbidden")
    assert (by_path.status, by_path.code) == (403, "version-forbidden")
    assert failed == (502, "dead")
    assert await served(guarded, guarded.bearer(), X_Dead="1") == (200, "v2")


async def test_grants_that_cannot_be_read_close(guarded: Guarded) -> None:
    reached = guarded.reached()

    broken: list[JSON] = ["v1", ["v1"], {MODEL: "v1"}, {MODEL: ["v1", ""]}, {"x": ["v1, v2"]}]
    for grants in broken:
        refused = await guarded.sidecar.ask(Authorization=guarded.bearer(grants))
        assert (refused.status, refused.code) == (401, "token-invalid")
        assert "'models'" in str(refused.problem["detail"])
    assert guarded.reached() == reached


async def test_where_grants_are_required_a_token_without_them_is_refused(guarded: Guarded) -> None:
    without = await guarded.sidecar.ask(Authorization=guarded.bearer(issuer=STRICT))
    granted = await served(guarded, guarded.bearer({MODEL: ["v3"]}, STRICT))

    assert (without.status, without.code) == (403, "tenant-denied")
    assert granted == (200, "v3")


async def test_a_label_that_moves_takes_its_grants_with_it(guarded: Guarded) -> None:
    bearer = guarded.bearer({MODEL: ["label:stable"]})
    async with guarded.sidecar.editor() as editor:
        document = await editor.document()
        await editor.put({**document, "labels": {"stable": "v3"}})

        async def has_moved() -> bool:
            return await served(guarded, bearer) == (200, "v3")

        await guarded.sidecar.until(has_moved, "label")
        assert await served(guarded, bearer, X_Model_Version="v1") == (403, "version-forbidden")
        await editor.put(document)

        async def is_back() -> bool:
            return await served(guarded, bearer, X_Model_Version="v1") == (200, "v1")

        await guarded.sidecar.until(is_back, "label")
