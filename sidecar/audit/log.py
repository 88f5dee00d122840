"""What a process tells audit: taken at once, encoded and hashed in batches, written in a task."""

from __future__ import annotations

import asyncio
import os
import platform
import re
from typing import TYPE_CHECKING, Final

from sidecar.audit.chain import Chain
from sidecar.audit.entry import Event, encode, event
from sidecar.audit.outlet import BATCH, Outlet
from sidecar.model.audit import Kind, OnFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.audit.outlet import Sink
    from sidecar.model.audit import AuditSettings
    from sidecar.model.identity import JSON
    from sidecar.runtime.clock import Clock
    from sidecar.runtime.ed25519 import PrivateKey
    from sidecar.telemetry.metrics import Metrics

FLUSH_S: Final = 0.1
RETRY_S: Final = 0.5  # after a sink has failed
_UNPLAIN: Final = re.compile(r"[^A-Za-z0-9._-]+")


def writer_name(role: str) -> str:
    """Return a name that no writer ever had: role, host, process and 48 random bits."""
    host = _UNPLAIN.sub("-", platform.node())[:64]
    return f"{role}-{host}-{os.getpid()}-{os.urandom(6).hex()}"


class AuditLog:
    """The audit of one process; without sinks it is off and everything here does nothing.

    `note` and `add` never wait. `on_refusing` is called when requests have to be refused, as no
    sink takes anything and the settings say `fail-closed`, and when they no longer have to.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        settings: AuditSettings,
        *,
        role: str,
        clock: Clock,
        metrics: Metrics,
        key: PrivateKey | None = None,
    ) -> None:
        self.is_on = bool(sinks)
        self.is_refusing = False
        self.on_refusing: Callable[[bool], None] | None = None
        self._clock = clock
        self._events: list[Event] = []
        self._is_closed_on_failure = settings.on_failure is OnFailure.CLOSED
        sign = None if key is None else key.sign
        self._outlets = [
            Outlet(
                sink, Chain(writer_name(role)), settings, clock=clock, metrics=metrics, sign=sign
            )
            for sink in sinks
        ]

    def note(self, kind: str, **facts: JSON) -> None:
        """Tell of what happened now; `kind` is a value of `Kind`.

        Facts with the name of a member of `Event` (`model`, `tenant`, `actor`, `reason`...) are
        that member and must be of its type; the others stand in its `facts`.
        """
        if self.is_on:
            self.add(event(Kind(kind), self._clock.now_s(), facts))

    def add(self, one: Event) -> None:
        """Take an event, with audit on."""
        self._events.append(one)
        if len(self._events) >= BATCH:
            self._hand_on()

    async def run(self) -> None:
        """Write what comes until cancelled."""
        await asyncio.gather(*(self._keep_writing(outlet) for outlet in self._outlets))

    async def close(self) -> None:
        """End the chains, once `run` has ended; what cannot be written now is lost."""
        self._hand_on()
        for outlet in self._outlets:
            await outlet.end()

    async def _keep_writing(self, outlet: Outlet) -> None:
        while True:
            self._hand_on()
            is_written = await outlet.flush()
            self._look()
            await asyncio.sleep(FLUSH_S if is_written else RETRY_S)

    def _hand_on(self) -> None:
        """Encode what has come, for each outlet the same bytes."""
        if self._events:
            events, self._events = self._events, []
            bodies = [encode(one) for one in events]
            for outlet in self._outlets:
                outlet.put(bodies)

    def _look(self) -> None:
        """Note whether requests have to be refused."""
        is_stuck = self._is_closed_on_failure and all(one.is_stuck for one in self._outlets)
        if is_stuck is not self.is_refusing:
            self.is_refusing = is_stuck
            if self.on_refusing is not None:
                self.on_refusing(is_stuck)
