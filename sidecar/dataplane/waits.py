"""Requests whose token names a key that is being looked for: held for a moment, not refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from sidecar.telemetry.metrics import Metrics

KEY_WAIT_S: Final = 2.0  # as long as a fetch may take
MAX_WAITING: Final = 1_000  # of one worker; whoever sends made-up tokens holds no more than that
AT_A_TIME: Final = 20  # decided in one turn of the loop, at up to 0.2 ms each


class Waiter(Protocol):
    """Who waits."""

    def on_keys(self) -> None:
        """Go on: what was waited for has come, or will not come in time."""
        ...


class KeyWaits:
    """Who waits for keys of which issuer, each for `KEY_WAIT_S` at most."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting: dict[Waiter, tuple[str, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, waiter: Waiter, issuer: str) -> bool:
        """Have somebody wait, unless too many do already."""
        if len(self._waiting) >= MAX_WAITING:
            self._count("refused")
            return False
        timer = asyncio.get_running_loop().call_later(KEY_WAIT_S, self._on_late, waiter)
        self._waiting[waiter] = issuer, timer
        return True

    def leave(self, waiter: Waiter) -> None:
        """Have somebody wait no more."""
        if waiter in self._waiting:
            self._count("left")
            self._let_go(waiter)

    def settle(self, issuers: Collection[str]) -> None:
        """Let those go on that wait for keys of these issuers."""
        due = [waiter for waiter, (issuer, _) in self._waiting.items() if issuer in issuers]
        self._go_on(due)

    def _go_on(self, due: list[Waiter]) -> None:
        for waiter in due[:AT_A_TIME]:
            if waiter in self._waiting:
                self._count("settled")
                self._let_go(waiter)
                waiter.on_keys()
        if rest := due[AT_A_TIME:]:
            asyncio.get_running_loop().call_soon(self._go_on, rest)

    def _on_late(self, waiter: Waiter) -> None:
        self._count("late")
        self._let_go(waiter)
        waiter.on_keys()

    def _let_go(self, waiter: Waiter) -> None:
        _, timer = self._waiting.pop(waiter)
        timer.cancel()

    def _count(self, outcome: str) -> None:
        self._metrics.count("rmv_key_waits_total", "outcome", outcome)
