"""Pairs of answers, as the data plane hands them over: real ones, without the way there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from sidecar.controller.accounts import Accounts
from sidecar.controller.comparing import Comparer
from sidecar.dataplane.trial import Book, Captured, Memory, Trial, Trials
from sidecar.model.comparison import Comparison
from sidecar.telemetry.metrics import Metrics
from tests.policy.examples import caller, make_head
from tests.support.clock import HandClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model.identity import JSON
    from sidecar.model.request import RequestHead
    from sidecar.model.shadow import Pairs, Tally
    from sidecar.policy.snapshot import Snapshot

MEMORY: Final = 64 * 1024 * 1024
PLAIN: Final = Comparison()


class Bench:
    """A comparer on clocks that stand still, with a book to count in."""

    def __init__(self, share: float = 0.1, cpu_s: Callable[[], float] | None = None) -> None:
        self.clock = HandClock()
        self.metrics = Metrics()
        self.memory = Memory(MEMORY)
        self.accounts = Accounts()
        self.book = Book("tumor", "v2", "0123456789ab", self.clock.now_s())
        self.comparer = Comparer(
            self.accounts, self.metrics, share, self.clock.monotonic_s, cpu_s or (lambda: 0.0)
        )

    @property
    def tally(self) -> Tally:
        """All that has been counted."""
        return self.accounts.of(self.book).told(self.clock.now_s())

    @property
    def pairs(self) -> Pairs:
        """What the pairs with answers of v1 amount to."""
        return self.tally.pairs["v1"]

    def captured(self, said: JSON | bytes, status: int = 200, fields: str = "") -> Captured:
        """Return a whole answer."""
        body = said if isinstance(said, bytes) else msgspec.json.encode(said)
        kind = "" if isinstance(said, bytes) else "content-type: application/json\r\n"
        one = Captured(self.memory, MEMORY)
        assert self.memory.reserve(len(body))
        one._held = len(body)  # noqa: SLF001 -- as `take` does
        one.status, one.head = status, f"HTTP/1.1 {status} OK\r\n{kind}{fields}".encode()
        one.body += body
        one.asked_s, one.first_byte_at_s = 10.0, 10.25
        one.end(10.5)
        return one

    def trial(  # noqa: PLR0913 -- a pair has as many sides
        self,
        primary: JSON | bytes | Captured,
        shadow: JSON | bytes | Captured,
        *,
        control: JSON | bytes = None,
        comparison: Comparison = PLAIN,
        tenant: str = "acme",
        head: RequestHead | None = None,
        snapshot: Snapshot | None = None,
        request_body: bytes = b"",
    ) -> Trial:
        """Return a trial of which all is there; the book counts its copy."""
        mine = primary if isinstance(primary, Captured) else self.captured(primary)
        theirs = shadow if isinstance(shadow, Captured) else self.captured(shadow)
        made = head or make_head()
        made.at_s = self.clock.now_s()
        trial = Trial(
            self.book, comparison, mine, theirs, Trials(None), made, caller(tenant), snapshot
        )
        trial.serving = "v1"
        if control is not None:
            trial.control = self.captured(control)
        if request_body:
            trial.keep_body(request_body, self.memory)
        mine.release()  # as the exchange does that it was made for
        self.book.pending += 1
        self.book.mirror(0, tenant, made.at_s)
        return trial

    def counted(self, name: str, *labels: str) -> int:
        """Return a counter."""
        return self.metrics.events[name, *labels]
