"""Copies on their way to one shadow version, and to its control: some under way, others in line.

Every copy ends once, whatever befalls it, and then gives back the memory that it took.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from sidecar.dataplane.spelling import Spelling
from sidecar.dataplane.trial import (
    FAILED_CONNECT,
    FAILED_LOST,
    FAILED_SHUTDOWN,
    FAILED_TIMEOUT,
    OFF,
    SKIP_COST,
    SKIP_DRAINING,
    SKIP_FAULT,
    SKIP_LATE,
    SKIP_MEMORY,
    SKIP_METHOD,
    SKIP_SIZE,
    Captured,
    Memory,
    Trial,
    Trials,
)
from sidecar.model.policy import VersionTimeouts
from sidecar.shadow.renaming import with_model
from sidecar.upstream.contract import ResponseSink
from sidecar.wire.fields import without

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.dataplane.trial import Book, Judge
    from sidecar.decide import Verdict
    from sidecar.model.comparison import Comparison
    from sidecar.model.limits import Limits, Timeouts
    from sidecar.model.policy import Policy
    from sidecar.model.request import RequestHead
    from sidecar.policy.compiled import CompiledShadow
    from sidecar.upstream.connection import UpstreamConnection
    from sidecar.upstream.contract import Response
    from sidecar.upstream.dial import DialError
    from sidecar.upstream.pool import Group, Pool, Upstreams
    from sidecar.wire.pieces import Pieces

MAX_DROPPED: Final = 1024 * 1024  # bytes of an answer that are read and not kept
PIECE_BYTES: Final = 32  # that a piece counts besides: small ones cost more than their bytes
_NOBODY: Final = VersionTimeouts()
_LENGTH: Final = frozenset((b"content-length",))
AT_ONCE: Final = 4  # steps of a lane in one turn: each closes a connection, or opens one


class Shared:
    """What the lanes of a worker share: their bounds, above all one memory limit.

    Shadows in `capped`, model and version, have cost what they may cost.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        limits: Limits,
        timeouts: Timeouts,
        monotonic_s: Callable[[], float],
        judge: Judge | None,
    ) -> None:
        self.upstreams = upstreams
        self.memory = Memory(limits.mirror_memory_bytes)
        self.trials = Trials(judge)
        self.max_body_bytes = limits.mirror_body_bytes
        self.max_queue = limits.mirror_queue
        self.max_connections = limits.mirror_connections
        self.timeout_s = timeouts.mirror_s
        self.now_s = monotonic_s
        self.capped: set[tuple[str, str]] = set()
        self.is_draining = False


class Copied:
    """A request, as its copies are made of it.

    `size` is of its body, kept or not. `captured` is the client's answer, if it is to be compared,
    and `trials` are what waits for it.
    """

    def __init__(self, head: RequestHead, verdict: Verdict) -> None:
        self.head = head
        self.verdict = verdict
        self.tenant = verdict.identity.tenant
        # An object a piece would cost many times its bytes where pieces are small, and a view would
        # hold the whole of what was read with it. More than one piece grow by an eighth ahead.
        self.body: bytes | bytearray = b""
        self.size = 0
        self.captured: Captured | None = None
        self.trials: tuple[Trial, ...] = ()


class Delivery(ResponseSink):
    """One copy on its way to one endpoint.

    Its answer is dropped unless it is `captured`. The endpoint's pool, which is none that serves
    clients, learns how it fared.
    """

    _pool: Pool  # from `start` on

    def __init__(self, lane: CopyLane, copy: Copied, data: bytes) -> None:
        self._lane = lane
        self._method = copy.head.method
        self._data = data
        self._status = 0  # until there is an answer
        self.size = len(data)  # bytes; reserved while it lasts
        self.body_bytes = copy.size
        self.tenant = copy.tenant
        self.at_s = copy.head.at_s
        self.deadline_s = 0.0
        self.upstream: UpstreamConnection | None = None
        self.is_over = False
        self.captured: Captured | None = None
        self.trial: Trial | None = None
        self.control: Delivery | None = None  # that sets out together with this one
        self._dropped = 0

    def start(self, pool: Pool) -> None:
        """Set out for an endpoint."""
        self._pool = pool
        upstream = pool.acquire()
        if upstream is None:
            pool.connect(self.on_connected, self.on_connect_failed)
        else:
            self.on_connected(upstream)

    def on_connected(self, upstream: UpstreamConnection) -> None:
        """Send the copy on a connection."""
        if self.is_over:
            upstream.give_back()
            return
        self.upstream = upstream
        if self.captured is not None:
            self.captured.asked_s = self._lane.shared.now_s()
        upstream.start(self, self._method)
        upstream.is_sent = True
        upstream.send(self._data)
        self._data = b""

    def on_connect_failed(self, _error: DialError) -> None:
        """Be done: the shadow is out of reach."""
        self.end(FAILED_CONNECT)

    def on_response_head(self, response: Response, out: Pieces) -> None:
        """Take a head, and wait for the rest."""
        self._status = response.head.status
        response.writes_chunks = False
        if self.captured is not None:
            self.captured.begin(response, 0)
        self._lane.on_answer(self, response)

    def on_interim_head(self, response: Response, out: Pieces) -> None:
        """Drop it."""

    def on_response_data(self, pieces: Pieces, body_bytes: int) -> None:
        """Keep it if the answer is captured.

        Nobody misses the rest of an answer of which nothing is kept. That is read for the sake of
        the connection, which the next copy could use, but not for ever: reading takes time, too.
        """
        captured, upstream = self.captured, self.upstream
        if upstream is None:
            return
        if captured is not None:
            captured.take(pieces, body_bytes, upstream.read_s)
            if not captured.failure:
                return
        self._dropped += body_bytes + PIECE_BYTES * len(pieces)
        if self._dropped > MAX_DROPPED:
            upstream.abandon()
            self.on_response_end()

    def on_response_end(self) -> None:
        """Be done."""
        upstream, self.upstream = self.upstream, None
        if self.captured is not None and upstream is not None:
            self.captured.end(upstream.read_s)
        self._pool.note_status(self._status)
        self.end("")

    def on_upgrade(self, response: Response, out: Pieces) -> ResponseSink | None:
        """Copies ask for no other protocol."""
        return None

    def on_response_lost(self, _reason: str, *, is_unanswered: bool) -> None:
        """Be done; a copy is never sent twice."""
        self.upstream = None
        self._pool.note_failure()
        self.end(FAILED_LOST)

    def on_fault(self) -> None:
        """Be done: the connection is lost, and the endpoint has no part in it."""
        self.upstream = None
        self.end(FAILED_LOST)

    def on_upstream_full(self) -> None:
        """Do nothing: the copy is written already and its size is bounded."""

    def on_upstream_drained(self) -> None:
        """Do nothing."""

    def expire(self) -> None:
        """Give up. Only silence is the endpoint's fault: a long answer may be a good one."""
        if self.upstream is not None and not self._status:
            self._pool.note_failure()
        self.end(FAILED_TIMEOUT)

    def end(self, failure: str) -> None:
        """End, once, with a whole answer if there is no `failure`."""
        if self.is_over:
            return
        self.is_over = True
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()
        self._data = b""
        if failure and self.captured is not None:
            self.captured.fail(failure)
        self._lane.on_end(self, failure)


class CopyLane:
    """The copies for one version, as many at a time as may be, and how they are spelled."""

    group: Group
    spelling: Spelling

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.under_way: set[Delivery] = set()
        self.max_connections = 0
        self._late: deque[Delivery] = deque()
        self._late_s = 0.0  # by then they were
        self._has_asked = False  # for a turn
        self._first_byte_s = 0.0
        self._rest_s = 0.0
        self._lines = b""
        self._replaced: frozenset[bytes] = frozenset()

    def follow(self, policy: Policy, one: CompiledShadow, version: str) -> None:
        """Do as the policy says of a shadow, for `version`: itself, or its control."""
        shared, shadow, deployed = self.shared, one.shadow, policy.versions[version]
        self.group = shared.upstreams.group_of(policy.model, version, deployed)
        self.spelling = Spelling(policy, version)
        self._lines, self._replaced = self.spelling.lines, self.spelling.replaced
        own = deployed.timeouts or _NOBODY
        self._rest_s = shadow.timeout_s or shared.timeout_s
        self._first_byte_s = shadow.timeout_s or own.first_byte_s or shared.timeout_s
        self.max_connections = _within(shadow.max_connections, shared.max_connections)

    def spell(
        self, copy: Copied, fields: list[bytes], lines: list[bytes], body: bytes | bytearray
    ) -> bytes:
        """Return a copy as it is sent, of the client's `fields` and the sidecar's `lines`."""
        head, rewrite = copy.head, self.spelling.rewrite
        target = head.target if rewrite is None else rewrite(head.target, copy.verdict.rest)
        out: list[bytes | bytearray] = [head.method, b" ", target, b" HTTP/1.1\r\n"]
        if len(body) != head.framing:  # it came in chunks, or has been changed
            fields = without(fields, _LENGTH)
            out.append(b"Content-Length: %d\r\n" % len(body))
        out += without(fields, self._replaced) if self._replaced else fields
        out += lines
        out += (self._lines, b"\r\n", body)
        return b"".join(out)

    def start(self, delivery: Delivery) -> None:
        """Let a copy set out."""
        delivery.deadline_s = self.shared.now_s() + self._first_byte_s
        self.under_way.add(delivery)
        delivery.start(self.group.pick())

    def on_answer(self, delivery: Delivery, response: Response) -> None:
        """Give an answer that has begun time for its body."""
        delivery.deadline_s = response.read_s + self._rest_s

    def on_end(self, delivery: Delivery, failure: str) -> None:
        """Learn that a copy has ended; `failure` is why it has no whole answer, if so."""
        self.under_way.discard(delivery)
        self.shared.memory.give_back(delivery.size)

    def sweep(self, now_s: float) -> None:
        """Have what took too long end in turns."""
        self._late_s = now_s
        if not self._late:
            self._late.extend([one for one in self.under_way if one.deadline_s <= now_s])
        if self._late:
            self._ask()

    def on_turn(self) -> None:
        """Take a few steps. A thousand copies may hang, and clients are served between turns."""
        self._has_asked = False
        for _ in range(AT_ONCE):
            if not self._step():
                return
        self._ask()

    def on_fault(self) -> None:
        """Go on with the next sweep, which asks for another turn."""

    def close(self) -> None:
        """End everything."""
        for delivery in tuple(self.under_way):
            delivery.end(FAILED_SHUTDOWN)

    def _ask(self) -> None:
        """Ask for a turn, unless one is to come."""
        if not self._has_asked:
            self._has_asked = True
            self.shared.upstreams.turns.ask(self)

    def _step(self) -> bool:
        """End a copy that took too long; return whether there was one."""
        if not self._late:
            return False
        delivery = self._late.popleft()
        if delivery.deadline_s <= self._late_s:  # its answer has not begun meanwhile
            delivery.expire()
        return True


class ControlLane(CopyLane):
    """The copies that the control of a shadow answers: nobody counts them."""

    def on_end(self, delivery: Delivery, failure: str) -> None:
        """Let the trial have the answer, if there is a whole one."""
        self.under_way.discard(delivery)
        self.shared.memory.give_back(delivery.size)
        trial, captured = delivery.trial, delivery.captured
        if trial is None or captured is None:
            return
        if captured.failure or trial.is_over:
            captured.release()
        else:
            trial.control = captured
        trial.note_end()


class ShadowLane(CopyLane):
    """The copies for one shadow test: some under way, others waiting, both bounded."""

    _shadow: CompiledShadow  # from `follow` on

    def __init__(self, shared: Shared, book: Book) -> None:
        super().__init__(shared)
        self.book = book
        self.version = book.version
        self.is_old = False  # the policy has no such test any more
        self.has_credentials = False
        self.max_body_bytes = 0
        self.comparison: Comparison | None = None  # unless nobody compares
        self._name = book.model, book.version
        self._max_queue = 0
        self._body_model: str | None = None
        self._control: ControlLane | None = None
        self._waiting: deque[Delivery] = deque()
        self._leaving: deque[tuple[Delivery, str]] = deque()  # that waited, and why they do not

    def follow(self, policy: Policy, one: CompiledShadow, version: str) -> None:
        """Do as the policy says of a shadow."""
        super().follow(policy, one, version)
        shared, shadow = self.shared, one.shadow
        self._shadow = one
        self._lines += _lines(shadow.headers)
        self._replaced |= {name.lower().encode() for name in shadow.headers}
        self._body_model = shadow.body_model
        self._max_queue = _within(shadow.max_queue, shared.max_queue)
        self.max_body_bytes = _within(shadow.max_body_bytes, shared.max_body_bytes)
        self.has_credentials = shadow.credentials
        self.comparison = None if shared.trials.judge is None else shadow.compare
        self.book.has_price = policy.versions[version].price is not None
        if self.comparison is not None and one.control:
            self._control = self._control or ControlLane(shared)
            self._control.follow(policy, one, one.control)

    def objection(self, head: RequestHead) -> str:
        """Return why a request is not copied, as far as its head tells; empty if it is."""
        if not self._shadow.may_copy(head):
            return SKIP_METHOD
        shared = self.shared
        if shared.is_draining:
            return SKIP_DRAINING
        if shared.capped and self._name in shared.capped:
            return SKIP_COST
        return SKIP_SIZE if head.framing > self.max_body_bytes else ""

    def offer(self, copy: Copied, fields: list[bytes], lines: list[bytes]) -> bool:
        """Take a copy, with the client's `fields` and the sidecar's `lines`; or count why not."""
        memory = self.shared.memory
        body: bytes | bytearray = copy.body
        if self._body_model is not None:
            body = with_model(bytes(body), self._body_model)
        data = self.spell(copy, fields, lines, body)
        if not memory.reserve(len(data)):
            self.book.skip(SKIP_MEMORY, copy.size, copy.tenant)
            return False
        delivery = Delivery(self, copy, data)
        if self.comparison is not None:
            try:
                self._begin_trial(delivery, copy, fields, lines)
            except Exception:
                self._leave_out(delivery, SKIP_FAULT)
                raise
        if len(self.under_way) < self.max_connections and not self._waiting:
            self._set_out(delivery)
        else:
            delivery.deadline_s = self.shared.now_s() + self._rest_s
            self._waiting.append(delivery)
        return True

    def on_answer(self, delivery: Delivery, response: Response) -> None:
        """Count the class of an answer's status; it has time for its body."""
        delivery.deadline_s = response.read_s + self._rest_s
        statuses = self.book.statuses
        statuses[min(response.head.status // 100, len(statuses) - 1)] += 1

    def on_end(self, delivery: Delivery, failure: str) -> None:
        """Count what became of a copy; have what waited longest set out.

        That may have the connection of an answer. Where that is lost, others may be with it, and
        each that sets out opens another one: they do so in turns.
        """
        self.shared.memory.give_back(delivery.size)
        self.under_way.discard(delivery)
        if failure:
            self.book.fail(failure)
        elif delivery.trial is None:
            self.book.pass_over(OFF)
        if delivery.trial is not None:
            delivery.trial.note_end()
        if self._waiting and failure:
            self._ask()
        elif self._waiting and len(self.under_way) < self.max_connections:
            self._set_out(self._waiting.popleft())

    def sweep(self, now_s: float) -> None:
        """Have what took too long end in turns, in line or under way."""
        super().sweep(now_s)
        if self._waiting:
            self._ask()
        if self._control is not None:
            self._control.sweep(now_s)

    def leave_line(self, cause: str) -> None:
        """Have no copy set out that waits to: they are left out in turns."""
        self._leaving.extend([(one, cause) for one in self._waiting])
        self._waiting.clear()
        if self._leaving:
            self._ask()

    def close(self) -> None:
        """End everything, at once."""
        self.leave_line(SKIP_DRAINING)
        while self._leaving:
            self._leave_out(*self._leaving.popleft())
        super().close()
        if self._control is not None:
            self._control.close()

    @property
    def is_full(self) -> bool:
        """Whether as many copies are under way or waiting as may."""
        in_line = len(self._waiting) + len(self._leaving)
        return len(self.under_way) + in_line >= self._max_queue

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self.under_way and (self._control is None or not self._control.under_way)

    def _step(self) -> bool:
        """Do what comes first: leave a copy out, end one that took too long, let one set out."""
        waiting = self._waiting
        if self._leaving:
            self._leave_out(*self._leaving.popleft())
        elif waiting and waiting[0].deadline_s <= self._late_s:
            self._leave_out(waiting.popleft(), SKIP_LATE)
        elif super()._step():
            return True
        elif waiting and len(self.under_way) < self.max_connections:
            self._set_out(waiting.popleft())
        else:
            return False
        return True

    def _set_out(self, delivery: Delivery) -> None:
        self.book.mirror(delivery.body_bytes, delivery.tenant, delivery.at_s)
        control, delivery.control = delivery.control, None
        self.start(delivery)
        if control is not None and self._control is not None:
            self._control.start(control)

    def _leave_out(self, delivery: Delivery, cause: str) -> None:
        """Count a copy that never set out."""
        delivery.is_over = True
        memory, control = self.shared.memory, delivery.control
        memory.give_back(delivery.size)
        if delivery.trial is not None:
            self.shared.trials.give_up(delivery.trial)
        if control is not None:
            memory.give_back(control.size)
            if control.captured is not None:
                control.captured.release()
        self.book.skip(cause, delivery.body_bytes, delivery.tenant)

    def _begin_trial(
        self, delivery: Delivery, copy: Copied, fields: list[bytes], lines: list[bytes]
    ) -> None:
        """Have the answer captured, and that of the control if it is to get a copy."""
        comparison, primary, memory = self.comparison, copy.captured, self.shared.memory
        if comparison is None or primary is None:
            return
        delivery.captured = Captured(memory, comparison.max_body_bytes)
        verdict = copy.verdict
        trial = delivery.trial = Trial(
            self.book, comparison, primary, delivery.captured, self.shared.trials,
            copy.head, verdict.identity, verdict.snapshot,
        )  # fmt: skip
        copy.trials += (trial,)
        if comparison.keep.bodies:
            trial.keep_body(bytes(copy.body), memory)
        lane = self._control
        if lane is None or not self._shadow.takes_control(copy.head):
            return
        data = lane.spell(copy, fields, lines, copy.body)
        is_free = len(lane.under_way) < lane.max_connections
        if is_free and memory.reserve(len(data)):
            control = delivery.control = Delivery(lane, copy, data)
            control.captured = Captured(memory, comparison.max_body_bytes)
            control.trial = trial
            trial.add_side()


def _within(own: int | None, limit: int) -> int:
    """Return a bound that a policy may tighten."""
    return limit if own is None else min(own, limit)


def _lines(headers: dict[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
