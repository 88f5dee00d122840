"""Edits by a plain Redis client take effect in every worker while it serves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest
import pytest_asyncio

from tests.support.sidecar import PATIENCE_S, flags, sidecar
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.sidecar import Editor, Sidecar

pytestmark = pytest.mark.asyncio(loop_scope="module")
WORKERS = 2
Outcome = tuple[int, bytes | None, bytes | None]

DEFAULT: Outcome = (200, b"v1", b"DEFAULT")
PINNED: Outcome = (200, b"v2", b"PINNED")


class Scene(NamedTuple):
    """Two workers that serve v1 by default, and a plain client to their store."""

    running: Sidecar
    editor: Editor


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def begun() -> AsyncIterator[Scene]:
    """One sidecar for the tests here; `scene` undoes what each of them did."""
    async with (
        scripted_upstream() as up,
        sidecar("--workers", str(WORKERS), *flags(v1=up.url, v2=up.url)) as running,
        running.editor() as editor,
    ):
        yield Scene(running, editor)


@pytest_asyncio.fixture(loop_scope="module")
async def scene(begun: Scene) -> AsyncIterator[Scene]:
    """A scene of which no tenant is pinned, no version killed, and the policy that of the flags."""
    running, editor = begun
    document = await editor.document()
    yield begun
    await editor.delete("pin:m:acme")
    await editor.delete("kill:m:v2")
    await editor.put(document)

    async def is_good() -> bool:
        return await running.counted("rmv_policy_faults") == 0

    await running.until(is_good, "policy without a fault")
    await every_worker_answers(running, DEFAULT, "acme")


async def outcomes(running: Sidecar, tenant: str = "", **headers: str) -> set[Outcome]:
    """Return what the workers, each asked, answer with."""
    answers = await running.ask_workers(WORKERS, tenant, **headers)
    return {(a.status, a.get(b"X-Model-Version"), a.get(b"X-Model-Decision")) for a in answers}


async def every_worker_answers(running: Sidecar, outcome: Outcome, tenant: str = "") -> None:
    """Wait until no worker answers otherwise."""
    seen: set[Outcome] = set()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while seen != {outcome}:
                seen = await outcomes(running, tenant)
    except TimeoutError:
        raise AssertionError(f"{seen} instead of {outcome}") from None


async def test_a_pin_holds_its_tenant_in_every_worker_and_no_other_tenant(scene: Scene) -> None:
    running, editor = scene
    assert await outcomes(running, "acme") == {DEFAULT}

    await editor.set("pin:m:acme", "v2")
    await every_worker_answers(running, PINNED, "acme")

    assert await outcomes(running, "globex") == {DEFAULT}
    assert await outcomes(running) == {DEFAULT}

    await editor.delete("pin:m:acme")
    await every_worker_answers(running, DEFAULT, "acme")


async def test_a_killed_version_is_served_no_more_and_comes_back(scene: Scene) -> None:
    running, editor = scene
    await editor.set("pin:m:acme", "v2")
    await every_worker_answers(running, PINNED, "acme")

    await editor.set("kill:m:v2", "bad outputs")
    await every_worker_answers(running, (409, None, b"DENIED:killed"), "acme")

    [answer, *_] = await running.ask_workers(WORKERS, "acme")
    assert answer.code == "version-unavailable"
    assert await outcomes(running, "globex") == {DEFAULT}
    [explicit, *_] = await running.ask_workers(WORKERS, "globex", X_Model_Version="v2")
    assert explicit.status == 409

    await editor.delete("kill:m:v2")
    await every_worker_answers(running, PINNED, "acme")


async def test_a_policy_is_live_without_a_restart_and_adopted_into_the_history(
    scene: Scene,
) -> None:
    running, editor = scene
    known = len(await editor.history())
    document = await editor.document()
    document["rules"] = [{"id": "beta", "when": {"tenant": "acme"}, "serve": "v2"}]
    before = running.workers()

    await editor.put(document)
    await every_worker_answers(running, (200, b"v2", b"RULE:beta"), "acme")

    async def is_adopted() -> bool:
        return len(await editor.history()) == known + 1

    await running.until(is_adopted, "adoption")
    newest = (await editor.history())[0]
    assert (newest.revision, newest.actor) == (known + 1, "direct")
    assert msgspec.json.decode(newest.document)["rules"] == document["rules"]
    await every_worker_answers(running, (200, b"v2", b"RULE:beta"), "acme")
    assert running.workers() == before
    assert len(await editor.history()) == known + 1  # two workers saw it, one entry


async def test_a_bad_policy_changes_nothing_that_is_served_and_is_told(scene: Scene) -> None:
    running, editor = scene
    document = await editor.document()
    document["default"] = "v9"

    await editor.put(document)

    async def is_counted() -> bool:
        return await running.counted("rmv_policy_faults") == 1

    await running.until(is_counted, "fault in the metrics")
    assert await outcomes(running, "acme") == {DEFAULT}
    refused = next(line for line in running.said().splitlines() if "policy refused" in line)
    assert "model=m" in refused
    assert "rmv:policy:m" in refused
    assert "default" in refused
    assert "v9" in refused
    assert "serving=True" in refused


async def test_a_restart_beside_a_bad_document_says_so_and_serves_other_models() -> None:
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url)) as running,
        running.editor() as editor,
    ):
        document = await editor.document()
        await editor.put({**document, "model": "other"}, "other")
        await editor.set("policy:m", "{")

        await running.end()
        await running.start()
        await running.ready()

        assert (await running.ask(X_Model="other")).status == 200
        assert (await running.ask()).code == "no-such-model"
        assert "the stored policy is not valid" in running.said()
