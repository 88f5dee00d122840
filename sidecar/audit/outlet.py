"""One sink and the chain that it gets: bounded, in order, and written again until it is taken."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.audit.entry import encode, event
from sidecar.errors import AuditUnwritableError
from sidecar.model.audit import Kind
from sidecar.runtime import faults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.audit.chain import Chain
    from sidecar.model.audit import AuditSettings
    from sidecar.model.identity import JSON
    from sidecar.runtime.clock import Clock
    from sidecar.telemetry.metrics import Metrics

BATCH: Final = 256  # entries; what a sink may write twice when it was not told that it had

_log = logging.getLogger("sidecar.audit")


class Sink(Protocol):
    """Where lines are kept."""

    name: str
    """`files` or `stream`."""

    async def append(self, lines: Sequence[bytes]) -> None:
        """Keep lines, at most `BATCH` of them, in this order.

        Raises:
            AuditUnwritableError: they may not be kept, or some of them; the same come again.
        """

    async def settle(self) -> None:
        """Make what was kept last, as far as that is due; called when there is nothing to keep.

        Raises:
            AuditUnwritableError: that failed.
        """

    async def close(self) -> None:
        """Let go of everything."""


class Outlet:
    """The way of events into one sink.

    `put` never waits: beyond so many as the settings allow, events are lost, counted, and told of
    by an entry of their own in the place where they would be.
    """

    def __init__(
        self,
        sink: Sink,
        chain: Chain,
        settings: AuditSettings,
        *,
        clock: Clock,
        metrics: Metrics,
        sign: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.is_failing = False
        """Whether the sink did not take what it was given last."""
        self._sink = sink
        self._chain = chain
        self._limit = settings.buffer_entries
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._sign = sign
        self._waiting = deque([self._tell(Kind.BEGIN)])
        self._unwritten: list[bytes] = []  # linked already: these and no others come next
        self._lost = 0
        self._lost_since_s = 0.0
        self._signed_seq = 0
        self._signed_s = clock.monotonic_s()

    @property
    def is_stuck(self) -> bool:
        """Return whether what is put now might never be kept."""
        return self.is_failing or len(self._waiting) >= self._limit

    def put(self, events: Sequence[bytes]) -> None:
        """Take encoded events."""
        room = max(0, self._limit - len(self._waiting))
        if self._lost and room:
            self._waiting.append(self._tell_lost())
        self._waiting.extend(events[:room] if room < len(events) else events)
        if room < len(events):
            self.lose(len(events) - room, "failing" if self.is_failing else "slow")

    async def flush(self) -> bool:
        """Write what waits; return whether the sink has taken all of it."""
        try:
            while self._unwritten or self._is_due():
                if not self._unwritten:
                    self._link()
                await self._sink.append(self._unwritten)
                self._count("rmv_audit_entries_total", len(self._unwritten))
                self._unwritten = []
            await self._sink.settle()
        except AuditUnwritableError as error:
            self._note_failure(str(error))
            return False
        except Exception as error:  # noqa: BLE001 -- nobody knows whether it was written
            self._note_failure(faults.note("audit", error))
            return False
        self._note_success()
        return True

    async def end(self) -> None:
        """Write what waits, end the chain, and let go; what cannot be written is lost."""
        if await self.flush():
            last = self._tell(Kind.END)
            self._unwritten = [self._chain.link(last, self._sign, is_last=True)]
            await self.flush()
        if left := len(self._waiting) + len(self._unwritten):
            self._count("rmv_audit_lost_total", left, "cause", "end")
            _log.error("audit entries lost", extra={"sink": self._sink.name, "entries": left})
        await self._sink.close()

    def _is_due(self) -> bool:
        return bool(self._waiting or self._lost) or self._is_checkpoint_late()

    def _is_checkpoint_late(self) -> bool:
        age_s = self._clock.monotonic_s() - self._signed_s
        return self._sign is not None and age_s >= self._settings.checkpoint_s

    def _link(self) -> None:
        """Make the next lines for the sink: entries, and the checkpoint if one is due.

        One by one: what is linked, and nothing else, is there to be written, should the next fail.
        """
        waiting, chain = self._waiting, self._chain
        if not waiting and self._lost:
            waiting.append(self._tell_lost())
        lines = self._unwritten
        if not chain.seq:
            lines.append(self._sign_next(waiting[0]))
            waiting.popleft()
            return
        room = BATCH - 1 if self._sign is None else min(BATCH - 1, self._left_to_checkpoint())
        for _ in range(min(len(waiting), room)):
            lines.append(chain.link(waiting[0]))
            waiting.popleft()
        if self._is_checkpoint_late() or (self._sign and not self._left_to_checkpoint()):
            lines.append(self._sign_next(self._tell(Kind.CHECKPOINT)))

    def _left_to_checkpoint(self) -> int:
        """Return how many entries there may be until the next has to be a checkpoint."""
        return self._settings.checkpoint_entries - 1 - (self._chain.seq - self._signed_seq)

    def _sign_next(self, event: bytes) -> bytes:
        line = self._chain.link(event, self._sign)
        self._signed_seq, self._signed_s = self._chain.seq, self._clock.monotonic_s()
        return line

    def _tell(self, kind: Kind) -> bytes:
        """Return the event of one's own, with what is promised of checkpoints."""
        facts: dict[str, JSON] = {}
        if self._sign is not None:
            facts["every_entries"] = self._settings.checkpoint_entries
            facts["every_s"] = self._settings.checkpoint_s
        return encode(event(kind, self._clock.now_s(), facts))

    def lose(self, number: int, cause: str) -> None:
        """Tell, in the place where they would be, of so many events that are lost."""
        self._lost_since_s = self._lost_since_s if self._lost else self._clock.now_s()
        self._lost += number
        self._count("rmv_audit_lost_total", number, "cause", cause)

    def _tell_lost(self) -> bytes:
        facts: dict[str, JSON] = {"entries": self._lost, "since_s": self._lost_since_s}
        self._lost = 0
        return encode(event(Kind.LOST, self._clock.now_s(), facts))

    def _note_failure(self, reason: str) -> None:
        if not self.is_failing:  # once: it is tried again all the time
            _log.error("audit cannot be written", extra={"sink": self._sink.name, "reason": reason})
        self.is_failing = True
        self._count("rmv_audit_write_errors_total", 1)

    def _note_success(self) -> None:
        if self.is_failing:
            _log.warning("audit is written again", extra={"sink": self._sink.name})
        self.is_failing = False

    def _count(self, name: str, number: int, *labels: str) -> None:
        self._metrics.events[name, "sink", self._sink.name, *labels] += number
