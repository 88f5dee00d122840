"""Being told to end."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import Final

RETIRE: Final = signal.SIGUSR2
"""Tells a worker that it alone ends: another one accepts on its socket already."""


class Ending:
    """SIGTERM, SIGINT and the signals `others`, from the moment this is made in the main task.

    A process that has not begun its work has nothing to finish: until `asked` is first awaited,
    a signal cancels the main task.
    """

    def __init__(self, *others: signal.Signals) -> None:
        self.is_asked = False
        self._main = asyncio.current_task()
        self._requests: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._is_awaited = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, *others):
            loop.add_signal_handler(number, partial(self.ask, number))

    def ask(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Do what a signal does."""
        self.is_asked = True
        if self._is_awaited:
            self._requests.put_nowait(number)
        elif self._main is not None:
            self._main.cancel()

    async def asked(self) -> signal.Signals:
        """Wait for a signal and return it; each one ends one wait."""
        self._is_awaited = True
        return await self._requests.get()
