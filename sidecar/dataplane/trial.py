"""What one worker counts of a shadow, and the pairs of answers that it has to compare.

Everything here is counted once and never taken back, so that sums over workers are exact at any
moment: a request is counted as eligible when it is known what becomes of it.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.model.shadow import (
    OTHER,
    PER_OCTAVE,
    Answer,
    Failure,
    Histogram,
    Ledger,
    Share,
    Skip,
    Uncompared,
)
from sidecar.wire.fields import value_of
from sidecar.wire.framing import LAST_CHUNK

if TYPE_CHECKING:
    from sidecar.model.comparison import Comparison
    from sidecar.model.identity import Identity
    from sidecar.model.request import RequestHead
    from sidecar.policy.snapshot import Snapshot
    from sidecar.upstream.contract import Response
    from sidecar.wire.pieces import Pieces

MAX_TENANTS: Final = 1_000  # counted apart; those that come later are one
MAX_DAYS: Final = 31  # whose prices are told: as long as the store keeps them
MAX_MARKS: Final = 4_096  # reads of a stream whose times are kept
MARK_BYTES: Final = 128  # what one takes: two numbers, a pair of them, its place in a list
DAY_S: Final = 86_400
_PER_E: Final = PER_OCTAVE / log(2)
_LAST_BUCKET: Final = 40 * PER_OCTAVE

# An enum member's value costs a descriptor call each time.
SKIP_METHOD: Final = Skip.METHOD.value
SKIP_SIZE: Final = Skip.SIZE.value
SKIP_MEMORY: Final = Skip.MEMORY.value
SKIP_QUEUE: Final = Skip.QUEUE.value
SKIP_LATE: Final = Skip.QUEUE_TIMEOUT.value
SKIP_DISABLED: Final = Skip.DISABLED.value
SKIP_COST: Final = Skip.COST.value
SKIP_DRAINING: Final = Skip.DRAINING.value
SKIP_ABORTED: Final = Skip.ABORTED.value
SKIP_POLICY: Final = Skip.POLICY.value
SKIP_FAULT: Final = Skip.FAULT.value
FAILED_CONNECT: Final = Failure.CONNECT.value
FAILED_LOST: Final = Failure.LOST.value
FAILED_TIMEOUT: Final = Failure.TIMEOUT.value
FAILED_SHUTDOWN: Final = Failure.SHUTDOWN.value
OFF: Final = Uncompared.OFF.value
TOO_LARGE: Final = Uncompared.SIZE.value
NO_MEMORY: Final = Uncompared.MEMORY.value
PRIMARY: Final = Uncompared.PRIMARY.value
SHUTDOWN: Final = Uncompared.SHUTDOWN.value


class Memory:
    """Bytes that copies and kept answers may take together."""

    def __init__(self, size: int) -> None:
        self.free = size

    def reserve(self, size: int) -> bool:
        """Take `size` bytes; return whether there was room."""
        if size > self.free:
            return False
        self.free -= size
        return True

    def give_back(self, size: int) -> None:
        """Return bytes that were taken."""
        self.free += size


class Times:
    """A histogram of times, as it grows."""

    def __init__(self) -> None:
        self.number = 0
        self.total_s = 0.0
        self.buckets: dict[int, int] = {}

    def note(self, seconds: float) -> None:
        """Count a time."""
        self.number += 1
        self.total_s += seconds
        bucket, us = 0, seconds * 1e6
        if us > 1.0:
            bucket = min(int(log(us) * _PER_E), _LAST_BUCKET)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def histogram(self) -> Histogram:
        """Return what has been counted."""
        return Histogram(self.number, self.total_s, dict(self.buckets))


class Count:
    """How many were eligible, and how many of them mirrored."""

    def __init__(self) -> None:
        self.number = 0
        self.part = 0

    def add_part(self) -> None:
        """Count one that was mirrored."""
        self.number += 1
        self.part += 1


class Book:
    """What this worker counts of one shadow test: `ledger` is the sum of it.

    `pending` requests are eligible, but not counted yet, for nobody knows what becomes of them.
    `statuses` are the shadow's answers by class. `copies` are by day since the epoch and tenant,
    where the version has a price. `is_old` when the policy has no such test any more.
    """

    def __init__(self, model: str, version: str, test: str, since_s: float) -> None:
        """Begin at `since_s`, epoch seconds."""
        self.model = model
        self.version = version
        self.test = test
        self.since_s = since_s
        self.has_price = False
        self.is_old = False
        self.pending = 0
        self.eligible = 0
        self.sampled_out = 0
        self.mirrored = 0
        self.compared = 0
        self.skipped: dict[str, int] = {}
        self.failed: dict[str, int] = {}
        self.uncompared: dict[str, int] = {}
        self.statuses = [0] * 6
        self.copies: dict[int, dict[str, int]] = {}
        self.copy_s = 0.0
        self.copies_timed = 0
        self.copied_latency = Times()
        self.spared_latency = Times()
        self.told: dict[str, int] = {}  # by outcome, what the metrics have been told
        self.told_total = 0  # that `total` was then
        self._sizes: list[Count | None] = [None] * 64  # by bits of the body's bytes
        self._tenants: dict[str, Count] = {}
        self._published = 0

    @property
    def under_way(self) -> int:
        """How many copies have been sent and have come to no end."""
        ended = sum(self.failed.values()) + sum(self.uncompared.values())
        return self.mirrored - self.compared - ended

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is left that would still be counted."""
        return not self.pending and not self.under_way

    @property
    def is_changed(self) -> bool:
        """Whether anything was counted since `note_published`."""
        return self.total() != self._published

    def note_published(self) -> None:
        """Remember that what is counted so far has been told."""
        self._published = self.total()

    def total(self) -> int:
        """Return a number that grows with everything that is counted."""
        times = self.copied_latency.number + self.spared_latency.number
        return times + self.eligible + self.mirrored + self.mirrored - self.under_way

    def ledger(self) -> Ledger:
        """Return what has been counted."""
        sizes = {
            bits: Share(count.number, count.part)
            for bits, count in enumerate(self._sizes)
            if count is not None
        }
        tenants = {name: Share(one.number, one.part) for name, one in self._tenants.items()}
        return Ledger(
            self.eligible,
            self.sampled_out,
            self.mirrored,
            self.compared,
            dict(self.skipped),
            dict(self.failed),
            dict(self.uncompared),
            sizes,
            tenants,
        )

    def outcomes(self) -> dict[str, int]:
        """Return how many requests, and copies, had each outcome that metrics tell."""
        told = {
            "eligible": self.eligible,
            "sampled-out": self.sampled_out,
            "mirrored": self.mirrored,
            "compared": self.compared,
        }
        named = {"skipped": self.skipped, "failed": self.failed, "uncompared": self.uncompared}
        for name, causes in named.items():
            for cause, number in causes.items():
                told[f"{name}-{cause}"] = number
        return told

    # --- requests; each is one of the three, once ---------------------------------------------

    def spare(self, size: int, tenant: str) -> None:
        """Count a request that was sampled out; `size` is of its body, in bytes."""
        self._of_size(size).number += 1
        self._of_tenant(tenant).number += 1
        self.sampled_out += 1
        self.eligible += 1
        self.pending -= 1

    def skip(self, cause: str, size: int, tenant: str) -> None:
        """Count a request that was due, and is not copied."""
        self._of_size(size).number += 1
        self._of_tenant(tenant).number += 1
        self.skipped[cause] = self.skipped.get(cause, 0) + 1
        self.eligible += 1
        self.pending -= 1

    def mirror(self, size: int, tenant: str, at_s: float) -> None:
        """Count a copy that sets out; its request came at `at_s`, epoch seconds."""
        self._of_size(size).add_part()
        self._of_tenant(tenant).add_part()
        self.mirrored += 1
        self.eligible += 1
        self.pending -= 1
        if self.has_price:
            self._charge(tenant, int(at_s) // DAY_S)

    # --- copies; each is one of the three, once -----------------------------------------------

    def compare(self) -> None:
        """Count a copy whose answer was compared with the client's."""
        self.compared += 1

    def fail(self, cause: str) -> None:
        """Count a copy without a whole answer, by the value of its `Failure`."""
        self.failed[cause] = self.failed.get(cause, 0) + 1

    def pass_over(self, cause: str) -> None:
        """Count a copy whose answer is not compared, by the value of its `Uncompared`."""
        self.uncompared[cause] = self.uncompared.get(cause, 0) + 1

    # --- inside -------------------------------------------------------------------------------

    def _of_size(self, size: int) -> Count:
        bits = min(size.bit_length(), 63)
        count = self._sizes[bits]
        if count is None:
            count = self._sizes[bits] = Count()
        return count

    def _of_tenant(self, tenant: str) -> Count:
        count = self._tenants.get(tenant)
        if count is None:
            if len(self._tenants) >= MAX_TENANTS:
                tenant = OTHER
            count = self._tenants.get(tenant)
            if count is None:
                count = self._tenants[tenant] = Count()
        return count

    def _charge(self, tenant: str, day: int) -> None:
        of_day = self.copies.get(day)
        if of_day is None:
            of_day = self.copies[day] = {}
            if len(self.copies) > MAX_DAYS:
                del self.copies[min(self.copies)]
        if tenant not in of_day and len(of_day) >= MAX_TENANTS:
            tenant = OTHER
        of_day[tenant] = of_day.get(tenant, 0) + 1


class Captured:
    """One side's answer, as it comes and within bounds.

    `failure` is why it is of no use: a value of `Failure`, or `size`, `memory` and `primary` of
    `Uncompared`. With `primary` a `status` of 0 says that its endpoint was to blame. Times are
    monotonic. Whoever holds it releases it: then its memory is given back.
    """

    def __init__(self, memory: Memory, max_bytes: int) -> None:
        self.status = 0
        self.head = b""  # status line and fields, whole lines
        self.body = bytearray()
        self.marks: list[tuple[int, float]] = []
        self.failure = ""
        self.is_whole = False
        self.asked_s = 0.0  # when the request was whole, or written
        self.first_byte_at_s = 0.0
        self.ended_s = 0.0
        self._memory = memory
        self._max_bytes = max_bytes
        self._held = 0  # bytes that are reserved
        self._holders = 1
        self._is_framed = False  # pieces are chunks
        self._is_stream = False
        self._before = 0  # pieces of the next read that are none of the body

    def begin(self, response: Response, before: int) -> None:
        """Take a head; `before` pieces come before the body's in what `take` gets next."""
        self._before = before
        self.status = response.head.status
        self.first_byte_at_s = response.read_s
        if self.failure:
            return
        head = response.head.passed
        if self._keep(len(head)):
            self.head = head
        self._is_framed = response.writes_chunks
        self._is_stream = response.framing < 0

    def take(self, pieces: Pieces, body_bytes: int, read_s: float) -> None:
        """Take what one read amounts to; `body_bytes` of it are of the body."""
        before, self._before = self._before, 0
        if self.failure or not body_bytes:
            return
        if len(self.body) + body_bytes > self._max_bytes:
            self.fail(TOO_LARGE)
            return
        if not self._keep(body_bytes):
            return
        if not self._is_framed:
            for piece in pieces[before:] if before else pieces:
                self.body += piece
        else:
            self._unframe(pieces, before)
        if self._is_stream and len(self.marks) < MAX_MARKS and self._keep(MARK_BYTES):
            self.marks.append((len(self.body), read_s))

    def _unframe(self, pieces: Pieces, at: int) -> None:
        """Take the data of chunks, each of which is three pieces: size, data, CRLF."""
        end = len(pieces) - 2
        while at < end and pieces[at] != LAST_CHUNK:
            self.body += pieces[at + 1]
            at += 3

    def end(self, now_s: float) -> None:
        """Learn that the answer is whole."""
        self.is_whole = True
        self.ended_s = now_s

    def fail(self, why: str) -> None:
        """Keep nothing, and nothing more."""
        if self.failure:
            return
        self.failure = why
        self._empty()

    def hold(self) -> None:
        """Have it kept for one more who needs it."""
        self._holders += 1

    def release(self) -> None:
        """Need it no longer."""
        self._holders -= 1
        if not self._holders:
            self.failure = self.failure or OFF  # what still comes is not kept
            self._empty()

    @property
    def size(self) -> int:
        """Bytes of its body."""
        return len(self.body)

    def answer(self) -> Answer:
        """Return it as what is compared; times count from the request's last byte."""
        asked_s = self.asked_s
        return Answer(
            self.status,
            _fields(self.head),
            bytes(self.body),
            max(self.first_byte_at_s - asked_s, 0.0),
            max(self.ended_s - asked_s, 0.0),
            tuple([(size, max(at_s - asked_s, 0.0)) for size, at_s in self.marks]),
        )

    def _keep(self, size: int) -> bool:
        if not self._memory.reserve(size):
            self.fail(NO_MEMORY)
            return False
        self._held += size
        return True

    def _empty(self) -> None:
        self.head = b""
        self.body = bytearray()
        self.marks = []
        held, self._held = self._held, 0
        self._memory.give_back(held)


class Trial:
    """One copy whose answer is to be compared with the client's, and what there is of both.

    `serving` is the version that the client's answer is of. Where `shadow` is not whole, that is
    counted already, and there is nothing to compare. `control` is None without a whole answer.
    `request_body` is kept only where evidence needs it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 -- a record
        self,
        book: Book,
        comparison: Comparison,
        primary: Captured,
        shadow: Captured,
        trials: Trials,
        head: RequestHead,
        identity: Identity,
        snapshot: Snapshot | None,
    ) -> None:
        self.book = book
        self.model = book.model
        self.version = book.version
        self.comparison = comparison
        self.primary = primary
        self.shadow = shadow
        self.control: Captured | None = None
        self.serving = ""
        self.head = head
        self.request_id = head.request_id
        self.at_s = head.at_s  # epoch
        self.identity = identity
        self.snapshot = snapshot
        self.request_body = b""
        self.is_over = False  # told, or given up
        self._left = 2  # sides whose answers have not ended
        self._trials = trials
        self._memory: Memory | None = None
        self._is_released = False
        primary.hold()
        trials.begin(self)

    def keep_body(self, body: bytes, memory: Memory) -> None:
        """Keep the request's body, if there is room."""
        if memory.reserve(len(body)):
            self._memory = memory
            self.request_body = body

    def add_side(self) -> None:
        """Wait for a control as well."""
        self._left += 1

    def note_end(self) -> None:
        """Learn that one side has ended."""
        self._left -= 1
        if not self._left and not self.is_over:
            self.is_over = True
            self._trials.end(self)

    def give_up(self) -> None:
        """Have nobody told of it."""
        self.is_over = True
        self.release()

    def release(self) -> None:
        """Give the memory of all answers back. Later calls do nothing."""
        if self._is_released:
            return
        self._is_released = True
        self.primary.release()
        self.shadow.release()
        if self.control is not None:
            self.control.release()
        if self._memory is not None:
            self._memory.give_back(len(self.request_body))
        self.request_body = b""


class Trials:
    """Those that are under way; when they end, the judge gets them."""

    def __init__(self, judge: Judge | None) -> None:
        """Without a judge there is none to begin."""
        self.judge = judge
        self._open: set[Trial] = set()
        self._is_closed = False

    def begin(self, trial: Trial) -> None:
        """Take note of a trial."""
        self._open.add(trial)

    def end(self, trial: Trial) -> None:
        """Have a trial judged whose sides have all ended, unless there is nothing to judge."""
        self._open.discard(trial)
        shadow = trial.shadow
        cause = _obstacle(trial) if shadow.is_whole else ""
        if self._is_closed and shadow.is_whole:
            cause = cause or SHUTDOWN
        if cause:
            trial.book.pass_over(cause)
        is_over = self._is_closed or shadow.failure == FAILED_SHUTDOWN  # which proves nothing
        if cause or is_over or self.judge is None:
            trial.release()
        else:
            self.judge.take(trial)

    def give_up(self, trial: Trial) -> None:
        """Forget a trial of which there is nothing to tell: its copy never set out."""
        self._open.discard(trial)
        trial.give_up()

    def close(self) -> None:
        """End all; their copies have ended by now, but not what else they wait for."""
        self._is_closed = True
        for trial in tuple(self._open):
            if trial.shadow.is_whole:
                trial.book.pass_over(SHUTDOWN)
            self.give_up(trial)


class Judge(Protocol):
    """Who compares. He may take as long as he likes, but not the caller's time."""

    def take(self, trial: Trial) -> None:
        """Take a trial whose sides have all ended.

        Where the shadow's answer is whole, he calls `compare` or `pass_over` of its book, once: he
        passes over what a side has a `failure` of, and all where the client's answer is not whole.
        Where the shadow's is not, that is counted already. In any case he calls `release` of the
        trial.
        """


def _obstacle(trial: Trial) -> str:
    """Return why the answers say nothing of the shadow; empty for the judge to find out."""
    if trial.serving == trial.version:  # which a fallback may be
        return PRIMARY
    # Others may take longer ones, and it was captured for all.
    return TOO_LARGE if trial.primary.size > trial.comparison.max_body_bytes else ""


def _fields(head: bytes) -> tuple[tuple[str, str], ...]:
    """Return names, in lower case, and values of a head's fields."""
    return tuple(
        [
            (line[: line.find(b":")].decode("latin-1").lower(), value_of(line).decode("latin-1"))
            for line in head.splitlines(keepends=True)[1:]
        ]
    )
