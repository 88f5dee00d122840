"""One request and its response. Read top to bottom: it is the life of a request.

Nothing here waits. When an endpoint's connection is idle, a request goes from the last byte of
its head to the upstream's socket in one call; only opening a connection takes a task.
"""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from sidecar.dataplane.flow import UNCONNECTED, UPSTREAM_FULL
from sidecar.dataplane.respond import problem_response
from sidecar.dataplane.tunnel import Tunnel
from sidecar.dataplane.waits import KEY_WAIT_S
from sidecar.decide import Pending, Verdict
from sidecar.errors import Code
from sidecar.model.decision import Cause, Decision
from sidecar.model.identity import ANONYMOUS
from sidecar.model.record import CLIENT_GONE, CLIENT_GONE_STATUS, ExchangeRecord
from sidecar.runtime import faults
from sidecar.upstream.breaker import Turn
from sidecar.upstream.contract import ResponseSink
from sidecar.upstream.dial import FaultyDialError
from sidecar.wire import fields as wire
from sidecar.wire.fields import passable_trailers
from sidecar.wire.framing import CHUNKED, LAST_CHUNK, UNTIL_CLOSE
from sidecar.wire.pieces import MIN_APART_BYTES, gathered
from sidecar.wire.request import KINDS

if TYPE_CHECKING:
    from sidecar.audit.decisions import Decisions
    from sidecar.dataplane.client import Client
    from sidecar.dataplane.mirror import Copy
    from sidecar.dataplane.plane import Lane, Plane
    from sidecar.dataplane.trial import Captured
    from sidecar.model.request import RequestHead
    from sidecar.telemetry.sampler import Tally
    from sidecar.upstream.connection import UpstreamConnection
    from sidecar.upstream.contract import Response
    from sidecar.upstream.dial import DialError
    from sidecar.upstream.pool import Pool
    from sidecar.wire.pieces import Pieces

MAX_UNSENT_BYTES: Final = 64 * 1024  # of a body that arrives before there is an upstream
SWITCHED: Final = 101
_REPEATABLE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""Methods that may be sent again when a connection dies unanswered (RFC 9110 section 9.2.2)."""

_CAUSES: Final = {
    Code.OVERLOADED: Cause.OVERLOADED,
    Code.UPSTREAM_FAILED: Cause.UPSTREAM_FAILED,
    Code.UPSTREAM_TIMEOUT: Cause.UPSTREAM_TIMEOUT,
}
_LIMITS: Final = {Code.BODY_TOO_LARGE: "body", Code.HEAD_TOO_LARGE: "head"}
"""What clients meet by what they send, as metrics name it."""

_OF_UPSTREAM: Final = frozenset((Code.UPSTREAM_FAILED.slug, Code.UPSTREAM_TIMEOUT.slug))
_UNDECIDED: Final = Verdict(ANONYMOUS, Decision("", "", "", 0))
_UNFIT: Final = {
    code: Verdict(ANONYMOUS, Decision("", "", f"DENIED:{code.slug}", 0, refusal=code))
    for code in Code
}
"""The verdict on a head that is refused before anything is decided."""


class Exchange(ResponseSink):
    """The life of one request.

    Attributes that few exchanges change stand here as defaults instead of being set in each.
    """

    verdict: Verdict = _UNDECIDED
    lane: Lane
    tally: Tally | None = None  # of the model, if it has a policy
    audit: Decisions | None = None  # if it is to be told of this exchange
    pin: str | None = None  # of the tenant when it was decided, if audit is to be told
    pool: Pool  # of the endpoint in hand
    turn: Turn | None = None  # while it waits in line
    is_entered = False  # among those that are with the version
    upstream: UpstreamConnection | None = None
    copy: Copy | None = None
    captured: Captured | None = None  # the answer, if it is to be compared with a shadow's
    is_begun = False
    is_pending = False  # its token's key is being looked for; not begun meanwhile
    was_pending = False
    is_request_done = False
    is_head_sent = False
    is_answered = False  # a byte of the answer is on its way to the client
    is_ended = False
    refusal: tuple[Code, str] | None = None  # to be answered at the end of this read
    is_retried = False
    head_pieces = 0  # of `out` and `replay`: the head; then comes the body
    replay: Pieces | None = None  # the request, while it may be sent again
    body_idle_s: float
    max_body_bytes: int | None
    is_bulky = False  # `out` has a piece that is written apart
    request_bytes = 0
    response_bytes = 0
    status = 0  # of the head that is, or will be, sent to the client; 0 until then
    code = ""
    endpoint = ""
    first_byte_s = -1.0
    at_s = 0.0  # epoch
    began_s = 0.0  # monotonic

    def __init__(self, client: Client, plane: Plane, head: RequestHead) -> None:
        self.client = client
        self.plane = plane
        self.head = head
        self.is_chunked = head.framing == CHUNKED  # the request's body
        self.is_http10 = head.is_http10
        self.keeps_client = head.keeps_alive  # whether the client connection goes on after this
        self.body_idle_s = plane.body_idle_s
        self.max_body_bytes = plane.max_body_bytes
        self.out: Pieces = []  # for the upstream, not written yet

    # --- 1. The head is here: decide -----------------------------------------------------------

    def begin(self) -> None:
        """Decide on the request and set out for the version that serves it."""
        plane, client, head = self.plane, self.client, self.head
        self.is_begun = True
        self.began_s = client.read_s
        self.at_s = plane.epoch_s + client.read_s
        if plane.is_unaudited:
            self.verdict = _UNFIT[Code.AUDIT_UNAVAILABLE]
            self.refuse(Code.AUDIT_UNAVAILABLE, "what is decided could not be recorded")
            return
        verdict = self.verdict = plane.decide(head, self.at_s, client.caller)
        decision = verdict.decision
        if decision.refusal is not None:
            if not isinstance(verdict, Pending) or not self._pend(verdict.issuer):
                self._decline(decision.refusal, decision)
            return
        if not self._join(decision):
            self.refuse(Code.OVERLOADED, "the version has all the requests that it may have")
            return
        limit = self.max_body_bytes
        if limit is not None and head.framing > limit:
            self.refuse(Code.BODY_TOO_LARGE, f"the body is over {limit} bytes")
            return
        if verdict.shadows.is_any and not head.upgrade:
            self.copy = plane.mirror.copy(head, verdict, client.forwarded_lines)
            self.captured = self.copy.captured
        pool = self.lane.group.pick()
        self.out = self._spell(pool)
        self.head_pieces = len(self.out)
        client.deadline_s = self.began_s + self.body_idle_s
        if self.is_entered:
            self._connect(pool)

    def _decline(self, refusal: Code, decision: Decision) -> None:
        """Refuse a request that gets no version."""
        plane = self.plane
        self.tally = plane.sampler.tally(decision.model)
        if plane.audit is not None:
            self._tell(plane.audit)
        self.refuse(refusal, decision.detail)

    def _pend(self, issuer: str) -> bool:
        """Wait, once, until the key that the token names has been looked for."""
        if self.was_pending or not self.plane.key_waits.add(self, issuer):
            return False
        self.is_pending = self.was_pending = True
        self.is_begun = False
        self.client.deadline_s = self.began_s + self.body_idle_s + KEY_WAIT_S
        return True

    def on_keys(self) -> None:
        """Begin anew with what has come of the request meanwhile: its token's key may be there."""
        try:
            self._begin_anew()
        except Exception as error:  # noqa: BLE001 -- whatever it is, its client does not wait on
            self._break(error)

    def _begin_anew(self) -> None:
        plane, client = self.plane, self.client
        self.is_pending = False
        body, self.out = self.out, []
        began_s, at_s = self.began_s, self.at_s
        client.read_s = plane.monotonic_s()
        self.begin()
        self.began_s, self.at_s = began_s, at_s  # its client waits since then
        if self.refusal is None:
            limit = self.max_body_bytes
            if limit is not None and self.request_bytes > limit:
                self.fail(Code.BODY_TOO_LARGE, f"the body is over {limit} bytes")
                return
            self.out += body
            self._copy_body(body)
            if self.is_request_done:
                client.deadline_s = client.read_s + self.lane.first_byte_s
        self.flush()
        if self.upstream is not None:
            client.reading.release(UNCONNECTED)

    def _copy_body(self, body: Pieces) -> None:
        """Give the mirror what had come of the body before there was a decision."""
        if self.copy is None:
            return
        if not self.is_chunked:
            for data in body:
                self.copy.add(data)
            return
        for size, data in zip(body[::3], body[1::3], strict=False):  # as `on_body` spells them
            if size == LAST_CHUNK:
                return
            self.copy.add(data)

    def _stop_pending(self) -> None:
        if self.is_pending:
            self.is_pending = False
            self.plane.key_waits.leave(self)

    def _join(self, decision: Decision) -> bool:
        """Join the version's requests, or their line, or those of one that serves instead."""
        plane, chosen = self.plane, decision
        while True:
            lane = self.lane = plane.lanes.get(chosen) or plane.make_lane(chosen)
            self.tally = lane.tally
            if lane.audit is not None:
                self._tell(lane.audit)
            self.body_idle_s, self.max_body_bytes = lane.body_idle_s, lane.max_body_bytes
            self.is_entered = lane.group.enter()
            if self.is_entered or self._line_up():
                return True
            if not lane.has_fallback or not self._decide_instead(Cause.OVERLOADED):
                return False
            chosen = self.verdict.decision

    def _tell(self, audit: Decisions) -> None:
        """Have audit told of this exchange when it ends, and of what it was decided from."""
        snapshot = self.verdict.snapshot
        if self.audit is None and snapshot is not None:
            self.pin = snapshot.pins.get(self.verdict.identity.tenant)
        self.audit = audit

    def _spell(self, pool: Pool) -> Pieces:
        """Return the pieces of the head that the version gets."""
        verdict, client = self.verdict, self.client
        tenant_line = self.plane.tenant_lines[verdict.identity.tenant]
        lines = client.forwarded_lines, tenant_line
        return self.lane.spelling.head(self.head, verdict.rest, pool.authority, lines)

    # --- 2. Find a connection ------------------------------------------------------------------

    def _line_up(self) -> bool:
        """Wait until another request of the version ends, unless too many wait already."""
        upstreams, group = self.plane.upstreams, self.lane.group
        turn = Turn(self._on_admitted, self._on_late, self.began_s + upstreams.queue_timeout_s)
        if group.wait(turn):
            self.turn = turn
            return True
        self._count("rmv_limits_hit_total", "limit", "concurrency")
        return False

    def _on_admitted(self) -> None:
        self.turn = None
        self.is_entered = True
        try:
            self._set_out(self.lane.group.pick())
        except Exception as error:  # noqa: BLE001 -- as above
            self._break(error)

    def _on_late(self) -> None:
        self.turn = None
        try:
            self._count("rmv_limits_hit_total", "limit", "concurrency")
            if not self._fall_back(Cause.OVERLOADED):
                self.fail(Code.OVERLOADED, "the version had no room in time")
        except Exception as error:  # noqa: BLE001 -- as above
            self._break(error)

    def _connect(self, pool: Pool) -> None:
        self.pool = pool
        self.endpoint = pool.url
        upstream = pool.acquire()
        if upstream is None:
            pool.connect(self._on_connected, self._on_connect_failed)
        else:
            self.upstream = upstream
            upstream.start(self, self.head.method)

    def _on_connected(self, upstream: UpstreamConnection) -> None:
        if self.is_ended:
            upstream.give_back()
            return
        self.upstream = upstream
        upstream.start(self, self.head.method)
        self.flush()
        self.client.reading.release(UNCONNECTED)

    def _on_connect_failed(self, error: DialError) -> None:
        """Try one other endpoint, if there is one: no byte of the request has been sent."""
        if self.is_ended:
            return
        try:
            self._connect_elsewhere(error)
        except Exception as fault:  # noqa: BLE001 -- as above
            self._break(fault)

    def _connect_elsewhere(self, error: DialError) -> None:
        reason = str(error)
        if isinstance(error, FaultyDialError):
            self.fail(Code.SIDECAR_FAULT, reason)
            return
        if error.is_late:
            self._count("rmv_timeouts_total", "phase", "connect")
        if error.limit:
            self._count("rmv_limits_hit_total", "limit", error.limit)
        if error.is_own:
            self._fail_over(Code.OVERLOADED, reason)
            return
        is_lone = len(self.lane.group.pools) == 1
        if is_lone or self.is_retried or not self._retry("connect"):
            self._fail_over(Code.UPSTREAM_FAILED, reason)

    def _retry(self, cause: str) -> bool:
        """Try another endpoint, once, if the version's budget allows."""
        group = self.lane.group
        if not group.budget.spend():
            self._count("rmv_retries_total", "cause", "budget-spent")
            return False
        self.is_retried = True
        self._count("rmv_retries_total", "cause", cause)
        self._set_out(group.after(self.endpoint))
        return True

    def _decide_instead(self, failed: Cause) -> bool:
        """Let the version's fallback serve, if there is one for this caller."""
        verdict = self.verdict
        decision = self.plane.instead(verdict, self.head, failed)
        if decision is None:
            return False
        self.verdict = verdict.but(decision)
        return True

    def _fall_back(self, failed: Cause) -> bool:
        """Start over with the version's fallback; `out` has all that has come of the request."""
        if not self.lane.has_fallback or not self._decide_instead(failed):
            return False
        if self.is_entered:
            self.lane.group.leave()
            self.is_entered = False
        body = self.out[self.head_pieces :]
        if not self._join(self.verdict.decision):
            return False
        limit = self.max_body_bytes
        if limit is not None and max(self.head.framing, self.request_bytes) > limit:
            return False
        pool = self.lane.group.pick()
        out = self._spell(pool)
        self.head_pieces = len(out)
        self.out = out + body
        self.is_retried = self.is_head_sent = False
        wait_s = self.lane.first_byte_s if self.is_request_done else self.body_idle_s
        self.client.deadline_s = self.plane.monotonic_s() + wait_s
        if self.is_entered:
            self._set_out(pool)
        return True

    def _fail_over(self, code: Code, reason: str) -> None:
        """Fall back; where there is nobody, answer with what befell the version."""
        if not self._fall_back(_CAUSES[code]):
            self.fail(code, reason)

    def _count(self, name: str, label: str, value: str) -> None:
        """Count what befell a request, by the version that it was for."""
        decision = self.verdict.decision
        labels = label, value, "model", decision.model, "version", decision.version
        self.plane.metrics.count(name, *labels)

    def _set_out(self, pool: Pool) -> None:
        """Connect and write, outside of a read from the client."""
        self._connect(pool)
        self.flush()
        if self.upstream is not None:
            self.client.reading.release(UNCONNECTED)

    # --- 3. The request's body -----------------------------------------------------------------

    def on_body(self, data: bytes | memoryview) -> None:
        """Take a piece of the body."""
        if self.is_ended or self.refusal is not None:
            return
        self.request_bytes += len(data)
        self.is_bulky |= len(data) >= MIN_APART_BYTES
        limit = self.max_body_bytes
        if limit is not None and self.request_bytes > limit:
            self.fail(Code.BODY_TOO_LARGE, f"the body is over {limit} bytes")
            return
        if self.is_chunked:
            self.out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self.out.append(data)
        if self.copy is not None:
            self.copy.add(data)

    def on_request_end(self, trailers: list[bytes]) -> None:
        """Learn that the request is whole; `trailers` are lines that decide nothing any more."""
        self.is_request_done = True
        if self.is_ended:
            return
        if self.is_chunked:
            self.out.append(LAST_CHUNK)
            if trailers:
                self.out += passable_trailers(trailers, self.head.trailer, KINDS)
            self.out.append(b"\r\n")
        if self.is_begun and self.refusal is None:
            client = self.client
            client.deadline_s = client.read_s + self.lane.first_byte_s

    def flush(self) -> None:
        """Write what has been collected; called once for each read from the client."""
        if self.refusal is not None:
            self._answer(*self.refusal)
            return
        upstream = self.upstream
        if upstream is None:
            if self.request_bytes > MAX_UNSENT_BYTES and not self.is_ended:
                self.client.reading.hold(UNCONNECTED)
        elif self.out:
            self._write(upstream)
        if self.copy is not None and self.is_request_done:
            self.copy.send(self.client.read_s)

    def _write(self, upstream: UpstreamConnection) -> None:
        pieces = self.out
        out = gathered(pieces, is_bulky=self.is_bulky)
        self.out = []
        self.is_bulky = False
        if self.is_request_done:
            upstream.is_sent = True
            is_whole = not self.is_head_sent and not self.head.upgrade
            if is_whole and (upstream.served or self.lane.has_fallback):
                self.replay = pieces
        self.is_head_sent = True
        if len(out) == 1:
            upstream.send(out[0])
        else:
            upstream.send_pieces(out)

    def on_upstream_full(self) -> None:
        """Hold the client's body back."""
        self.client.reading.hold(UPSTREAM_FULL)

    def on_upstream_drained(self) -> None:
        """Let the client go on."""
        self.client.reading.release(UPSTREAM_FULL)

    # --- 4. The response -----------------------------------------------------------------------

    @property
    def copies(self) -> bool:
        """Whether bytes for the client are encrypted at once, however slowly it takes them."""
        return self.client.transport.get_extra_info("ssl_object") is not None

    def on_interim_head(self, response: Response, out: Pieces) -> None:
        """Pass a 1xx on; HTTP/1.0 knows none (RFC 9110 section 15.2)."""
        self.replay = None  # the upstream is at work on it
        if not self.is_http10:
            out += (response.head.passed, b"\r\n")

    def on_response_head(self, response: Response, out: Pieces) -> None:
        """Compose the head that the client gets."""
        self.first_byte_s = response.read_s - self.began_s
        head = response.head
        self.status = head.status
        self.replay = None  # a stream may last, and its request would be held as long
        if self.client.is_full and self.upstream is not None:  # left so by the exchange before
            self.upstream.pause()
        if not self.is_request_done or self.plane.is_draining or response.framing == UNTIL_CLOSE:
            self.keeps_client = False
        out.append(head.passed)
        if response.writes_chunks:
            if self.is_http10:
                response.writes_chunks = self.keeps_client = False
            else:
                out.append(b"Transfer-Encoding: chunked\r\n")
                if head.trailer:
                    out.append(b"Trailer: %b\r\n" % head.trailer)
        out += (self.lane.response_lines, b"X-Request-Id: ", self.head.request_id)
        if self.keeps_client and not self.is_http10:
            out.append(b"\r\n\r\n")
        else:
            out += (b"\r\nConnection: ", self._connection_option(), b"\r\n\r\n")
        if self.captured is not None:
            self.captured.begin(response, len(out))

    def _connection_option(self) -> bytes:
        return b"keep-alive" if self.keeps_client else b"close"

    def on_upgrade(self, response: Response, out: Pieces) -> ResponseSink | None:
        """Become a tunnel, if that is what the client asked for (RFC 9110 section 7.8)."""
        upstream, asked, head = self.upstream, self.head.upgrade, response.head
        protocols = wire.tokens(head.upgrade)
        if upstream is None or not asked or not protocols <= wire.tokens(asked):
            return None
        if not self.is_request_done:  # what is left of the body would be taken for the protocol's
            return None
        self.first_byte_s = response.read_s - self.began_s
        self.status, self.keeps_client, self.replay = head.status, False, None
        self.pool.note_success()
        out += (head.passed, b"Connection: Upgrade\r\nUpgrade: ", head.upgrade, b"\r\n")
        out += (self.lane.response_lines, b"X-Request-Id: ", self.head.request_id, b"\r\n\r\n")
        tunnel = Tunnel(self.client, upstream, self, self.plane.timeouts.tunnel_idle_s)
        self.client.open_tunnel(tunnel)
        return tunnel

    def on_response_data(self, pieces: Pieces, body_bytes: int) -> None:
        """Pass bytes on to the client."""
        self.is_answered = is_answered = self.status != 0  # a 1xx is no answer
        self.response_bytes += body_bytes
        client, upstream = self.client, self.upstream
        if upstream is not None:
            is_body_due = is_answered or not self.is_request_done
            wait_s = self.body_idle_s if is_body_due else self.lane.first_byte_s
            client.deadline_s = upstream.read_s + wait_s
            if self.captured is not None:
                self.captured.take(pieces, body_bytes, upstream.read_s)
        out = gathered(pieces, is_bulky=body_bytes >= MIN_APART_BYTES)
        if len(out) == 1:
            client.transport.write(out[0])
        else:
            client.transport.writelines(out)

    def on_response_end(self) -> None:
        """Be done: the response is whole, and its connection free for others."""
        upstream, self.upstream = self.upstream, None
        self.pool.note_status(self.status)  # not before: a body may still be lost
        self._end(upstream.read_s if upstream is not None else self.plane.monotonic_s())

    def on_response_lost(self, reason: str, *, is_unanswered: bool) -> None:
        """Try once more where that is safe; else say so, or cut the response short."""
        upstream, self.upstream = self.upstream, None
        self.pool.note_failure()
        replay = self.replay
        if replay is None or upstream is None or not is_unanswered:
            self.fail(Code.UPSTREAM_FAILED, reason)
        elif not self._is_repeatable() and not upstream.is_unread():
            self.fail(Code.UPSTREAM_FAILED, reason)  # the upstream may be at work on it
        else:
            self.out = replay
            if self.is_retried or not upstream.served or not self._retry("reset"):
                self._fail_over(Code.UPSTREAM_FAILED, reason)

    def _is_repeatable(self) -> bool:
        """Return whether doing the request twice does no harm."""
        return self.head.method in _REPEATABLE or self.lane.is_idempotent

    # --- 5. Ends -------------------------------------------------------------------------------

    def refuse(self, code: Code, detail: str) -> None:
        """Answer with a problem instead of asking an upstream.

        Not before `flush`: what this read holds of the body may end it, and then the client
        connection can go on.
        """
        self.refusal = code, detail

    def _answer(self, code: Code, detail: str) -> None:
        self.refusal = None
        self._note_limit(code)
        self._stop_pending()
        plane, request_id = self.plane, self.head.request_id
        if not self.is_begun:
            self.verdict = _UNFIT[code]
            self.began_s = plane.monotonic_s()
            self.at_s = plane.epoch_s + self.began_s
        if not self.is_request_done or plane.is_draining:
            self.keeps_client = False
        date = formatdate(self.at_s, usegmt=True).encode()  # RFC 9110 section 6.6.1
        extra = b"Date: %b\r\nX-Request-Id: %b\r\n" % (date, request_id)
        decision = self.verdict.decision
        if plane.shows_decisions:
            if decision.version:
                extra += b"X-Model-Version: %b\r\n" % decision.version.encode("latin-1")
            extra += b"X-Model-Decision: %b\r\n" % decision.reason.encode("latin-1", "replace")
        if not self.keeps_client:
            extra += b"Connection: close\r\n"
        elif self.is_http10:
            extra += b"Connection: keep-alive\r\n"
        head, body = problem_response(code, detail, request_id, extra)
        self.status, self.code = code.status, code.slug
        if self.head.method == b"HEAD":
            body = b""
        self.response_bytes = len(body)
        self.client.transport.write(head + body)
        self._end(self.plane.monotonic_s())

    def _note_limit(self, code: Code) -> None:
        limit = _LIMITS.get(code)
        if limit is not None:
            self._count("rmv_limits_hit_total", "limit", limit)

    def _abandon(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()

    def fail(self, code: Code, reason: str) -> None:
        """End an exchange that was under way: with a problem, or with a cut once a head is out."""
        self._abandon()
        self.plane.metrics.count("rmv_failed_exchanges_total", "code", code.slug)
        if not self.is_answered:
            self.status = 0
            self._answer(code, reason)
            return
        self._note_limit(code)
        self.code = code.slug
        self.keeps_client = False
        self.client.cut()
        self._end(self.plane.monotonic_s())

    def on_client_gone(self) -> None:
        """Give up: nobody is left to answer."""
        if self.is_ended:
            return
        self._abandon()
        self.status = self.status or CLIENT_GONE_STATUS
        if self.status != SWITCHED:  # that is how tunnels end
            self.code = CLIENT_GONE
        if self.is_begun or self.is_pending:
            self._stop_pending()
            self._end(self.plane.monotonic_s())

    def on_timeout(self) -> None:
        """End an exchange whose deadline has passed, and blame whoever was waited for."""
        client = self.client
        self._count("rmv_timeouts_total", "phase", self._phase())
        if client.is_full or self.status == SWITCHED:
            client.cut()
            self.keeps_client = False
            self.on_client_gone()
        elif self.is_request_done or client.reading.is_held_for(UPSTREAM_FULL):
            self._on_upstream_late()
        else:
            self.fail(Code.REQUEST_TIMEOUT, "the request's body did not arrive in time")

    def _phase(self) -> str:
        """Name what is waited for, as metrics tell it."""
        if self.status == SWITCHED:
            return "tunnel"
        is_awaited = self.is_request_done and not self.is_answered and not self.client.is_full
        return "first-byte" if is_awaited else "body"

    def _on_upstream_late(self) -> None:
        code, reason = Code.UPSTREAM_TIMEOUT, "the upstream did not answer, or read, in time"
        if self.is_entered:
            self.pool.note_failure()
        upstream, replay = self.upstream, self.replay
        # Without an upstream a connection is being opened, and would be taken for the fallback's.
        if upstream is None or replay is None or self.is_answered or not self._is_repeatable():
            self.fail(code, reason)
            return
        upstream.abandon()
        self.upstream = None
        self.out = replay
        self._fail_over(code, reason)

    def on_fault(self) -> None:
        """End with the client's connection: what state that is in nobody knows."""
        self.client.on_fault()

    def _break(self, error: Exception) -> None:
        """Note a fault of what goes on outside of a read from the client; end with that."""
        faults.note("client", error)
        self.client.on_fault()

    def give_up(self) -> None:
        """Let go of everything after a fault, whatever state that has left this in."""
        try:
            self._abandon()
            self._stop_pending()
        finally:
            if not self.is_ended:
                self.status = self.status or Code.SIDECAR_FAULT.status
                self.code = Code.SIDECAR_FAULT.slug
                self.plane.metrics.count("rmv_failed_exchanges_total", "code", self.code)
            self._end(self.plane.monotonic_s())
            self._leave()

    def on_tunnel_end(self) -> None:
        """Be done: one side of the tunnel has left."""
        self._abandon()
        self._end(self.plane.monotonic_s())

    def _end(self, now_s: float) -> None:
        if self.is_ended:
            return
        self.is_ended = True
        head, verdict, plane = self.head, self.verdict, self.plane
        # Whatever fails of what is told: no client, and no version, pays for it.
        try:
            identity = verdict.identity
            record = ExchangeRecord(
                self.at_s,
                head.request_id.decode("ascii"),
                head.method.decode("ascii"),
                head.target.decode("latin-1"),
                identity.tenant,
                identity.subject,
                identity.app,
                verdict.decision,
                self.status,
                self.code,
                self.endpoint,
                self.first_byte_s,
                now_s - self.began_s,
                self.request_bytes,
                self.response_bytes,
                plane.live.is_stale,
                self.copy.versions if self.copy is not None else (),
            )
            plane.record(record)
            if self.audit is not None:
                self.audit.take(record, identity, head, verdict.snapshot, self.pin)
            tally = self.tally
            if tally is not None and tally.is_due():
                tally.take(identity, head, verdict.decision, self.at_s, now_s - self.began_s)
        except Exception as error:  # noqa: BLE001 -- see above
            faults.note("record", error)
        try:
            if self.copy is not None:
                took_s = -1.0 if self.code else now_s - self.began_s
                status = 0 if self.code in _OF_UPSTREAM else self.status
                self.copy.end(status, verdict.decision.version, took_s, now_s)
        except Exception as error:  # noqa: BLE001 -- see above
            faults.note("copying", error)
        self._leave()
        self.client.on_exchange_end(now_s)

    def _leave(self) -> None:
        """Make room for others of the version; later calls do nothing."""
        if self.is_entered:
            self.is_entered = False
            self.lane.group.leave()
        elif self.turn is not None:
            turn, self.turn = self.turn, None
            self.lane.group.withdraw(turn)
