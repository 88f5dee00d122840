"""A clock that stands still until a test moves it."""

from __future__ import annotations


class HandClock:
    """A `Clock` set by hand."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self._now_s = now_s
        self._passed_s = 0.0

    def now_s(self) -> float:
        """Return seconds since the epoch."""
        return self._now_s + self._passed_s

    def monotonic_s(self) -> float:
        """Return seconds since an arbitrary start."""
        return 1_000.0 + self._passed_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._passed_s += seconds
