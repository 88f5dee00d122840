"""What the control process asks its workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sidecar.runtime.questions import ask
from sidecar.telemetry.merge import merge

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path


class WorkerFleet:
    """Merges the answers of the workers behind `sockets()`, to questions of the given names.

    The gauges `shared` tell in each worker of the same thing and are not added up.
    """

    def __init__(
        self,
        sockets: Callable[[], Sequence[Path]],
        *,
        ready: str,
        metrics: str,
        shared: Collection[str],
    ) -> None:
        self._sockets = sockets
        self._ready = ready
        self._metrics = metrics
        self._shared = shared

    async def unready(self) -> str:
        """Return why one of the workers should get no traffic, or an empty text."""
        answers = await self._ask_all(self._ready)
        for number, (why, is_up) in enumerate(answers):
            if why or not is_up:
                return f"worker {number}: {why}"
        return ""

    async def metrics(self) -> str:
        """Return the merged metrics of all that answer; `rmv_workers_up` says how many did."""
        answers = await self._ask_all(self._metrics)
        texts = [text for text, is_up in answers if is_up]
        up = f"# TYPE rmv_workers_up gauge\nrmv_workers_up {len(texts)}\n"
        return merge(texts, self._shared) + up

    async def _ask_all(self, question: str) -> list[tuple[str, bool]]:
        return await asyncio.gather(*(self._ask(path, question) for path in self._sockets()))

    async def _ask(self, path: Path, question: str) -> tuple[str, bool]:
        try:
            return await ask(path, question), True
        except OSError as error:  # TimeoutError is one
            return f"does not answer: {str(error) or 'too late'}", False
