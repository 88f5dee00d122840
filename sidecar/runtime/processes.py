"""Worker processes: started, restarted when they die, replaced one by one, ended together."""

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
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sidecar.runtime import faults
from sidecar.runtime.questions import Line
from sidecar.runtime.signals import RETIRE
from sidecar.runtime.sockets import ignore_new_clients, stop_listening
from sidecar.runtime.tasks import repeat, spawn, stop

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

PR_SET_PDEATHSIG: Final = 1
FIRST_BACKOFF_S: Final = 0.1
MAX_BACKOFF_S: Final = 5.0
HEALTHY_S: Final = 10.0  # a worker that lived this long starts the backoff anew
CANNOT_BEGIN: Final = 1  # exit status of a worker that has said why
FAULTY_S: Final = 30.0  # for workers whose place has met a fault, to finish what they have
KILL_GRACE_S: Final = 5.0  # past the drain time, before SIGKILL
BEAT_S: Final = 1.0  # between two questions whether a worker still answers
SUCCESSOR_POLL_S: Final = 0.05

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


class Crew(Protocol):
    """What the workers are: how each is started, and how it is known to be ready."""

    @property
    def argv(self) -> Sequence[str]:
        """The command of every worker."""

    def environment(self, listening: socket.socket, answering: socket.socket) -> Mapping[str, str]:
        """Return what is told to the worker that inherits these, to accept and to answer on."""

    def on_started(self, line: Line) -> None:
        """Learn that a worker was started, before it says anything."""

    async def is_ready(self, line: Line) -> bool:
        """Return whether the worker at the other end takes traffic."""

    async def answers(self, line: Line) -> bool:
        """Return whether a worker answers at all."""

    def on_gone(self, line: Line) -> None:
        """Learn that a worker has ended."""


class Patience(NamedTuple):
    """How long workers are waited for, in seconds."""

    drain_s: float
    start_s: float  # for a new one to get ready, before the old one is kept
    hang_s: float  # for one that answers no more

    @property
    def kill_s(self) -> float:
        """After how long one that was told to end is killed."""
        return self.drain_s + KILL_GRACE_S


class Worker:
    """One worker process, and the line on which it answers questions."""

    def __init__(self, process: asyncio.subprocess.Process, line: Line) -> None:
        self.process = process
        self.line = line
        self.is_gone = asyncio.Event()
        self.started_s = asyncio.get_running_loop().time()
        self._silent_since_s: float | None = None

    def silence_s(self, *, answers: bool, now_s: float) -> float:
        """Note whether it answers now; return for how long it has not."""
        if answers:
            self._silent_since_s = None
            return 0.0
        if self._silent_since_s is None:  # as of now: nobody may have asked for long
            self._silent_since_s = now_s
        return now_s - self._silent_since_s

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.process.returncode is None:
            self.process.send_signal(number)


class Workers:
    """A fixed number of places, and in each a worker process, started again when it dies.

    A place has one listening socket, which is open here too: what waits in its queue when a
    worker dies or is replaced is accepted by the next one. If that one cannot begin, the socket
    listens no more until one can: nobody waits for a place that may stay empty.

    A worker that cannot even begin is not started again: what keeps it from it is a setting, and
    will not go away. Then `is_hopeless` is true, and `on_hopeless` is called once.

    One that does not answer, or does not come to it, hangs: it is killed, and another one started.
    """

    def __init__(
        self,
        crew: Crew,
        sockets: Sequence[socket.socket],
        patience: Patience,
        on_hopeless: Callable[[], None],
    ) -> None:
        """Have a worker for each of `sockets`."""
        self.is_hopeless = False
        self._places = [Place(number, listening, crew) for number, listening in enumerate(sockets)]
        self._crew = crew
        self._patience = patience
        self._on_hopeless = on_hopeless
        self._keepers: list[asyncio.Task[None]] = []
        self._is_replacement_due = asyncio.Event()

    def present(self) -> list[Line]:
        """Return the line to the present worker of each place, or to the last one it had."""
        return [place.line for place in self._places]

    def excuses(self) -> list[str]:
        """Return why the last worker of each place could not begin; empty where one could."""
        return [place.excuse for place in self._places]

    def running(self) -> list[Line]:
        """Return the line to every worker, those that begin or retire included."""
        return [worker.line for place in self._places for worker in place.running]

    def start(self) -> None:
        """Start every worker, each with a task that keeps it alive."""
        for place in self._places:
            name = f"worker {place.number}"
            self._keepers.append(spawn(self._keep(place), name=name))
        self._replacer = spawn(repeat(self._replace_when_due, part="workers"), name="replacement")
        self._watcher = spawn(repeat(self._watch, part="workers"), name="heartbeats")

    def replace(self) -> None:
        """Replace every worker by a new one, one after another; asked meanwhile, once more."""
        self._is_replacement_due.set()

    async def stop(self) -> None:
        """End every worker: SIGTERM, and SIGKILL for those that outlive their drain time."""
        for place in self._places:
            place.end()
        await stop(self._replacer, self._watcher)
        places = [spawn(place.emptied(), name="emptied") for place in self._places]
        _, late = await asyncio.wait([*self._keepers, *places], timeout=self._patience.kill_s)
        if late:
            number = sum(len(place.running) for place in self._places)
            _log.error("workers killed: they did not drain", extra={"workers": number})
            self.kill()
            await asyncio.wait(late)

    def kill(self) -> None:
        """End every worker now, whatever it has in hand; `stop` returns when they are gone."""
        for place in self._places:
            place.signal_all(signal.SIGKILL)

    async def _keep(self, place: Place) -> None:
        if not await place.keep_whatever_happens() and not self.is_hopeless:
            self.is_hopeless = True
            self._on_hopeless()

    async def _replace_when_due(self) -> None:
        await self._is_replacement_due.wait()
        self._is_replacement_due.clear()
        _log.info("replacing workers")
        replaced = [await place.replace(self._patience) for place in self._places]
        if all(replaced):
            _log.info("workers replaced", extra={"workers": len(replaced)})
        else:
            extra = {"replaced": sum(replaced), "workers": len(replaced)}
            _log.error("not every worker was replaced", extra=extra)

    async def _watch(self) -> None:
        await asyncio.sleep(BEAT_S)
        workers = [worker for place in self._places for worker in place.running]
        await asyncio.gather(*map(self._look_at, workers))

    async def _look_at(self, worker: Worker) -> None:
        """Kill a worker that has not answered for too long; its place starts another one."""
        if not worker.line.has_begun:
            age_s = asyncio.get_running_loop().time() - worker.started_s
            if age_s >= self._patience.start_s + self._patience.hang_s:
                _log.error("worker killed: it does not begin", extra={"pid": worker.process.pid})
                worker.signal(signal.SIGKILL)
            return
        answers = await self._crew.answers(worker.line)
        now_s = asyncio.get_running_loop().time()
        if worker.silence_s(answers=answers, now_s=now_s) >= self._patience.hang_s:
            _log.error("worker killed: it does not answer", extra={"pid": worker.process.pid})
            worker.signal(signal.SIGKILL)


class Place:
    """One listening socket, and the worker that accepts on it."""

    def __init__(self, number: int, listening: socket.socket, crew: Crew) -> None:
        self.number = number
        self.line = self._nobody()
        self.excuse = ""  # why the last worker could not begin
        self.running: set[Worker] = set()
        self._listening = listening
        self._crew = crew
        self._started = 0
        self._is_first = True  # the worker that is to show that there can be one
        self._present: Worker | None = None
        self._is_ending = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    async def keep_whatever_happens(self) -> bool:
        """Do as `keep`; after a fault begin anew, with other workers than there are."""
        while True:
            try:
                return await self.keep()
            except Exception as error:  # noqa: BLE001 -- a place that nobody keeps stays empty
                faults.note("workers", error)
            for worker in self.running:
                worker.signal(RETIRE)
                spawn(_end_in_time(worker, FAULTY_S), name="retirement")
            await self._pause(MAX_BACKOFF_S)

    async def keep(self) -> bool:
        """Run a worker, and another whenever it ends unasked; False when it cannot begin."""
        clock = asyncio.get_running_loop().time
        backoff_s = FIRST_BACKOFF_S
        while not self._is_ending.is_set():
            began_s = clock()
            status = await self._run()
            if self._is_ending.is_set():
                break
            is_healthy = clock() - began_s > HEALTHY_S
            if self._is_first and not is_healthy and status == CANNOT_BEGIN:
                return False
            self._is_first = False
            backoff_s = FIRST_BACKOFF_S if is_healthy else min(backoff_s * 2, MAX_BACKOFF_S)
            _log.error("worker died", extra={"worker": self.number, "status": status})
            await self._pause(backoff_s)
        return True

    async def _run(self) -> int | None:
        """Start a worker, and wait until one is gone that none has replaced; return its status."""
        worker = await self._try_start()
        if worker is None:
            self.line = self._nobody()
            self._leave_vacant("it cannot be started")
            return CANNOT_BEGIN
        self._take_in(worker)
        former = await self._end_of_present()
        status = former.process.returncode
        self._present = None
        self.excuse = ""
        if not former.line.has_begun:
            self._leave_vacant(former.line.excuse or f"ended with status {status}")
        return status

    def _leave_vacant(self, excuse: str) -> None:
        """Have nobody wait here for a worker that may never begin."""
        self.excuse = excuse
        # Not before it is gone: of a worker that begins it would take the socket away.
        stop_listening(self._listening)

    async def _try_start(self) -> Worker | None:
        """Start a worker; None if there is no memory, process or file left for it just now."""
        try:
            return await self._start()
        except OSError as error:
            _log.error("worker not started", extra={"worker": self.number, "reason": str(error)})
            return None

    async def replace(self, patience: Patience) -> bool:
        """Put a new worker into the place of the present one, which retires within its drain time.

        False if the new one did not get ready, or if the present one ends meanwhile: that is
        started again in any case.
        """
        former = self._present
        if former is None or self._is_ending.is_set():
            return False
        successor = await self._try_start()
        if successor is None:
            return False
        is_ready = await self._becomes_ready(successor, patience.start_s)
        if not is_ready or self._present is not former:
            successor.signal(signal.SIGKILL)
            _log.error("worker not replaced", extra={"worker": self.number, "ready": is_ready})
            return False
        self._take_in(successor)
        former.signal(RETIRE)
        spawn(_end_in_time(former, patience.kill_s), name="retirement")
        return True

    def end(self) -> None:
        """Have no worker here from now on, and tell those that run to end."""
        self._is_ending.set()
        # Here, and not by a worker: one that ends for another cause is followed by the next.
        ignore_new_clients(self._listening)
        self._listening.close()  # else connections would go on queueing, and nobody come for them
        self.signal_all(signal.SIGTERM)

    def signal_all(self, number: signal.Signals) -> None:
        """Signal the present worker and those that retire."""
        for worker in self.running:
            worker.signal(number)

    async def emptied(self) -> None:
        """Wait until no worker runs here."""
        await self._is_empty.wait()

    def _nobody(self) -> Line:
        """Return the line of a place without a worker."""
        return Line(f"worker {self.number}")

    def _take_in(self, worker: Worker) -> None:
        self._present, self.line = worker, worker.line

    async def _start(self) -> Worker:
        line = Line(f"worker {self.number}.{self._started}")
        self._started += 1
        with await line.open() as answering:
            process = await asyncio.create_subprocess_exec(
                *self._crew.argv,
                env={**os.environ, **self._crew.environment(self._listening, answering)},
                pass_fds=(self._listening.fileno(), answering.fileno()),
                start_new_session=True,  # Ctrl-C at a terminal is for the control process alone
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        worker = Worker(process, line)
        self.running.add(worker)
        self._is_empty.clear()
        self._crew.on_started(line)
        spawn(self._reap(worker), name="reap")
        if self._is_ending.is_set():  # the signal to all came while this one was being started
            worker.signal(signal.SIGTERM)
        return worker

    async def _reap(self, worker: Worker) -> None:
        await worker.process.wait()
        await worker.line.ended()
        self.running.discard(worker)
        try:
            self._crew.on_gone(worker.line)
        except Exception as error:  # noqa: BLE001 -- its place waits to hear that it is gone
            faults.note("workers", error)
        worker.is_gone.set()
        if not self.running:
            self._is_empty.set()

    async def _end_of_present(self) -> Worker:
        """Wait until a worker is gone that none has replaced; return it."""
        while True:
            worker = self._present
            if worker is None:
                raise RuntimeError("nobody to wait for")
            await worker.is_gone.wait()
            if worker is self._present:
                return worker

    async def _becomes_ready(self, worker: Worker, within_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while worker.process.returncode is None:
                    if await self._crew.is_ready(worker.line):
                        return True
                    await asyncio.sleep(SUCCESSOR_POLL_S)
        return False

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_ending.wait()


async def _end_in_time(worker: Worker, seconds: float) -> None:
    """Kill a worker that has not ended by itself after so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await worker.process.wait()
            return
    _log.error("retired worker killed: it did not drain", extra={"pid": worker.process.pid})
    worker.signal(signal.SIGKILL)
