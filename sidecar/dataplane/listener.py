"""Sockets, the client connections on them, the sweep that enforces timeouts, and the drain."""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from sidecar.dataplane.acceptor import LOG_EVERY_S, Acceptor, introduce
from sidecar.dataplane.client import PARTS, Clients
from sidecar.dataplane.connection import LINGER_S, ClientConnection
from sidecar.dataplane.respond import problem_response
from sidecar.errors import Code, ConfigError
from sidecar.runtime import faults
from sidecar.runtime.tasks import repeat, spawn, stop

if TYPE_CHECKING:
    import socket

    from sidecar.dataplane.client import Client
    from sidecar.dataplane.plane import Plane
    from sidecar.runtime.tls import ServerTls

SWEEP_S: Final = 0.25  # how late a timeout may be; a timer for each request would cost more
TLS_LOOK_S: Final = 1.0  # how late a changed certificate may be seen
_log = logging.getLogger("sidecar.dataplane")


class Listener:
    """Accepts clients for one plane."""

    def __init__(
        self, plane: Plane, tls: ServerTls | None = None, *, reads_proxy_header: bool = False
    ) -> None:
        """Speak TLS with `tls`; `reads_proxy_header` requires the PROXY protocol before it."""
        self.plane = plane
        self._tls = tls
        self._reads_proxy_header = reads_proxy_header
        self._has_preamble = reads_proxy_header or tls is not None
        self._tls_due_s = 0.0
        # After the client's own deadline, which knows whether it is still taking its last answer.
        self._tls_end_s = plane.timeouts.body_idle_s + 2 * LINGER_S
        self._complaint_due_s = float("-inf")
        self._failures = 0  # of clients that did not get to HTTP, since the last complaint
        self._clients = Clients(plane.limits.connections)
        self._acceptor: Acceptor | None = None
        self._joining: set[asyncio.Task[None]] = set()  # accepted, and no clients yet
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, listening: socket.socket) -> None:
        """Accept clients on a bound socket."""
        plane = self.plane
        head, body = problem_response(
            Code.OVERLOADED, "no file descriptor left", plane.make_id(), b"Connection: close\r\n"
        )
        refusal = head + body if self._tls is None else b""  # no handshake, no words
        self._acceptor = Acceptor(listening, self._take, plane.metrics, refusal)
        self._acceptor.start()
        self._sweeper = spawn(repeat(self._sweep, part="sweep"), name="sweep")

    async def drain(self, *, keeps_socket: bool = False) -> int:
        """Accept no more, finish what is in hand, and return how many had to be cut short.

        With `keeps_socket` another process accepts on the same socket, and what waits in its
        queue is left to that. Idle clients may have a request on its way: each has `drain_idle_s`
        for it to come. Ends within `drain_s`, or `drain_tunnel_s` where there are tunnels, and
        `LINGER_S` for those that are told so to hear it.
        """
        plane, clients = self.plane, self._clients
        plane.is_draining = plane.mirror.is_draining = True
        began_s, timeouts = plane.monotonic_s(), plane.timeouts
        cut: set[Client] = set()
        try:
            async with asyncio.timeout(timeouts.drain_s):
                await self._stop_accepting(keeps_socket=keeps_socket)
                await clients.emptied.wait()
        except TimeoutError:
            cut |= _give_up({client for client in clients if not client.is_tunnel})
        with suppress(TimeoutError):
            spent_s = plane.monotonic_s() - began_s
            async with asyncio.timeout(max(timeouts.drain_tunnel_s - spent_s, 0)):
                await clients.emptied.wait()
        cut |= _give_up(set(clients) - cut)
        if cut:
            plane.metrics.events["rmv_timeouts_total", "phase", "drain"] += len(cut)
            _log.warning("drain time is over", extra={"cut": len(cut)})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await clients.emptied.wait()
        for client in clients:
            client.on_drain_over()
        if self._sweeper is not None:
            await stop(self._sweeper)
        return len(cut)

    async def _stop_accepting(self, *, keeps_socket: bool) -> None:
        for client in self._clients:
            self._hasten(client)
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is not None and keeps_socket:
            acceptor.close()
        elif acceptor is not None:
            await acceptor.drain()
        if self._joining:
            await asyncio.wait(self._joining, timeout=self.plane.timeouts.drain_idle_s)
        await stop(*self._joining)

    def _hasten(self, client: Client) -> None:
        """Shorten how long an idle client is waited for, as the plane drains."""
        if client.is_idle:
            due_s = self.plane.monotonic_s() + self.plane.timeouts.drain_idle_s
            client.deadline_s = min(client.deadline_s, due_s)

    def _take(self, accepted: socket.socket) -> None:
        if self._has_preamble and self._connections() >= self.plane.limits.connections:
            # Without a word: to say one would take the handshake that a flood never ends.
            self.plane.metrics.count("rmv_limits_hit_total", "limit", "connections")
            accepted.close()
            return
        joining = spawn(self._join(accepted), name="join")
        self._joining.add(joining)
        joining.add_done_callback(self._joining.discard)

    def _connections(self) -> int:
        return len(self._clients) + len(self._joining)

    async def _join(self, accepted: socket.socket) -> None:
        """Make a client of an accepted socket; one that fails before that is gone, and told of."""
        peer = None
        came_from = _address(accepted) if self._has_preamble else ""
        if self._reads_proxy_header:
            try:
                async with asyncio.timeout(self.plane.timeouts.head_s):
                    # Who is not named is behind the other end, and nobody knows where.
                    peer = await introduce(accepted) or ""
            except (OSError, EOFError, ValueError) as error:  # TimeoutError is an OSError
                self.plane.metrics.count("rmv_proxy_protocol_failures_total")
                if (extra := self._complaint(came_from, error)) is not None:
                    _log.warning("connection refused: no PROXY header", extra=extra)
                return
        try:
            await self._serve(accepted, peer)
        except OSError as error:  # ssl.SSLError is one
            accepted.close()
            if self._tls is None:
                return
            self.plane.metrics.count("rmv_tls_handshake_failures_total")
            if (extra := self._complaint(peer or came_from, error)) is not None:
                _log.warning("connection refused: no TLS handshake", extra=extra)

    def _complaint(self, peer: str, error: Exception) -> dict[str, object] | None:
        """Return what to say of a client that did not get to HTTP; None to say nothing.

        Whoever just leaves is no news: load balancers look at ports so. And one in `LOG_EVERY_S`
        is told, for anybody can fail as often as he likes.
        """
        if isinstance(error, (ConnectionResetError, BrokenPipeError, EOFError)):
            return None
        self._failures += 1
        now_s = self.plane.monotonic_s()
        if now_s < self._complaint_due_s:
            return None
        self._complaint_due_s = now_s + LOG_EVERY_S
        failures, self._failures = self._failures, 0
        return {"peer": peer, "reason": _reason(error), "failures": failures}

    async def _serve(self, accepted: socket.socket, peer: str | None) -> None:
        """Begin HTTP with `peer`, as `ClientConnection` takes it. Raises OSError."""
        plane, tls = self.plane, self._tls
        client = ClientConnection(plane, self._clients, peer)
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: cast("asyncio.Protocol", client),
            sock=accepted,
            ssl=None if tls is None else tls.context,
            ssl_handshake_timeout=None if tls is None else plane.timeouts.head_s,
            ssl_shutdown_timeout=None if tls is None else self._tls_end_s,
        )
        if plane.is_draining:
            self._hasten(client)

    def _reload_tls(self, tls: ServerTls) -> None:
        try:
            if not tls.reload():
                return
            outcome = "loaded"
        except ConfigError as error:
            outcome = "refused"
            _log.error("TLS files refused: the former ones serve", extra={"reason": str(error)})
        self.plane.metrics.count("rmv_tls_reloads_total", "outcome", outcome)

    def _look_after(self, clients: set[Client]) -> None:
        now_s = self.plane.monotonic_s()
        for client in tuple(clients):
            try:
                if client.deadline_s < now_s:
                    client.on_deadline()
                elif client.reading.is_held:
                    client.notice_leaving()
            except Exception as error:  # noqa: BLE001 -- the others are looked after all the same
                faults.note("client", error)
                client.on_fault()

    async def _sweep(self) -> None:
        """Do what is due, once; the parts of it do not wait for each other."""
        plane = self.plane
        for part in self._clients.parts:
            await asyncio.sleep(SWEEP_S / PARTS)
            self._look_after(part)
        plane.read_clock()
        now_s = plane.monotonic_s()
        for work in (self._look_at_tls, plane.mirror.sweep, plane.upstreams.sweep, self._flush):
            try:
                work(now_s)
            except Exception as error:  # noqa: BLE001 -- the others are done all the same
                faults.note("sweep", error)

    def _look_at_tls(self, now_s: float) -> None:
        if self._tls is not None and self._tls_due_s < now_s:
            self._tls_due_s = now_s + TLS_LOOK_S
            self._reload_tls(self._tls)

    def _flush(self, _now_s: float) -> None:
        self.plane.recorder.flush()
        self.plane.metrics.gauges["rmv_connections"] = self._connections()


def _give_up(clients: set[Client]) -> set[Client]:
    """End what clients have in hand; return them."""
    for client in clients:
        client.on_drain_over()
    return clients


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error) or "too late"


def _address(accepted: socket.socket) -> str:
    try:
        peer = accepted.getpeername()
    except OSError:  # it has left
        return "unknown"
    return str(peer[0]) if isinstance(peer, tuple) else "unix"
