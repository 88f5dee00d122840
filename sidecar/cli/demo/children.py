"""Processes of the demo: started apart from the terminal, watched, and ended by their own pid."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from sidecar.cli.demo.failure import DemoError
from sidecar.runtime.processes import die_with_parent

START_S = 30.0  # a cold disk and a busy machine; usually it is one second
STOP_S = 15.0  # longer than the sidecar may drain and wait for its store
_POLL_S = 0.02
_LINES = 12

T = TypeVar("T")


class ChildFailedError(DemoError):
    """A process of the demo failed; the text ends with the last lines of its log."""


class Child:
    """One process, and the file that holds what it says."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self._process.returncode is not None

    def output(self) -> str:
        """Return all it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def failure(self, what: str) -> ChildFailedError:
        """Return the error that says what went wrong, with the last lines of the log."""
        lines = self.output().splitlines()[-_LINES:]
        said = "\n".join(f"  {line}" for line in lines) or "  (nothing)"
        return ChildFailedError(f"{self.name}: {what}; its log ends:\n{said}")

    async def until(
        self, what: str, probe: Callable[[], Awaitable[T | None]], within_s: float = START_S
    ) -> T:
        """Ask `probe` until it returns something; ChildFailedError when it dies or is late."""
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + within_s
        while (found := await probe()) is None:
            if self.has_ended:
                raise self.failure(f"ended with status {self._process.returncode}")
            if clock() > deadline_s:
                raise self.failure(f"after {within_s:g} s it is not yet {what}")
            await asyncio.sleep(_POLL_S)
        return found

    async def end(self) -> None:
        """Ask it to end, wait, and make it end if that takes too long."""
        with suppress(ProcessLookupError):  # it has ended by itself
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def running(name: str, command: Sequence[str], log: Path) -> AsyncIterator[Child]:
    """Run a process whose output goes to `log`; it is gone when this ends, however it ends."""
    with log.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=log.parent,
            env={**_environment(), "TMPDIR": str(log.parent)},  # what it leaves goes with the rest
            start_new_session=True,  # Ctrl-C is for the demo, which ends its children in order
            preexec_fn=die_with_parent,  # and if the demo is killed, they end all the same
        )
    child = Child(name, process, log)
    try:
        yield child
    finally:
        await child.end()


def _environment() -> dict[str, str]:
    """Return the environment without settings of a sidecar that is not this one."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RMV_")}
