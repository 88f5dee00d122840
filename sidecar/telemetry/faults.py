"""Errors that nobody foresaw, in what is done for shadow tests: counted, told of, outlived."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.telemetry.metrics import Metrics

EVERY_S: Final = 60.0  # between two traces of one part: its next work may well fail the same
FAULTS: Final = "rmv_shadow_faults_total"
_log = logging.getLogger("sidecar.shadow")


class Faults:
    """The faults of one part of what shadow tests need."""

    def __init__(self, part: str, metrics: Metrics, monotonic_s: Callable[[], float]) -> None:
        self._part = part
        self._metrics = metrics
        self._monotonic_s = monotonic_s
        self._due_s = float("-inf")
        self._untold = 0

    def note(self, error: Exception) -> str:
        """Count a fault, log one in a minute with its trace, and return what to call it."""
        self._metrics.count(FAULTS, "part", self._part)
        self._untold += 1
        now_s = self._monotonic_s()
        if now_s >= self._due_s:
            self._due_s = now_s + EVERY_S
            extra = {"part": self._part, "faults": self._untold}
            _log.error("shadow tests have a fault", extra=extra, exc_info=error)
            self._untold = 0
        return f"a fault of the sidecar: {type(error).__name__}"
