"""Fair shares of the event loop for connections with more work than one turn should hold."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from sidecar.runtime import faults
from sidecar.runtime.inbox import Inbox
from sidecar.runtime.outbox import Outbox


class Worker(Protocol):
    """Who has work left."""

    def on_turn(self) -> None:
        """Do a part of it; ask for another turn if some is left."""
        ...

    def on_fault(self) -> None:
        """Learn that `on_turn` has failed, which is noted already; it raises nothing."""
        ...


class Turns:
    """A line in which each waits for its turn: one a cycle of the loop, sockets in between.

    A read may hold tens of thousands of chunks or requests. Whoever sends them waits for himself,
    and nobody else for him, however many of his kind there are. What connections share besides:
    `outbox` for small writes, `inbox` for large reads.
    """

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.outbox = Outbox()
        self._waiting: deque[Worker] = deque()

    def ask(self, worker: Worker) -> None:
        """Line up for one turn, in a running loop."""
        self._waiting.append(worker)
        if len(self._waiting) == 1:
            self._schedule()

    def _schedule(self) -> None:
        asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        worker = self._waiting[0]
        try:
            worker.on_turn()
        except Exception as error:  # noqa: BLE001 -- the others in line have no part in it
            faults.note("turn", error)
            worker.on_fault()
        finally:
            self._waiting.popleft()
            if self._waiting:
                self._schedule()
