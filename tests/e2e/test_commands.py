"""Commands on a store that sidecars serve from: what they wait for, and what they show."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

from sidecar.store.connect import open_store
from sidecar.store.embedded import embedded_url
from tests.support.proxy import policy
from tests.support.sidecar import PATIENCE_S, flags, sidecar
from tests.support.upstream import ANSWER, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model.identity import JSON
    from sidecar.store.base import Instance
    from tests.support.sidecar import Editor, Sidecar
    from tests.support.upstream import Received

WORKERS = 2
BAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


async def rmv(running: Sidecar, *arguments: str) -> tuple[int, str, str]:
    """Run a command on the store of a sidecar; return its status and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "sidecar", *arguments, "--state-dir", str(running.state_dir),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_rollback_returns_when_every_worker_decides_by_it() -> None:
    async with (
        scripted_upstream() as up,
        sidecar("--workers", str(WORKERS), *flags(v1=up.url, v2=up.url)) as running,
        running.editor() as editor,
    ):
        document = await editor.document()
        await editor.put({**document, "default": "v2"})
        await _adopted(editor)  # or the rollback may meet that commit
        status, out, err = await rmv(running, "rollback", "m", "1", "--wait", "--json")
        answers = await running.ask_workers(WORKERS)

        assert (status, err) == (0, "")
        told = json.loads(out)
        assert told["waited"]["instances"] == 1
        assert {answer.get(b"X-Model-Version") for answer in answers} == {b"v1"}


async def test_status_shows_which_sidecar_decides_by_what() -> None:
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url, v2=up.url)) as running,
        running.editor() as editor,
    ):
        _, out, _ = await rmv(running, "label", "m", "stable", "v1", "--wait", "--json")
        waited = json.loads(out)["waited"]
        _, shown, _ = await rmv(running, "status", "--json")
        (instance,) = json.loads(shown)["sidecars"]
        await editor.set("policy:m", b"{")
        await _fleet(running, lambda one: bool(one.faults))
        _, _, refused = await rmv(running, "status")

    assert waited["instances"] == 1
    assert instance["revisions"] == {"m": 2}
    assert not instance["is_stale"]
    assert "refuses the document of m" in refused


async def test_explain_notes_what_a_sidecar_finds_not_ready() -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(BAD if request.target == b"/ready" else ANSWER)

    async with (
        scripted_upstream(script) as up,
        sidecar(*flags(v1=up.url)) as running,
        running.editor() as editor,
    ):
        asked: JSON = {"path": "/ready", "interval_s": 0.05}
        document = policy({"v1": {"endpoints": [up.url], "health": asked}})
        await editor.set("policy:m", document.decode())
        await running.says("endpoint unhealthy")
        await _fleet(running, lambda one: bool(one.unready))
        _, _, noted = await rmv(running, "explain", "m")
        _, shown, _ = await rmv(running, "status")
        _, supposed, note = await rmv(running, "explain", "m", "--not-ready", "v1", "--brief")

    assert "note: v1 has no healthy endpoint at 1 of 1 sidecars; --not-ready v1 takes" in noted
    assert "m:v1" in shown
    assert "DENIED:not-ready" in supposed
    assert note == ""


async def _adopted(editor: Editor) -> None:
    """Wait until the sidecar has made a revision of a direct edit."""
    async with asyncio.timeout(PATIENCE_S):
        while (await editor.document()).get("actor") != "direct":  # noqa: ASYNC110 -- as `eventually`
            await asyncio.sleep(0.01)


async def _fleet(running: Sidecar, holds: Callable[[Instance], bool]) -> None:
    """Wait until what the sidecar tells of itself holds."""
    store = open_store(embedded_url(str(running.state_dir)))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not any(map(holds, await store.fleet())):  # noqa: ASYNC110 -- as `eventually`
                await asyncio.sleep(0.01)
    finally:
        await store.close()
