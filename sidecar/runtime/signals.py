"""Being told to end."""

from __future__ import annotations

import asyncio
import signal


class Ending:
    """SIGTERM and SIGINT, from the moment this is made in the main task.

    A process that has not begun its work has nothing to finish: until `asked` is first awaited,
    a signal cancels the main task.
    """

    def __init__(self) -> None:
        self._main = asyncio.current_task()
        self._requests = asyncio.Semaphore(0)
        self._is_awaited = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask)

    def ask(self) -> None:
        """Do what a signal does."""
        if self._is_awaited:
            self._requests.release()
        elif self._main is not None:
            self._main.cancel()

    async def asked(self) -> None:
        """Wait for a signal; each one ends one wait."""
        self._is_awaited = True
        await self._requests.acquire()
