"""What a process tells audit: taken at once, encoded and hashed in batches, written in a task."""

from __future__ import annotations

import asyncio
import os
import platform
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sidecar.audit.chain import Chain
from sidecar.audit.entry import Event, encode, event
from sidecar.audit.outlet import BATCH, Outlet
from sidecar.audit.strangers import Strangers
from sidecar.model.audit import Kind, OnFailure
from sidecar.runtime import faults
from sidecar.runtime.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
        self._ending = asyncio.Event()
        self._writing: list[asyncio.Task[None]] = []
        self._closes_on_failure = self.is_on and settings.on_failure is OnFailure.CLOSED
        self.strangers = Strangers(settings.strangers_per_minute, clock=clock, metrics=metrics)
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

    async def start(self) -> None:
        """Begin to write; whether that is possible is known when this returns."""
        for outlet in self._outlets:
            await outlet.flush()
            self._writing.append(spawn(self._keep_writing(outlet), name="audit"))
        self._look()

    async def close(self) -> None:
        """End the chains; what cannot be written now is lost."""
        self._ending.set()
        if self._writing:  # not cancelled: a thread of theirs would go on
            await asyncio.wait(self._writing)
        self._sum_up(is_last=True)
        self._hand_on()
        for outlet in self._outlets:
            await outlet.end()

    async def _keep_writing(self, outlet: Outlet) -> None:
        while not self._ending.is_set():
            try:
                self._sum_up()
                self._hand_on()
                is_written = await outlet.flush()
                self._look()
            except Exception as error:  # noqa: BLE001 -- what is told later is still to be written
                faults.note("audit", error)
                is_written = False
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S if is_written else RETRY_S):
                    await self._ending.wait()

    def _sum_up(self, *, is_last: bool = False) -> None:
        """Take the sum of the denials that were counted only, if it is due."""
        if (counted := self.strangers.sum_up(is_last=is_last)) is not None:
            self._events.append(counted)

    def _hand_on(self) -> None:
        """Encode what has come, for each outlet the same bytes."""
        if self._events:
            events, self._events = self._events, []
            bodies = list(self._encoded(events))
            for outlet in self._outlets:
                outlet.put(bodies)
                if len(bodies) < len(events):
                    outlet.lose(len(events) - len(bodies), "fault")
            self._look()

    def _encoded(self, events: list[Event]) -> Iterator[bytes]:
        for one in events:
            try:
                yield encode(one)
            except Exception as error:  # noqa: BLE001 -- the others have no part in it
                faults.note("audit", error, kind=one.kind)

    def _look(self) -> None:
        """Note whether requests have to be refused."""
        is_stuck = self._closes_on_failure and all(one.is_stuck for one in self._outlets)
        if is_stuck is not self.is_refusing:
            self.is_refusing = is_stuck
            if self.on_refusing is not None:
                self.on_refusing(is_stuck)
