"""Worker processes: started, restarted when they die, ended together."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from sidecar.runtime.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PR_SET_PDEATHSIG: Final = 1
FIRST_BACKOFF_S: Final = 0.1
MAX_BACKOFF_S: Final = 5.0
HEALTHY_S: Final = 10.0  # a worker that lived this long starts the backoff anew
KILL_GRACE_S: Final = 5.0  # past the drain time, before SIGKILL

_log = logging.getLogger("sidecar.processes")


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies (Linux; elsewhere nothing)."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


class Workers:
    """A fixed number of worker processes."""

    def __init__(self, argv: Sequence[str], environments: Sequence[Mapping[str, str]]) -> None:
        """Run `argv` once with each environment."""
        self._argv = argv
        self._environments = environments
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._is_stopping = False

    def start(self) -> None:
        """Start every worker, each with a task that keeps it alive."""
        for number in range(len(self._environments)):
            self._keepers.append(spawn(self._keep(number), name=f"worker {number}"))

    async def stop(self, drain_s: float) -> None:
        """End every worker: SIGTERM, and SIGKILL for those that outlive their drain time."""
        self._is_stopping = True
        for process in self._processes.values():
            _signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(drain_s + KILL_GRACE_S):
                await asyncio.gather(*self._keepers)
        except TimeoutError:
            for process in self._processes.values():
                _log.error("worker killed: it did not drain", extra={"pid": process.pid})
                _signal(process, signal.SIGKILL)
            await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _keep(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        while not self._is_stopping:
            began_s = loop.time()
            process = await asyncio.create_subprocess_exec(
                *self._argv, env={**os.environ, **self._environments[number]}
            )
            self._processes[number] = process
            if self._is_stopping:  # the signal to all came while this one was being started
                _signal(process, signal.SIGTERM)
            status = await process.wait()
            del self._processes[number]
            if self._is_stopping:
                return
            backoff_s = FIRST_BACKOFF_S if loop.time() - began_s > HEALTHY_S else backoff_s * 2
            _log.error(
                "worker died", extra={"worker": number, "pid": process.pid, "status": status}
            )
            await asyncio.sleep(min(backoff_s, MAX_BACKOFF_S))


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        process.send_signal(number)
