"""How much of audit those may fill who have shown no identity: anybody who reaches the listener.

Files and stream keep so many entries, and drop the oldest. So what strangers are denied is told one
by one so often a minute, and counted past that: no flood of theirs drives a pin or a kill out fast.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from sidecar.audit.entry import event
from sidecar.model.audit import Kind

if TYPE_CHECKING:
    from sidecar.audit.entry import Event
    from sidecar.model.identity import JSON
    from sidecar.runtime.clock import Clock
    from sidecar.telemetry.metrics import Metrics

WINDOW_S: Final = 60.0


class Strangers:
    """Denials of a process to strangers: at most `per_minute` are told, and one sum of the others.

    A window begins with the first denial after the one before was summed up.
    """

    def __init__(self, per_minute: int, *, clock: Clock, metrics: Metrics) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._metrics = metrics
        self._left = 0
        self._ends_s = clock.monotonic_s()
        self._counts: Counter[str] = Counter()  # by code, of which there are few
        self._since_s = 0.0

    def admit(self, code: str) -> bool:
        """Return whether a denial with this code is to be told; else it is counted."""
        if not self._counts and self._is_over():
            self._ends_s = self._clock.monotonic_s() + WINDOW_S
            self._left = self._per_minute
        if self._left:
            self._left -= 1
            return True
        if not self._counts:
            self._since_s = self._clock.now_s()
        self._counts[code] += 1
        self._metrics.count("rmv_audit_denials_summed_total", "code", code)
        return False

    def sum_up(self, *, is_last: bool = False) -> Event | None:
        """Return what tells of those that were counted, once their window or all is over."""
        if not self._counts or not (is_last or self._is_over()):
            return None
        counts, self._counts = self._counts, Counter()
        facts: dict[str, JSON] = {
            "requests": counts.total(),
            "codes": {**counts},
            "since_s": self._since_s,
        }
        return event(Kind.DENIED, self._clock.now_s(), facts)

    def _is_over(self) -> bool:
        return self._clock.monotonic_s() >= self._ends_s
