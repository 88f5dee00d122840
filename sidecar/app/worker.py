"""One worker: the data plane of a sidecar, wired."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import platform
import random
import stat
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sidecar import __version__
from sidecar.app import signing
from sidecar.app.auditing import audit_log
from sidecar.app.shadowing import Shadowing
from sidecar.app.spec import (
    KEYS,
    LONGEST_STALL,
    METRICS,
    POLICIES,
    POLICIES_BEHIND,
    POLICIES_LOST,
    POLICIES_STALE,
    POLICY_FAULTS,
    READY,
    UNKNOWN_KEY,
)
from sidecar.audit.decisions import Decisions
from sidecar.config import allow_list
from sidecar.dataplane.listener import Listener
from sidecar.dataplane.mirror import Mirror
from sidecar.dataplane.plane import Plane
from sidecar.decide import ClaimedTenants, Decider
from sidecar.errors import ConfigError, SidecarError
from sidecar.identity.callers import Callers
from sidecar.policy.route import RouteTable
from sidecar.runtime import faults
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.ids import RequestIds
from sidecar.runtime.questions import serve_questions
from sidecar.runtime.signals import RETIRE, Ending
from sidecar.runtime.tasks import spawn, stop
from sidecar.runtime.tls import ServerTls
from sidecar.runtime.watchdog import Watchdog
from sidecar.store.adoption import DIRECT
from sidecar.store.connect import open_store
from sidecar.store.contexts import ContextWriter
from sidecar.store.keys import Keys
from sidecar.store.live import LivePolicies
from sidecar.store.pulse import Member, Pulse
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recorder import Recorder
from sidecar.telemetry.sampler import Sampler
from sidecar.upstream.dial import Dialer
from sidecar.upstream.endpoint import spelled
from sidecar.upstream.health import HealthChecks
from sidecar.upstream.own import OwnListeners
from sidecar.upstream.pool import PoolSettings, Upstreams

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from sidecar.app.tokens import Tokens
    from sidecar.audit.log import AuditLog
    from sidecar.config import Config
    from sidecar.controller.publishing import Publisher
    from sidecar.dataplane.trial import Book
    from sidecar.model.audit import AuditSettings
    from sidecar.model.policy import Policy
    from sidecar.policy.address import AllowList
    from sidecar.runtime.clock import Clock
    from sidecar.runtime.questions import Answers
    from sidecar.store.base import Store
    from sidecar.store.revocations import Revocations

LOAD_WAIT_S: Final = 2.0  # for policies, before traffic is accepted without them
_log = logging.getLogger("sidecar.worker")


async def run_worker(config: Config, listening: socket.socket, answering: socket.socket) -> None:
    """Serve on a bound socket until a signal comes, then drain.

    What waits in the queue of the socket is taken too, unless RETIRE says that another worker
    will take it.
    """
    ending = Ending(RETIRE)
    faults.outlive(asyncio.get_running_loop())
    listening.set_inheritable(False)
    worker = Worker(config)
    memory = await signing.remember(config, worker.live)
    store = open_store(config.redis, config.prefix, config.state_dir)
    audit = worker.audit_into(config.audit, store)
    watch = spawn(store.watch(worker.live), name="policy-watch")
    contexts = worker.context_writer(store)
    writing = spawn(contexts.run(), name="contexts")
    beating = spawn(store.beat(worker.pulse), name="heartbeat")
    answers = await serve_questions(answering, worker.questions())
    worker.tell_of_unknown_keys(answers)
    await worker.wait_until_fit()
    try:
        await audit.start()  # whether it can be written is known before the first request
        await worker.listener.start(listening)
    except (SidecarError, OSError) as error:
        answers.excuse(str(error))
        raise
    answers.begin()
    publisher = worker.publisher(store)
    publishing = spawn(publisher.run(), name="shadow-counts")
    watchdog = Watchdog(worker.note_stall)
    gc.collect()
    gc.freeze()  # what was built so far lives as long as the process: do not walk it again
    keeps_socket = await ending.asked() is RETIRE
    cut = await worker.listener.drain(keeps_socket=keeps_socket)
    watchdog.close()
    await stop(watch, writing, beating, publishing)
    await contexts.flush()
    await worker.end_shadows(publisher)
    if memory is not None:
        await memory.end()
    await audit.close()
    await store.close()
    worker.close()
    await answers.end(worker.exposition())
    _log.info("worker stopped", extra={"cut": cut})


class Worker:
    """The parts of a data plane, each built once and given what it needs."""

    def __init__(self, config: Config) -> None:
        allowed = allow_list(config)
        self._metrics = Metrics()
        trust = signing.trust_of(config, self._metrics)
        self.live = LivePolicies(Keys(config.prefix), self._on_policy_change, allowed, trust)
        self._recorder = Recorder(self._metrics, _open_log(config.exchange_log))
        self._contexts = config.contexts
        # The control process tells sidecars of one host apart; its workers are one sidecar.
        instance = f"{platform.node()}-{os.getppid()}"
        self._sampler = Sampler(config.contexts.per_second, random.random, instance)
        clock = SystemClock()
        self._answers: Answers | None = None
        self._tokens = _tokens(config, self._on_unknown_key, clock, self.live.revocations)
        worker = f"{os.getpid()}-{os.urandom(3).hex()}"  # containers may share name and pids
        member = Member(instance, worker, __version__, clock.now_s())
        self.pulse = Pulse(member, self.live, self._totals)
        settings = self._pool_settings(config, allowed)
        self._shadowing = Shadowing(config.limits, clock, self._metrics)
        self._plane = self._make_plane(config, settings, clock)
        self._health = HealthChecks(
            # Of its own: a check is a fresh connection, and says nothing of those in use.
            Upstreams(replace(settings, max_idle=0), clock.monotonic_s),
            traffic=(self._plane.upstreams, self._plane.mirror.upstreams),
            metrics=self._metrics,
            on_unready=self.live.set_unready,
            draw=random.random,
        )
        self.listener = Listener(
            self._plane,
            None if config.tls is None else ServerTls(config.tls),
            reads_proxy_header=config.proxy_protocol,
        )

    def _pool_settings(self, config: Config, allowed: AllowList) -> PoolSettings:
        """Return how requests reach endpoints."""
        return PoolSettings(
            connect_timeout_s=config.timeouts.connect_s,
            idle_timeout_s=config.timeouts.upstream_idle_s,
            max_idle=config.limits.idle_upstreams,
            hides_decisions=config.decision_headers,
            queue_timeout_s=config.timeouts.queue_s,
            workers=config.workers,
            dialer=Dialer(
                config.upstream,
                config.upstream_tls,
                users=self._users_of,
                allowed=allowed,
                own=OwnListeners(filter(None, (config.listen, config.admin))),
            ),
        )

    def _make_plane(self, config: Config, settings: PoolSettings, clock: Clock) -> Plane:
        """Return what requests pass through, and their copies."""
        return Plane(
            decider=Decider(
                self.live,
                RouteTable(config.routes, config.model),
                ClaimedTenants() if self._tokens is None else self._tokens.identities,
            ),
            live=self.live,
            upstreams=Upstreams(settings, clock.monotonic_s, self._metrics),
            mirror=self._make_mirror(config, settings, clock),
            recorder=self._recorder,
            sampler=self._sampler,
            metrics=self._metrics,
            ids=RequestIds(os.urandom(10)),
            clock=clock,
            timeouts=config.timeouts,
            limits=config.limits,
            shows_decisions=config.decision_headers,
            shows_lineage=config.lineage_header,
            callers=Callers(config.callers) if config.callers.are_believed else None,
        )

    def _make_mirror(self, config: Config, settings: PoolSettings, clock: Clock) -> Mirror:
        copies = replace(settings, traffic="copies")
        return Mirror(
            live=self.live,
            upstreams=Upstreams(copies, clock.monotonic_s, self._metrics),
            metrics=self._metrics,
            limits=config.limits,
            timeouts=config.timeouts,
            monotonic_s=clock.monotonic_s,
            judge=self._shadowing,
        )

    def audit_into(self, settings: AuditSettings, store: Store) -> AuditLog:
        """Return the audit that is told from now on what this worker decides and adopts."""
        clock = SystemClock()
        audit = audit_log(settings, store, role="worker", clock=clock, metrics=self._metrics)

        def on_adopted(policy: Policy) -> None:
            audit.note(
                "adopt",
                actor=policy.actor or DIRECT,
                model=policy.model,
                revision=policy.revision,
                comment=policy.comment,
            )

        if audit.is_on:
            self._plane.audit = Decisions(audit, are_callers_known=self._tokens is not None)
            audit.on_refusing = self._plane.on_refusing
            self.live.on_adopted = on_adopted
        return audit

    def context_writer(self, store: Store) -> ContextWriter:
        """Return what moves contexts of this worker's requests into the store."""
        return ContextWriter(store, self._sampler, self._contexts, self._metrics)

    def publisher(self, store: Store) -> Publisher[Book]:
        """Return what tells the store of this worker's shadow tests."""
        return self._shadowing.publisher(store, self._plane.mirror, self.live, self.pulse.member)

    async def end_shadows(self, publisher: Publisher[Book]) -> None:
        """End copies that are under way, and tell of all tests for the last time."""
        self._plane.mirror.close()
        await self._shadowing.close()
        await publisher.close()

    def questions(self) -> dict[str, Callable[[str], str]]:
        """Return what answers each question of the control process."""
        return {
            READY: lambda _: self.unready(),
            METRICS: lambda _: self.exposition(),
            KEYS: self.take_keys,
        }

    def tell_of_unknown_keys(self, answers: Answers) -> None:
        """Say on this line when a token names a key that is not known."""
        self._answers = answers

    def take_keys(self, told: str) -> str:
        """Believe tokens by the keys that the control process tells of; return nothing."""
        if self._tokens is not None:
            self._plane.key_waits.settle(self._tokens.take(told))
        return ""

    async def wait_until_fit(self) -> None:
        """Give policies and keys a moment: without them every request would be refused."""
        for _ in range(int(LOAD_WAIT_S / 0.01)):
            if not self._lacking():
                return
            await asyncio.sleep(0.01)
        if not self.live.is_loaded:
            _log.error("policies are not loaded: answering 503 not-ready until they are")

    def unready(self) -> str:
        """Return why this worker should get no traffic, or an empty text."""
        if self._plane.is_unaudited:
            return "audit cannot be written"
        return "draining" if self._plane.is_draining else self._lacking()

    def _lacking(self) -> str:
        """Return what is not there yet and must be, or an empty text."""
        if not self.live.is_loaded:
            return "policies are not loaded"
        return "" if self._tokens is None else self._tokens.issuers.lacking()

    def _on_unknown_key(self, issuer: str) -> None:
        if self._answers is not None:
            self._answers.notice(f"{UNKNOWN_KEY} {issuer}")

    def note_stall(self, seconds: float) -> None:
        """Count a time in which the event loop stood still."""
        self._metrics.count("rmv_loop_stalls_total")
        gauges = self._metrics.gauges
        gauges[LONGEST_STALL] = max(seconds, gauges.get(LONGEST_STALL, 0.0))

    def exposition(self) -> str:
        """Return the metrics of this worker."""
        self._recorder.flush()
        gauges = self._metrics.gauges
        gauges[POLICIES] = len(self.live.snapshots)
        gauges[POLICY_FAULTS] = len(self.live.faults)
        gauges[POLICIES_STALE] = float(self.live.is_stale)
        gauges[POLICIES_LOST] = len(self.live.lost)
        gauges[POLICIES_BEHIND] = len(self.live.behind)
        signing.measure(self.live.trust, self._metrics)
        if self._tokens is not None:
            self._tokens.measure(self._metrics)
        self._plane.upstreams.measure()
        self._plane.mirror.upstreams.measure_ejected()
        self._plane.mirror.measure()
        return self._metrics.exposition()

    def close(self) -> None:
        """Let go of everything, once the listener has drained."""
        self._health.close()
        self._plane.mirror.close()
        self._plane.upstreams.close()
        self._recorder.flush()

    def _users_of(self, url: str) -> str:
        """Return the versions that have an endpoint, as the log tells them."""
        return spelled(
            (model, name)
            for model, snapshot in self.live.snapshots.items()
            for name, version in snapshot.policy.versions.items()
            if url in version.endpoints
        )

    def _on_policy_change(self, model: str) -> None:
        self._metrics.count("rmv_policy_changes_total", "model", model)
        # Each, whatever becomes of the others: nobody tells of the change again.
        for tell in (self._update_health, self._plane.on_policy_change, self.pulse.notice):
            try:
                tell(model)
            except Exception as error:  # noqa: BLE001 -- see above
                faults.note("policies", error, model=model)

    def _update_health(self, model: str) -> None:
        snapshot = self.live.snapshots.get(model)
        self._health.update(model, None if snapshot is None else snapshot.policy)

    def _totals(self) -> dict[str, int]:
        self._recorder.flush()
        return self._metrics.totals()


def _tokens(
    config: Config, ask: Callable[[str], None], clock: Clock, revocations: Revocations
) -> Tokens | None:
    if config.no_auth:
        return None
    # Loaded only where tokens are checked: cryptography is a fifth of a worker's memory.
    from sidecar.app.tokens import Tokens  # noqa: PLC0415

    return Tokens(config, ask, clock, revocations)


def _open_log(target: str) -> int | None:
    """Open the exchange log anew, so that making it non-blocking touches nobody else's stdout."""
    if target == "off":
        return None
    if target == "stdout" and stat.S_ISREG(os.fstat(1).st_mode):
        return os.dup(1)  # another offset into the same file would overwrite what others write
    path = "/dev/stdout" if target == "stdout" else target
    try:
        # Non-blocking from the start: a FIFO that nobody reads is an error, not a long wait.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(path, flags, 0o640)
    except OSError as error:
        if target != "stdout":
            raise ConfigError(f"exchange_log: {target}: {error.strerror}") from error
        return os.dup(1)  # a socket, as under some supervisors, cannot be opened by its path
