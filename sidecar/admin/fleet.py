"""What the supervisor asks its workers: each answers on a unix socket of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from sidecar.telemetry.merge import merge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ASK_TIMEOUT_S = 2.0


class WorkerFleet:
    """Merges readiness and metrics of the workers behind `sockets`."""

    def __init__(self, sockets: Sequence[Path]) -> None:
        self._sockets = sockets

    async def unready(self) -> str:
        """Return why one of the workers is not ready, or an empty text."""
        answers = await asyncio.gather(*(self._ask(path, "/readyz") for path in self._sockets))
        for number, (status, text) in enumerate(answers):
            if status != 200:  # noqa: PLR2004 -- RFC 9110 section 15.3.1
                return f"worker {number}: {text.strip()}"
        return ""

    async def metrics(self) -> str:
        """Return the sum of all that answer; `rmv_workers_up` says how many did."""
        answers = await asyncio.gather(*(self._ask(path, "/metrics") for path in self._sockets))
        texts = [text for status, text in answers if status == 200]  # noqa: PLR2004
        return f"{merge(texts)}# TYPE rmv_workers_up gauge\nrmv_workers_up {len(texts)}\n"

    async def _ask(self, path: Path, target: str) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        connector = aiohttp.UnixConnector(str(path))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get(f"http://worker{target}") as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return 0, f"does not answer: {error}"
