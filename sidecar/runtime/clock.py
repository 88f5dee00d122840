"""The one place that reads the machine's clocks; everything else takes a `Clock`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time, so that a test can hold both still."""

    def now_s(self) -> float:
        """Return seconds since the epoch: for token expiry and log lines; it may jump."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds since an arbitrary start: for durations; it never goes back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_s(self) -> float:
        """Return seconds since the epoch."""
        return time.time()  # noqa: TID251 -- the one permitted place

    monotonic_s = staticmethod(time.monotonic)  # read several times for each request
