"""Errors that nobody foresaw: counted by the part that met them, told of, and outlived.

Whatever runs for long, or is called by the event loop, has a guard at its outermost place that
notes such an error here and says what becomes of the work in hand. What no guard has met is noted
by `outlive`, for callbacks, and by `runtime.tasks`. A process has one `Faults`, as it has one log.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

EVERY_S: Final = 60.0  # between two traces of one kind: the next turn may well fail the same
MAX_KINDS: Final = 256  # remembered; past that each is news once more
FAULTS: Final = "rmv_faults_total"
_log = logging.getLogger("sidecar.faults")

Kind = tuple[str, ...]
"""The part, the type of the error, and the line of the source that raised it."""


class Faults:
    """The faults of one process; `counted` are how many, by part."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self.counted: Counter[str] = Counter()
        self._monotonic_s = monotonic_s
        self._told_s: dict[Kind, float] = {}
        self._untold: Counter[Kind] = Counter()

    def note(self, part: str, error: BaseException, **facts: str) -> str:
        """Count a fault, log one of its kind in a minute with its trace; return what to call it."""
        self.counted[part] += 1
        kind = part, type(error).__name__, _line_of(error)
        now_s = self._monotonic_s()
        self._untold[kind] += 1
        if now_s - self._told_s.get(kind, float("-inf")) >= EVERY_S:
            extra = {"part": part, "faults": self._untold.pop(kind), **facts}
            if len(self._told_s) >= MAX_KINDS:
                self._told_s.clear()
                self._untold.clear()
            self._told_s[kind] = now_s
            _log.error("a fault of the sidecar", extra=extra, exc_info=error)
        return f"a fault of the sidecar: {type(error).__name__}"


PROCESS = Faults()
"""Those of this process."""


def note(part: str, error: BaseException, **facts: str) -> str:
    """Note a fault of this process, as `Faults.note` does; `facts` are logged with it."""
    return PROCESS.note(part, error, **facts)


def outlive(loop: asyncio.AbstractEventLoop) -> None:
    """Note the errors of callbacks of `loop` that no guard has met; it closes their transports."""
    loop.set_exception_handler(_note_callback)


def _note_callback(loop: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
    error = context.get("exception")
    if isinstance(error, Exception) and not isinstance(error, OSError):
        note("callback", error, callback=str(context.get("message", "")))
    else:
        loop.default_exception_handler(dict(context))


def _line_of(error: BaseException) -> str:
    """Return where an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
