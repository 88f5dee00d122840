"""What the control process asks its workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.runtime.tasks import repeat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.runtime.questions import Line
    from sidecar.telemetry.merge import Ledger

READ_EVERY_S: Final = 1.0  # what a worker that is killed has counted since is lost
READ_BYTES_S: Final = 128 * 1024  # 3.5 ms of a worker, measured: more than that is read less often
OWN: Final = "control"  # what the account of this process is called; workers have numbers
NOT_BEGUN: Final = "has not begun"  # what stands for the answer of such a worker


class Lines(Protocol):
    """Where workers answer questions."""

    def present(self) -> Sequence[Line]:
        """Return the lines to those that take traffic."""

    def excuses(self) -> Sequence[str]:
        """Return why the last worker before each of these could not begin; empty if it could."""

    def running(self) -> Sequence[Line]:
        """Return these, and those of workers that begin or retire."""


class WorkerFleet:
    """Merges the answers of workers to questions of the given names.

    What they have counted is kept in `ledger`, from which whoever learns that a worker is gone
    has to close it.
    """

    def __init__(
        self, lines: Lines, ledger: Ledger, *, ready: str, metrics: str, own: Callable[[], str]
    ) -> None:
        """Add to the metrics of workers an exposition of this process's `own`."""
        self._lines = lines
        self._own = own
        self._ledger = ledger
        self._ready = ready
        self._metrics = metrics
        self._reading = asyncio.Lock()  # an answer never overtakes a newer one

    async def unready(self) -> str:
        """Return why one of the workers should get no traffic, or an empty text."""
        present = self._lines.present()
        answers = await asyncio.gather(*(self._ask(line, self._ready) for line in present))
        excuses = self._lines.excuses()
        for number, ((why, is_up), excuse) in enumerate(zip(answers, excuses, strict=True)):
            if why == NOT_BEGUN and excuse:
                return f"worker {number}: cannot begin: {excuse}"
            if why or not is_up:
                return f"worker {number}: {why}"
        return ""

    async def metrics(self) -> str:
        """Return what all workers have counted; `rmv_workers_up` says how many answer now."""
        sizes = await self._read()
        up = len(sizes.keys() & {line.name for line in self._lines.present()})
        self._ledger.note(OWN, self._own())
        counted = self._ledger.exposition({*sizes, OWN})
        return f"{counted}# TYPE rmv_workers_up gauge\nrmv_workers_up {up}\n"

    async def keep_reading(self) -> None:
        """Read the metrics again and again, lest they die with their worker."""
        await repeat(self._keep_reading, part="metrics")

    async def _keep_reading(self) -> None:
        sizes = await self._read()
        await asyncio.sleep(max(READ_EVERY_S, max(sizes.values(), default=0) / READ_BYTES_S))

    async def _read(self) -> dict[str, int]:
        """Note what every worker has counted; return the sizes of the answers that came."""
        async with self._reading:
            lines = self._lines.running()
            sizes = await asyncio.gather(*map(self._note, lines))
        return {line.name: size for line, size in zip(lines, sizes, strict=True) if size}

    async def _note(self, line: Line) -> int:
        text, is_up = await self._ask(line, self._metrics)
        if not is_up or line not in self._lines.running():  # its account is closed
            return 0
        self._ledger.note(line.name, text)
        return len(text)

    async def _ask(self, line: Line, question: str) -> tuple[str, bool]:
        if not line.has_begun:
            return NOT_BEGUN, False
        try:
            return await line.ask(question), True
        except OSError as error:  # TimeoutError is one
            return f"does not answer: {str(error) or 'too late'}", False
