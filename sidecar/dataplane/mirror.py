"""Copies of requests for shadow versions; nothing that happens to one reaches an exchange.

Every request that a shadow is eligible for is counted once in its book, and so is every copy.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sidecar.dataplane.delivery import Copied, ShadowLane, Shared
from sidecar.dataplane.spelling import TenantLines
from sidecar.dataplane.trial import (
    PRIMARY,
    SKIP_ABORTED,
    SKIP_DISABLED,
    SKIP_FAULT,
    SKIP_MEMORY,
    SKIP_POLICY,
    SKIP_QUEUE,
    SKIP_SIZE,
    Book,
    Captured,
)
from sidecar.runtime import faults
from sidecar.shadow.naming import test_of
from sidecar.wire.fields import EXPECT, name_of
from sidecar.wire.request import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.dataplane.trial import Judge
    from sidecar.decide import Verdict
    from sidecar.model.limits import Limits, Timeouts
    from sidecar.model.policy import Policy
    from sidecar.model.request import RequestHead
    from sidecar.policy.compiled import CompiledShadow
    from sidecar.policy.snapshot import Snapshot
    from sidecar.store.live import LivePolicies
    from sidecar.telemetry.metrics import Metrics
    from sidecar.upstream.pool import Upstreams

MAX_BYTES: Final = 1 << 60  # of a copy that nobody gets: no limit
MAX_BOOKS: Final = 4_096  # past that old ones go, if they are quiet
TIMED: Final = 63  # of 64 copies one is timed: to read the CPU's clock is a system call


class Copy(Copied):
    """What is kept of one request until it is whole and can be sent to its shadows.

    One buffer for all of them: who takes no body of its length leaves, the others go on.
    """

    def __init__(
        self, mirror: Mirror, head: RequestHead, verdict: Verdict, forwarded_lines: bytes
    ) -> None:
        super().__init__(head, verdict)
        self.forwarded_lines = forwarded_lines
        self._mirror = mirror
        self._is_over = False
        self._lanes: list[ShadowLane] = []
        self._skipped: tuple[tuple[ShadowLane, str], ...] = ()
        self._spared: tuple[ShadowLane, ...] = ()
        self._max_bytes = MAX_BYTES
        self.spent_s = -1.0  # CPU time, where it is measured
        try:
            self._join(mirror, verdict)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is nothing to the client
            self._spoil(error)
        self.versions = tuple([lane.version for lane in self._lanes])

    def _join(self, mirror: Mirror, verdict: Verdict) -> None:
        """Find out who gets it, as far as the head tells."""
        drawn, kept_bytes = verdict.shadows, 0
        for one in drawn.due:
            lane = mirror.lane(one, verdict, self.head.at_s)
            cause = lane.objection(self.head)
            lane.book.pending += 1
            if cause:
                self._skipped += ((lane, cause),)
                continue
            self._lanes.append(lane)
            self._max_bytes = min(self._max_bytes, lane.max_body_bytes)
            if lane.comparison is not None:
                kept_bytes = max(kept_bytes, lane.comparison.max_body_bytes)
        for one in drawn.spared:
            lane = mirror.lane(one, verdict, self.head.at_s)
            lane.book.pending += 1
            self._spared += (lane,)
        for one in drawn.idle:
            lane = mirror.lane(one, verdict, self.head.at_s)
            lane.book.pending += 1
            self._skipped += ((lane, SKIP_DISABLED),)
        if kept_bytes:
            self.captured = Captured(mirror.memory, kept_bytes)

    def add(self, data: bytes | memoryview) -> None:
        """Keep a piece of the body for those who take one so long."""
        self.size += len(data)
        if not self._lanes or self._is_over:
            return
        try:
            began_s = self._mirror.cpu_s() if self.spent_s >= 0 else 0.0
            if self.size > self._max_bytes:
                self._outgrow()
            if self._lanes:
                if self._mirror.memory.reserve(len(data)):
                    self._keep(data)
                else:
                    self._skip_all(SKIP_MEMORY)
            if self.spent_s >= 0:
                self.spent_s += self._mirror.cpu_s() - began_s
        except Exception as error:  # noqa: BLE001 -- as above
            self._spoil(error)

    def _keep(self, data: bytes | memoryview) -> None:
        if not self.body and isinstance(data, bytes):
            self.body = data  # most come in one piece
            return
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += data

    def send(self, whole_s: float) -> None:
        """Send the copy; the request became whole at `whole_s`. Later calls do nothing."""
        if self._is_over:
            return
        self._is_over = True
        began_s = self._mirror.cpu_s() if self.spent_s >= 0 else 0.0
        self._mirror.memory.give_back(len(self.body))  # a delivery reserves for itself
        if self._lanes:
            if self.captured is not None:
                self.captured.asked_s = whole_s
            self._lanes = self._mirror.send(self, self._lanes)
        self._count(self.size)
        self.body = b""
        if self.spent_s >= 0:
            self._charge(self.spent_s + self._mirror.cpu_s() - began_s)

    def end(self, status: int, serving: str, took_s: float, now_s: float) -> None:
        """Learn how the exchange ended: `took_s` is less than 0 where the answer was not whole.

        `serving` is the version that answered with `status`, which is 0 where its endpoint gave no
        whole answer.
        """
        self._drop(SKIP_ABORTED)  # its request never became whole
        if took_s >= 0:
            for lane in self._lanes:
                lane.book.copied_latency.note(took_s)
            for lane in self._spared:
                lane.book.spared_latency.note(took_s)
        captured = self.captured
        if captured is None:
            return
        captured.status = status
        if took_s >= 0:
            captured.end(now_s)
        else:
            captured.fail(PRIMARY)
        for trial in self.trials:
            trial.serving = serving
            trial.note_end()
        captured.release()

    def _spoil(self, error: Exception) -> None:
        """Note a fault, and give the copy up."""
        faults.note("copying", error)
        self._drop(SKIP_FAULT)

    def _drop(self, cause: str) -> None:
        """Give the copy up, unless it was sent."""
        if self._is_over:
            return
        self._is_over = True
        self._skip_all(cause)
        self._count(max(self.size, self.head.framing))

    def _outgrow(self) -> None:
        """Leave out those who take no body of this length."""
        stay = [lane for lane in self._lanes if self.size <= lane.max_body_bytes]
        if not stay:
            self._skip_all(SKIP_SIZE)
            return
        self._skipped += tuple([(lane, SKIP_SIZE) for lane in self._lanes if lane not in stay])
        self._lanes = stay
        self._max_bytes = min([lane.max_body_bytes for lane in stay])

    def _skip_all(self, cause: str) -> None:
        self._skipped += tuple([(lane, cause) for lane in self._lanes])
        self._lanes = []
        self._mirror.memory.give_back(len(self.body))
        self.body = b""

    def _count(self, size: int) -> None:
        """Count who got no copy, by the bytes of the body."""
        for lane, cause in self._skipped:
            lane.book.skip(cause, size, self.tenant)
        for lane in self._spared:
            lane.book.spare(size, self.tenant)

    def _charge(self, spent_s: float) -> None:
        for lane in self._lanes:
            lane.book.copy_s += spent_s / len(self._lanes)
            lane.book.copies_timed += 1


class Mirror(Shared):
    """Sends copies, each shadow in a lane of its own, all within one memory limit.

    `books` are by model, version and test; who publishes them calls `forget` for those that are
    old and quiet.
    """

    def __init__(  # noqa: PLR0913 -- parts, each named where they are wired
        self,
        *,
        live: LivePolicies,
        upstreams: Upstreams,
        metrics: Metrics,
        limits: Limits,
        timeouts: Timeouts,
        monotonic_s: Callable[[], float],
        judge: Judge | None = None,
        cpu_s: Callable[[], float] = time.thread_time,
    ) -> None:
        """Use `upstreams` of its own.

        So a shadow never takes a primary's connection, nor does it cost one its endpoint. Without
        a `judge` no answer is captured.
        """
        super().__init__(upstreams, limits, timeouts, monotonic_s, judge)
        self.cpu_s = cpu_s
        self.books: dict[tuple[str, str, str], Book] = {}
        self._live = live
        self._metrics = metrics
        self._tenant_lines = TenantLines()
        self._lanes: dict[CompiledShadow, ShadowLane] = {}
        self._old: list[ShadowLane] = []
        self._left: list[Book] = []  # forgotten ones that are not quiet, or not told in metrics
        self._copies = 0

    # --- what an exchange does ----------------------------------------------------------------

    def copy(self, head: RequestHead, verdict: Verdict, forwarded_lines: bytes) -> Copy:
        """Begin a copy of a request that shadows are eligible for."""
        self._copies += 1
        if self._copies & TIMED:
            return Copy(self, head, verdict, forwarded_lines)
        began_s = self.cpu_s()
        copy = Copy(self, head, verdict, forwarded_lines)
        copy.spent_s = self.cpu_s() - began_s
        return copy

    # --- what a copy does ---------------------------------------------------------------------

    def lane(self, one: CompiledShadow, verdict: Verdict, at_s: float) -> ShadowLane:
        """Return the lane of a shadow that a request of `at_s` was just found eligible for."""
        lane = self._lanes.get(one)
        if lane is None:
            snapshot = verdict.snapshot
            assert snapshot is not None  # noqa: S101 -- its shadows are of it
            book = self._book(snapshot.policy, one, at_s)
            lane = self._lanes[one] = ShadowLane(self, book)
            lane.follow(snapshot.policy, one, lane.version)
        return lane

    def send(self, copy: Copy, lanes: list[ShadowLane]) -> list[ShadowLane]:
        """Offer a whole request to shadows; return those that take it. It raises nothing."""
        lines: list[bytes] = []
        fields: list[bytes] = []
        taken = []
        for lane in lanes:
            if lane.is_old or lane.is_full:  # a shadow that hangs costs no more than this
                cause = SKIP_POLICY if lane.is_old else SKIP_QUEUE
                lane.book.skip(cause, copy.size, copy.tenant)
                continue
            pending = lane.book.pending
            try:
                if not lines:
                    lines, fields = self._lines(copy), _shared(copy.head)
                passed = _with_credentials(copy.head) if lane.has_credentials else fields
                if lane.offer(copy, passed, lines):
                    taken.append(lane)
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is nothing to the client
                faults.note("copying", error)
                if lane.book.pending == pending:  # it is not counted yet
                    lane.book.skip(SKIP_FAULT, copy.size, copy.tenant)
        return taken

    def _lines(self, copy: Copy) -> list[bytes]:
        """Return the sidecar's own lines."""
        return [
            copy.forwarded_lines,
            copy.head.host,
            b"\r\nX-Request-Id: ",
            copy.head.request_id,
            b"\r\nX-Shadow: 1\r\n",
            self._tenant_lines[copy.tenant],
        ]

    # --- what the listener, the plane and whoever publishes do -------------------------------

    def sweep(self, now_s: float) -> None:
        """End what took too long."""
        for lane in (*self._lanes.values(), *self._old):
            try:
                lane.sweep(now_s)
            except Exception as error:  # noqa: BLE001 -- the others are swept all the same
                faults.note("sweep", error)
        self._old = [lane for lane in self._old if lane.book.pending or not lane.is_idle]
        self.upstreams.sweep(now_s)

    def on_policy_change(self, model: str) -> None:
        """Follow a model's policy; what is under way for tests that it no longer has goes on.

        What waits in line for such a test, or for a shadow that gets no copies now, is left out.
        """
        snapshot = self._live.snapshots.get(model)
        lanes = [(one, lane) for one, lane in self._lanes.items() if lane.book.model == model]
        for one, lane in lanes:
            same = None if snapshot is None else _same_test(snapshot, one, lane.book)
            if snapshot is None or same is None:
                del self._lanes[one]
                lane.is_old = lane.book.is_old = True
                lane.leave_line(SKIP_POLICY)
                self._old.append(lane)
                continue
            if same is not one:
                del self._lanes[one]
                lane.follow(snapshot.policy, same, lane.version)
                self._lanes[same] = lane
            if lane.version in snapshot.idle:
                lane.leave_line(SKIP_DISABLED)
        self.upstreams.retain_versions(
            (model, version)
            for model, snapshot in self._live.snapshots.items()
            for one in snapshot.shadows
            for version in (one.shadow.version, one.control)
        )

    def forget(self, book: Book) -> None:
        """Let go of a book, which whoever sums it up has been told of.

        What is under way is still counted in it, for the metrics alone. Should its test go on, it
        gets a new book.
        """
        self._measure(book)
        del self.books[book.model, book.version, book.test]
        if not book.is_quiet:
            self._left.append(book)
        for one, lane in tuple(self._lanes.items()):
            if lane.book is book:
                del self._lanes[one]
                self._old.append(lane)

    def measure(self) -> None:
        """Bring the metrics up to what the books say."""
        for book in [*self.books.values(), *self._left]:
            self._measure(book)
        self._left = [book for book in self._left if not book.is_quiet]

    def close(self) -> None:
        """End everything, and count it: nothing is under way any more."""
        self.is_draining = True
        for lane in [*self._lanes.values(), *self._old]:
            lane.close()
        self.trials.close()
        self.upstreams.close()

    def _measure(self, book: Book) -> None:
        """Add what is new in a book to the metrics, which outlive it.

        There may be thousands, and this is asked for each second: most have nothing new.
        """
        total = book.total()
        if total == book.told_total:
            return
        book.told_total = total
        events = self._metrics.events
        labels = "model", book.model, "version", book.version
        outcomes = book.outcomes()
        for outcome, number in outcomes.items():
            key = ("rmv_mirrors_total", *labels, "outcome", outcome)
            events[key] += number - book.told.get(outcome, 0)
        book.told = outcomes
        for hundreds, number in enumerate(book.statuses):
            if number:
                events["rmv_mirror_responses_total", *labels, "class", f"{hundreds}xx"] += number
                book.statuses[hundreds] = 0

    def _book(self, policy: Policy, one: CompiledShadow, at_s: float) -> Book:
        """Return the book of a shadow's test: a test that was there before goes on."""
        version, test = one.shadow.version, test_of(policy, one.shadow)
        book = self.books.get((policy.model, version, test))
        if book is None:
            if len(self.books) >= MAX_BOOKS:
                self._forget_old()
            book = Book(policy.model, version, test, at_s)
            self.books[policy.model, version, test] = book
        book.is_old = False
        return book

    def _forget_old(self) -> None:
        """Make room for one, should nobody publish."""
        for book in self.books.values():
            if book.is_old and book.is_quiet:
                self.forget(book)
                return


def _shared(head: RequestHead) -> list[bytes]:
    """Return the client's fields but for those that are for no copy."""
    withheld = head.withheld
    return [line for line in head.fields if line not in withheld] if withheld else head.fields


def _with_credentials(head: RequestHead) -> list[bytes]:
    """Return the client's fields but for `Expect`: a copy is sent whole."""
    return [line for line in head.fields if KINDS.of(name_of(line)) != EXPECT]


def _same_test(snapshot: Snapshot, before: CompiledShadow, book: Book) -> CompiledShadow | None:
    """Return the shadow whose test a book is of, if the policy still has it."""
    if before in snapshot.shadows:  # just kills or readiness have changed
        return before
    for one in snapshot.shadows:
        if one.shadow.version == book.version:
            return one if test_of(snapshot.policy, one.shadow) == book.test else None
    return None
