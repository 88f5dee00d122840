"""Worker processes: started, restarted when they die, ended together."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from sidecar.runtime.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PR_SET_PDEATHSIG: Final = 1
FIRST_BACKOFF_S: Final = 0.1
MAX_BACKOFF_S: Final = 5.0
HEALTHY_S: Final = 10.0  # a worker that lived this long starts the backoff anew
CANNOT_BEGIN: Final = 1  # exit status of a worker that has said why
KILL_GRACE_S: Final = 5.0  # past the drain time, before SIGKILL

_log = logging.getLogger("sidecar.processes")
# Looked up before any fork: between fork and exec little is safe.
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def allow_files(wanted: int) -> int:
    """Raise this process's limit of open files towards `wanted`; return what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    return max(soft, allowed)


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to end this process when its parent dies (Linux; elsewhere nothing).

    Fit to be called between fork and exec. `parent` is the pid that it should have: a process
    whose parent has died already ends here.
    """
    if _prctl is None:
        return
    if _prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if parent is not None and os.getppid() != parent:
        os._exit(1)


class Workers:
    """A fixed number of worker processes, each started again when it dies.

    One that cannot even begin is not: what keeps it from it is a setting, and will not go away.
    Then `is_hopeless` is true, and `on_hopeless` is called once.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environments: Sequence[Mapping[str, str]],
        on_hopeless: Callable[[], None],
    ) -> None:
        """Run `argv` once with each environment."""
        self.is_hopeless = False
        self._argv = argv
        self._environments = environments
        self._on_hopeless = on_hopeless
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Start every worker, each with a task that keeps it alive."""
        for number in range(len(self._environments)):
            self._keepers.append(spawn(self._keep(number), name=f"worker {number}"))

    async def stop(self, drain_s: float) -> None:
        """End every worker: SIGTERM, and SIGKILL for those that outlive their drain time."""
        self._stopping.set()
        self._signal_all(signal.SIGTERM)
        _, late = await asyncio.wait(self._keepers, timeout=drain_s + KILL_GRACE_S)
        if late:
            _log.error("workers killed: they did not drain", extra={"workers": len(late)})
            self.kill()
            await asyncio.wait(late)

    def kill(self) -> None:
        """End every worker now, whatever it has in hand; `stop` returns when they are gone."""
        self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            _signal(process, number)

    async def _keep(self, number: int) -> None:
        """Run one worker, and again whenever it ends unasked."""
        clock = asyncio.get_running_loop().time
        backoff_s = FIRST_BACKOFF_S
        is_first = True
        while not self._stopping.is_set():
            began_s = clock()
            status = await self._run(number)
            if self._stopping.is_set():
                return
            is_healthy = clock() - began_s > HEALTHY_S
            if is_first and not is_healthy and status == CANNOT_BEGIN:
                self._give_up()
                return
            is_first = False
            backoff_s = FIRST_BACKOFF_S if is_healthy else min(backoff_s * 2, MAX_BACKOFF_S)
            _log.error("worker died", extra={"worker": number, "status": status})
            await self._pause(backoff_s)

    async def _run(self, number: int) -> int:
        """Run one worker to its end and return its exit status, -N when signal N ended it."""
        process = await asyncio.create_subprocess_exec(
            *self._argv,
            env={**os.environ, **self._environments[number]},
            start_new_session=True,  # Ctrl-C at a terminal is for the control process alone
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
        self._processes[number] = process
        if self._stopping.is_set():  # the signal to all came while this one was being started
            _signal(process, signal.SIGTERM)
        try:
            return await process.wait()
        finally:
            del self._processes[number]

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _give_up(self) -> None:
        if not self.is_hopeless:
            self.is_hopeless = True
            self._on_hopeless()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        process.send_signal(number)
