"""How many requests may be with a version at a time; more wait in line, and more are refused."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from sidecar.upstream.budget import RetryBudget

if TYPE_CHECKING:
    from collections.abc import Callable

UNLIMITED: Final = 1 << 60  # a number, so that entering takes one comparison


class Turn:
    """A request that waits until another one leaves; one of the two is called, once."""

    def __init__(
        self, on_admitted: Callable[[], None], on_late: Callable[[], None], deadline_s: float
    ) -> None:
        self.on_admitted = on_admitted
        self.on_late = on_late
        self.deadline_s = deadline_s


class Breaker:
    """Requests `enter` before they ask an endpoint and `leave` when they have ended.

    Who finds no room may wait in line.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self.budget = RetryBudget()
        self._max_in_flight = UNLIMITED
        self._max_waiting = 0
        self._waiting: OrderedDict[Turn, None] = OrderedDict()
        self._is_admitting = False
        self._swept_s = 0.0

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return len(self._waiting)

    def limit(self, max_in_flight: int | None, max_waiting: int | None) -> None:
        """Let so many in and so many wait: by default twice as many as are let in."""
        self._max_in_flight = UNLIMITED if max_in_flight is None else max_in_flight
        self._max_waiting = 2 * self._max_in_flight if max_waiting is None else max_waiting
        self._admit()

    def enter(self) -> bool:
        """Count a request in, unless there is no room: then it may `wait`."""
        if self.in_flight >= self._max_in_flight:
            return False
        self.in_flight += 1
        self.budget.requests += 1
        return True

    def wait(self, turn: Turn) -> bool:
        """Stand in line; return whether there was room in it. An admitted turn has entered."""
        if len(self._waiting) >= self._max_waiting:
            return False
        self._waiting[turn] = None
        return True

    def withdraw(self, turn: Turn) -> None:
        """Leave the line."""
        self._waiting.pop(turn, None)

    def leave(self) -> None:
        """Count a request out, and let in who waited longest."""
        self.in_flight -= 1
        if self._waiting:
            self._admit()

    def sweep(self, now_s: float) -> None:
        """Turn away who has waited too long."""
        if self._swept_s:
            self.budget.sweep(now_s - self._swept_s)
        self._swept_s = now_s
        for turn in [turn for turn in self._waiting if turn.deadline_s <= now_s]:
            if turn in self._waiting:  # the one before may have made room
                del self._waiting[turn]
                turn.on_late()

    def _admit(self) -> None:
        if self._is_admitting:  # who is let in may leave at once: the loop below goes on
            return
        self._is_admitting = True
        try:
            while self._waiting and self.in_flight < self._max_in_flight:
                turn, _ = self._waiting.popitem(last=False)
                self.in_flight += 1
                self.budget.requests += 1
                turn.on_admitted()
        finally:
            self._is_admitting = False
