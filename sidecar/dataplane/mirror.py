"""Copies of requests for shadow versions; nothing that happens to one reaches an exchange.

Every copy that was due is counted once: as answered, or by the cause that it was dropped or
failed for.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from sidecar.dataplane.spelling import Spelling, TenantLines
from sidecar.model.policy import VersionTimeouts
from sidecar.upstream.contract import ResponseSink
from sidecar.wire import fields as wire
from sidecar.wire.fields import REQUEST_FIELDS, FieldKinds, without

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.decide import Verdict
    from sidecar.model.limits import Limits, Timeouts
    from sidecar.model.request import RequestHead
    from sidecar.store.live import LivePolicies
    from sidecar.telemetry.metrics import Metrics
    from sidecar.upstream.connection import UpstreamConnection
    from sidecar.upstream.contract import Response
    from sidecar.upstream.pool import Group, Pool, Upstreams
    from sidecar.wire.pieces import Pieces

_KINDS: Final = FieldKinds(REQUEST_FIELDS)
_LEFT_OUT: Final = frozenset((wire.AUTHORIZATION, wire.SECRET, wire.EXPECT, wire.CONTENT_LENGTH))
COUNTER: Final = "rmv_mirrors_total"


class Copy:
    """What is kept of one request until it is whole and can be sent to its shadows."""

    def __init__(
        self,
        mirror: Mirror,
        head: RequestHead,
        verdict: Verdict,
        forwarded_lines: bytes,
        has_body: bool,  # noqa: FBT001
    ) -> None:
        self.head = head
        self.verdict = verdict
        self.forwarded_lines = forwarded_lines
        self.has_body = has_body  # announced, if of no bytes
        self.versions = tuple([shadow.version for shadow in verdict.shadows])
        # One buffer: an object a piece would cost many times its bytes where pieces are small, and
        # a view would hold the whole of what was read with it. It grows by an eighth ahead.
        self.body = bytearray()
        self._mirror = mirror
        self._is_over = False

    def add(self, data: bytes | memoryview) -> None:
        """Keep a piece of the body, unless the copy has grown too large."""
        if self._is_over:
            return
        if len(self.body) + len(data) > self._mirror.max_body_bytes:
            self.drop("size")
        elif not self._mirror.reserve(len(data)):
            self.drop("memory")
        else:
            self.body += data

    def send(self) -> None:
        """Send the copy; the request is whole. Later calls do nothing."""
        if self._is_over:
            return
        self._is_over = True
        self._mirror.give_back(len(self.body))  # a delivery reserves for itself
        self._mirror.send(self)
        self.body.clear()

    def drop(self, cause: str) -> None:
        """Give the copy up, if it is not on its way."""
        if self._is_over:
            return
        self._is_over = True
        model = self.verdict.decision.model
        for version in self.versions:
            self._mirror.count(model, version, f"dropped-{cause}")
        self._mirror.give_back(len(self.body))
        self.body.clear()


class Delivery(ResponseSink):
    """One copy on its way to one shadow; it drops what it is told.

    The endpoint's pool, which is none that serves clients, learns how it fared.
    """

    __slots__ = (
        "_data", "_method", "_pool", "_shadow", "_status", "deadline_s", "is_over", "size",
        "upstream",
    )  # fmt: skip
    _pool: Pool  # from `start` on

    def __init__(self, shadow: ShadowLane, method: bytes, data: bytes) -> None:
        self._method = method
        self._data = data
        self.size = len(data)  # bytes; reserved while it lasts
        self.deadline_s = 0.0
        self.upstream: UpstreamConnection | None = None
        self.is_over = False
        self._shadow = shadow
        self._status = 0  # until there is an answer

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
        upstream.start(self, self._method)
        upstream.is_sent = True
        upstream.send(self._data)
        self._data = b""

    def on_connect_failed(self, _reason: str) -> None:
        """Count the shadow as out of reach."""
        self.end("failed-connect")

    def on_response_head(self, response: Response, out: Pieces) -> None:
        """Count answers by the class of their status, and wait for the rest."""
        self._status = response.head.status
        self._shadow.on_answer(self, response)

    def on_interim_head(self, response: Response, out: Pieces) -> None:
        """Drop it."""

    def on_response_data(self, pieces: Pieces, body_bytes: int) -> None:
        """Drop it."""

    def on_response_end(self) -> None:
        """Be done."""
        self.upstream = None
        self._pool.note_status(self._status)
        self.end("answered")

    def on_upgrade(self, response: Response, out: Pieces) -> ResponseSink | None:
        """Copies ask for no other protocol."""
        return None

    def on_response_lost(self, _reason: str, *, is_unanswered: bool) -> None:
        """Count it; a copy is never sent twice."""
        self.upstream = None
        self._pool.note_failure()
        self.end("failed-lost")

    def on_upstream_full(self) -> None:
        """Do nothing: the copy is written already and its size is bounded."""

    def on_upstream_drained(self) -> None:
        """Do nothing."""

    def expire(self) -> None:
        """Give up. Only silence is the endpoint's fault: a long answer may be a good one."""
        if self.upstream is not None and not self._status:
            self._pool.note_failure()
        self.end("failed-timeout")

    def end(self, outcome: str) -> None:
        """Count the outcome, once, and let the next copy go."""
        if self.is_over:
            return
        self.is_over = True
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()
        self._data = b""
        self._shadow.on_end(self, outcome)


class ShadowLane:
    """The copies for one shadow version: some under way, others waiting, both bounded."""

    def __init__(
        self,
        mirror: Mirror,
        name: tuple[str, str],
        group: Group,
        spelling: Spelling,
        first_byte_s: float,
    ) -> None:
        """Serve the shadow `name`, which is model and version."""
        self._mirror = mirror
        self._model, self._version = name
        self._group = group
        self._spelling = spelling
        self._first_byte_s = first_byte_s
        self._waiting: deque[Delivery] = deque()
        self.under_way: set[Delivery] = set()

    def offer(self, copy: Copy, fields: list[bytes], lines: list[bytes]) -> None:
        """Take a copy, with the client's `fields` and the sidecar's `lines`; or count why not."""
        delivery = Delivery(self, copy.head.method, self._spell(copy, fields, lines))
        mirror = self._mirror
        if len(self.under_way) + len(self._waiting) >= mirror.max_queue:
            mirror.count(self._model, self._version, "dropped-queue")
        elif not mirror.reserve(delivery.size):
            mirror.count(self._model, self._version, "dropped-memory")
        elif len(self.under_way) < mirror.max_connections:
            self._start(delivery)
        else:
            delivery.deadline_s = mirror.now_s() + mirror.timeout_s
            self._waiting.append(delivery)

    def on_end(self, delivery: Delivery, outcome: str) -> None:
        """Count an outcome; start what waited longest."""
        self._mirror.count(self._model, self._version, outcome)
        self._mirror.give_back(delivery.size)
        if delivery in self.under_way:
            self.under_way.remove(delivery)
            while self._waiting and len(self.under_way) < self._mirror.max_connections:
                self._start(self._waiting.popleft())

    def on_answer(self, delivery: Delivery, response: Response) -> None:
        """Count the class of an answer's status; it has time for its body."""
        delivery.deadline_s = response.read_s + self._mirror.timeout_s
        self._mirror.count_status(self._model, self._version, response.head.status)

    def sweep(self, now_s: float) -> None:
        """End what took too long."""
        late = [delivery for delivery in self.under_way if delivery.deadline_s <= now_s]
        while self._waiting and self._waiting[0].deadline_s <= now_s:
            self._waiting.popleft().end("dropped-queue-timeout")
        for delivery in late:
            delivery.expire()

    def close(self) -> None:
        """End everything."""
        waiting = tuple(self._waiting)
        self._waiting.clear()
        for delivery in (*waiting, *self.under_way):
            delivery.end("failed-shutdown")

    def _spell(self, copy: Copy, fields: list[bytes], lines: list[bytes]) -> bytes:
        target, spelling = copy.head.target, self._spelling
        if spelling.rewrite is not None:
            target = spelling.rewrite(target, copy.verdict.rest)
        out: list[bytes | bytearray] = [copy.head.method, b" ", target, b" HTTP/1.1\r\n"]
        out += without(fields, spelling.replaced) if spelling.replaced else fields
        out += lines
        out += (spelling.lines, b"\r\n", copy.body)
        return b"".join(out)

    def _start(self, delivery: Delivery) -> None:
        delivery.deadline_s = self._mirror.now_s() + self._first_byte_s
        self.under_way.add(delivery)
        delivery.start(self._group.pick())


class Mirror:
    """Sends copies, each shadow version in a lane of its own, all within one memory limit."""

    def __init__(
        self,
        *,
        live: LivePolicies,
        upstreams: Upstreams,
        metrics: Metrics,
        limits: Limits,
        timeouts: Timeouts,
        monotonic_s: Callable[[], float],
    ) -> None:
        """Use `upstreams` of its own.

        So a shadow never takes a primary's connection, nor does it cost one its endpoint.
        """
        self.upstreams = upstreams
        self.max_body_bytes = limits.mirror_body_bytes
        self.max_queue = limits.mirror_queue
        self.max_connections = limits.mirror_connections
        self.timeout_s = timeouts.mirror_s
        self.now_s = monotonic_s
        self._live = live
        self._metrics = metrics
        self._tenant_lines = TenantLines()
        self._free_bytes = limits.mirror_memory_bytes
        self._lanes: dict[tuple[str, str], ShadowLane] = {}
        self._old: list[ShadowLane] = []

    def copy(
        self,
        head: RequestHead,
        verdict: Verdict,
        forwarded_lines: bytes,
        has_body: bool,  # noqa: FBT001
    ) -> Copy:
        """Begin a copy of a request that has shadows."""
        return Copy(self, head, verdict, forwarded_lines, has_body)

    def send(self, copy: Copy) -> None:
        """Send a whole request to each of its shadows."""
        fields, lines = self._fields(copy), self._lines(copy)
        model = copy.verdict.decision.model
        for version in copy.versions:
            try:
                lane = self._lanes.get((model, version)) or self._make_lane(model, version)
            except KeyError:  # the policy changed since the decision
                self.count(model, version, "dropped-policy")
                continue
            lane.offer(copy, fields, lines)

    def _fields(self, copy: Copy) -> list[bytes]:
        """Return the client's fields without credentials and framing."""
        return [
            line for line in copy.head.fields if _KINDS.of(line[: line.find(b":")]) not in _LEFT_OUT
        ]

    def _lines(self, copy: Copy) -> list[bytes]:
        """Return the sidecar's own lines; the body is whole, so its length is known."""
        lines = [
            copy.forwarded_lines,
            copy.head.host,
            b"\r\nX-Request-Id: ",
            copy.head.request_id,
            b"\r\nX-Shadow: 1\r\n",
            self._tenant_lines[copy.verdict.identity.tenant],
        ]
        if copy.has_body:
            lines.append(b"Content-Length: %d\r\n" % len(copy.body))
        return lines

    def sweep(self, now_s: float) -> None:
        """End what took too long."""
        for lane in self._lanes.values():
            lane.sweep(now_s)
        for lane in self._old:
            lane.sweep(now_s)
        self._old = [lane for lane in self._old if lane.under_way]
        self.upstreams.sweep(now_s)

    def forget_lanes(self) -> None:
        """Start afresh after a policy change; what is under way ends in its own time."""
        self._old += self._lanes.values()
        self._lanes.clear()
        self.upstreams.retain_versions(
            (model, shadow.version)
            for model, snapshot in self._live.snapshots.items()
            for shadow in snapshot.policy.shadows
        )

    def close(self) -> None:
        """End everything."""
        for lane in [*self._lanes.values(), *self._old]:
            lane.close()
        self.upstreams.close()

    def count(self, model: str, version: str, outcome: str) -> None:
        """Count what became of a copy."""
        self._metrics.count(COUNTER, "model", model, "version", version, "outcome", outcome)

    def count_status(self, model: str, version: str, status: int) -> None:
        """Count a shadow's answer by the class of its status."""
        self._metrics.count(
            "rmv_mirror_responses_total", "model", model, "version", version,
            "class", f"{status // 100}xx",
        )  # fmt: skip

    def reserve(self, size: int) -> bool:
        """Take `size` bytes of the memory limit; return whether there was room."""
        if size > self._free_bytes:
            return False
        self._free_bytes -= size
        return True

    def give_back(self, size: int) -> None:
        """Return bytes to the memory limit."""
        self._free_bytes += size

    def _make_lane(self, model: str, version: str) -> ShadowLane:
        policy = self._live.snapshots[model].policy
        deployed = policy.versions[version]
        group = self.upstreams.group_of(model, version, deployed)
        own = deployed.timeouts or VersionTimeouts()
        first_byte_s = own.first_byte_s or self.timeout_s
        spelling = Spelling(policy, version)
        lane = ShadowLane(self, (model, version), group, spelling, first_byte_s)
        self._lanes[model, version] = lane
        return lane
