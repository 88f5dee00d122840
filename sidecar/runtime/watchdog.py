"""Tells when an event loop stands still, and what it stands in."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Final

from sidecar.runtime import faults

if TYPE_CHECKING:
    from collections.abc import Callable

BEAT_S: Final = 0.05
STALL_S: Final = 0.1  # every client of the worker waits so long, the fastest model's too
FRAMES: Final = 3  # of the stack, innermost last
_log = logging.getLogger("sidecar.watchdog")


class Watchdog:
    """Beats in the running loop, and looks from a thread whether it still does.

    The loop calls `on_stall` with the seconds of each stall that it is out of; the thread logs
    each one once, with where the loop's thread is, while it is still in it.
    """

    def __init__(self, on_stall: Callable[[float], None]) -> None:
        self._on_stall = on_stall
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._beat_s = time.monotonic()
        self._timer = self._loop.call_later(BEAT_S, self._beat)
        self._is_over = threading.Event()
        threading.Thread(target=self._look, name="watchdog", daemon=True).start()

    def close(self) -> None:
        """Beat and look no more."""
        self._timer.cancel()
        self._is_over.set()

    def _beat(self) -> None:
        now_s = time.monotonic()
        stall_s = now_s - self._beat_s - BEAT_S
        self._beat_s = now_s
        self._timer = self._loop.call_later(BEAT_S, self._beat)
        if stall_s > STALL_S:
            self._on_stall(stall_s)

    def _look(self) -> None:
        told_s = 0.0  # the beat after which a stall was logged
        while not self._is_over.wait(BEAT_S / 2):
            beat_s = self._beat_s
            if beat_s != told_s and time.monotonic() - beat_s - BEAT_S > STALL_S:
                told_s = beat_s
                self._tell()

    def _tell(self) -> None:
        try:
            where = self._where()
        except Exception as error:  # noqa: BLE001 -- the next stall is to be told as well
            where = faults.note("watchdog", error)
        _log.warning("event loop stalled", extra={"where": where})

    def _where(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 -- its one use
        if frame is None:
            return ""
        stack = traceback.extract_stack(frame)[-FRAMES:]
        return " > ".join(f"{one.filename}:{one.lineno} {one.name}" for one in stack)
