"""A sidecar asks its endpoints by itself, and tells what it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.proxy import policy
from tests.support.sidecar import flags, sidecar
from tests.support.upstream import ANSWER, scripted_upstream

if TYPE_CHECKING:
    import asyncio

    from sidecar.model.identity import JSON
    from tests.support.sidecar import Sidecar
    from tests.support.upstream import Received

BAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


async def test_a_version_whose_endpoint_says_no_serves_nobody_until_it_says_yes() -> None:
    health = [ANSWER]

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(health[0] if request.target == b"/ready" else ANSWER)

    async with (
        scripted_upstream(script) as up,
        sidecar("--workers", "2", *flags(v1=up.url)) as running,
        running.editor() as editor,
    ):
        asked: JSON = {"path": "/ready", "interval_s": 0.05}
        document = policy({"v1": {"endpoints": [up.url], "health": asked}})
        await editor.set("policy:m", document.decode())

        health[0] = BAD
        await running.says(f'msg="endpoint unhealthy" endpoint={up.url} versions=m:v1')
        await running.until(lambda: refuses(running), "not ready")
        assert await running.counted("rmv_endpoint_healthy", endpoint=up.url) == 0

        health[0] = ANSWER
        await running.says("endpoint healthy")
        await running.until(lambda: serves(running), "ready")
        assert await running.counted("rmv_endpoint_healthy", endpoint=up.url) == 1


async def refuses(running: Sidecar) -> bool:
    """Return whether both workers find the version not ready."""
    answers = await running.ask_workers(2)
    return all(
        (one.status, one.get(b"X-Model-Decision")) == (503, b"DENIED:not-ready") for one in answers
    )


async def serves(running: Sidecar) -> bool:
    """Return whether both workers are served."""
    return all(one.status == 200 for one in await running.ask_workers(2))
