"""The only place that wires parts together: one worker, or a supervisor of several.

`python -m sidecar.app` is what `rmv serve` becomes; it finds its `ServeSpec` in RMV_SPEC.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import uvloop

from sidecar.admin.fleet import WorkerFleet
from sidecar.admin.server import AdminServer
from sidecar.config import ServeSpec
from sidecar.dataplane.listener import Listener, bind
from sidecar.dataplane.mirror import Mirror
from sidecar.dataplane.plane import Plane, Services
from sidecar.decide import ClaimedTenants, Decider
from sidecar.errors import ConfigError, SidecarError, StoreUnavailableError
from sidecar.identity.cache import IdentityCache
from sidecar.identity.claims import ClaimNames
from sidecar.identity.keys import load_jwks
from sidecar.identity.tokens import Verifier
from sidecar.policy import codec
from sidecar.policy.route import RouteRule, RouteTable
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.ids import RequestIds
from sidecar.runtime.processes import Workers, die_with_parent
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.connect import open_store
from sidecar.store.embedded import EmbeddedServer
from sidecar.store.keys import Keys
from sidecar.store.live import LivePolicies
from sidecar.telemetry import logs
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recorder import Recorder
from sidecar.upstream.pool import PoolSettings, Upstreams

if TYPE_CHECKING:
    from sidecar.config import Config
    from sidecar.model.policy import Policy

SPEC_VARIABLE: Final = "RMV_SPEC"
WORKER_VARIABLE: Final = "RMV_WORKER"  # set in a supervised worker: the path of its admin socket
SEED_ACTOR: Final = "flags"
LOAD_WAIT_S: Final = 2.0  # for policies, before traffic is accepted without them
_log = logging.getLogger("sidecar.app")


def main() -> None:
    """Serve until SIGTERM or SIGINT; exit with 1 and one clear line if that cannot begin."""
    logs.configure()
    spec = msgspec.json.decode(os.environ.pop(SPEC_VARIABLE), type=ServeSpec)
    try:
        uvloop.run(_serve(spec))
    except (SidecarError, OSError) as error:
        sys.stderr.write(f"rmv serve: {error}\n")
        raise SystemExit(1) from error


async def _serve(spec: ServeSpec) -> None:
    worker_socket = os.environ.get(WORKER_VARIABLE)
    if worker_socket:
        die_with_parent()
        await Worker(spec.config, Path(worker_socket)).run()
        return
    config = spec.config
    if config.identity is None:
        _log.warning("AUTH IS OFF: every caller is believed to be whom its X-Tenant names")
    embedded = await _start_embedded(config)
    try:
        if embedded is not None:
            config = msgspec.structs.replace(config, redis=embedded.url)
        if spec.seed_policy is not None:
            await _seed(config, spec.seed_policy)
        if config.workers == 1:
            await Worker(config, None).run()
        else:
            await _supervise(config)
    finally:
        if embedded is not None:
            await embedded.stop()


async def _start_embedded(config: Config) -> EmbeddedServer | None:
    if config.redis != "embedded":
        return None
    embedded = EmbeddedServer(config.state_dir)
    await embedded.start()
    spawn(embedded.supervise(), name="embedded-store")
    return embedded


async def _seed(config: Config, policy: Policy) -> None:
    """Commit the policy that the flags describe, unless someone has edited the stored one."""
    store = open_store(config.redis, config.prefix, config.state_dir)
    try:
        stored = await store.get_policy(policy.model)
        if stored is None:
            await store.commit(policy, expected=None, actor=SEED_ACTOR, comment="first start")
        elif _same(stored.policy, policy):
            return
        elif stored.policy.actor == SEED_ACTOR:
            comment = "flags changed"
            await store.commit(policy, expected=stored.raw, actor=SEED_ACTOR, comment=comment)
        else:
            _log.warning(
                "flags ignored: the stored policy was edited since; see `rmv get`",
                extra={"model": policy.model, "actor": stored.policy.actor},
            )
    except StoreUnavailableError as error:
        raise ConfigError(f"the policy of the flags cannot be stored: {error}") from error
    finally:
        await store.close()


def _same(stored: Policy, wanted: Policy) -> bool:
    bare = {"revision": 0, "actor": "", "comment": ""}
    stored, wanted = (msgspec.structs.replace(policy, **bare) for policy in (stored, wanted))
    return codec.encode(stored) == codec.encode(wanted)


async def _supervise(config: Config) -> None:
    with tempfile.TemporaryDirectory(prefix="rmv-") as directory:
        sockets = [Path(directory, f"worker-{n}.sock") for n in range(config.workers)]
        spec = msgspec.json.encode(ServeSpec(config)).decode()
        workers = Workers(
            [sys.executable, "-m", "sidecar.app"],
            [{SPEC_VARIABLE: spec, WORKER_VARIABLE: str(path)} for path in sockets],
        )
        fleet = WorkerFleet(sockets)
        # Bound first, and held: a port that is taken is told here, once, and not by every worker.
        held = bind(config.listen, shares_port=True)
        admin = AdminServer(fleet.unready, fleet.metrics)
        if config.admin is not None:
            await admin.start(bind(config.admin))
        workers.start()
        _log.info("supervising", extra={"workers": config.workers, "listen": config.listen})
        await _signalled()
        await workers.stop(config.timeouts.drain_s)
        await admin.stop()
        held.close()


class Worker:
    """One process of the data plane."""

    def __init__(self, config: Config, admin_socket: Path | None) -> None:
        """With `admin_socket` it is one of several, and shares its port with the others."""
        self._config = config
        self._admin_socket = admin_socket
        self._metrics = Metrics()
        self._live = LivePolicies(Keys(config.prefix), on_change=self._on_policy_change)
        self._plane = self._make_plane()
        limits, settings = config.limits, self._pool_settings()
        mirror_settings = msgspec.structs.replace(settings, max_idle=limits.mirror_connections)
        self._mirror = Mirror(self._plane, Upstreams(mirror_settings))
        self._plane.mirror = self._mirror
        self._listener = Listener(self._plane, self._mirror)

    async def run(self) -> None:
        """Serve until a signal comes, then drain."""
        config = self._config
        store = open_store(config.redis, config.prefix, config.state_dir)
        watch = spawn(store.watch(self._live), name="policy-watch")
        await self._wait_for_policies()
        listening = bind(config.listen, shares_port=self._admin_socket is not None)
        admin = AdminServer(self._unready, self._exposition)
        admin_listening = self._bind_admin()
        if admin_listening is not None:
            await admin.start(admin_listening)
        await self._listener.start(listening)
        gc.collect()
        gc.freeze()  # what was built so far lives as long as the process: do not walk it again
        host, port, *_ = listening.getsockname()
        _log.info(
            "serving", extra={"listen": f"{host}:{port}", "models": len(self._live.snapshots)}
        )
        await _signalled()
        _log.info("draining")
        cut = await self._listener.drain()
        await stop(watch)
        await store.close()
        self._mirror.close()
        self._plane.services.upstreams.close()
        self._plane.services.recorder.flush()
        await admin.stop()
        _log.info("stopped", extra={"cut": cut})

    def _make_plane(self) -> Plane:
        config = self._config
        routes = RouteTable(
            [RouteRule(route.model, route.host, route.prefix) for route in config.routes],
            config.model,
        )
        identities = _identities(config)
        services = Services(
            Decider(self._live, routes, identities).decide,
            self._live,
            Upstreams(self._pool_settings()),
            Recorder(self._metrics, _open_log(config.exchange_log)),
            self._metrics,
            RequestIds(os.urandom(10)),
            SystemClock(),
        )
        return Plane(
            services, config.timeouts, config.limits, shows_decisions=config.decision_headers
        )

    def _pool_settings(self) -> PoolSettings:
        config = self._config
        return PoolSettings(
            config.timeouts.connect_s,
            config.timeouts.upstream_idle_s,
            config.limits.idle_upstreams,
            config.decision_headers,
        )

    def _on_policy_change(self, model: str) -> None:
        self._plane.on_policy_change(model)
        self._metrics.count("rmv_policy_changes_total", "model", model)

    async def _wait_for_policies(self) -> None:
        """Give the first load a moment: without it every request would be refused."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + LOAD_WAIT_S
        while not self._live.is_loaded and loop.time() < deadline_s:  # noqa: ASYNC110 -- `live` has no loop
            await asyncio.sleep(0.01)  # once, at the start
        if not self._live.is_loaded:
            _log.error("policies are not loaded: answering 503 not-ready until they are")

    def _bind_admin(self) -> socket.socket | None:
        if self._admin_socket is not None:
            self._admin_socket.unlink(missing_ok=True)
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(str(self._admin_socket))
            return listening
        return None if self._config.admin is None else bind(self._config.admin)

    async def _unready(self) -> str:
        if self._plane.is_draining:
            return "draining"
        return "" if self._live.is_loaded else "policies are not loaded"

    async def _exposition(self) -> str:
        self._plane.services.recorder.flush()
        gauges = self._metrics.gauges
        gauges["rmv_policies"] = len(self._live.snapshots)
        gauges["rmv_policy_faults"] = len(self._live.faults)
        gauges["rmv_policies_stale"] = float(self._live.is_stale)
        return self._metrics.exposition()


def _identities(config: Config) -> IdentityCache | ClaimedTenants:
    settings = config.identity
    if settings is None:
        return ClaimedTenants()
    path = Path(settings.jwks_file)
    try:
        keys = load_jwks(path.read_bytes(), settings.algorithms)
    except OSError as error:
        raise ConfigError(f"identity.jwks_file: {path}: {error.strerror}") from error
    names = ClaimNames(
        settings.tenant_claim, settings.subject_claim, settings.app_claim, settings.scope_claim
    )
    verifier = Verifier(keys, settings.issuer, settings.audience, names, settings.leeway_s)
    return IdentityCache(verifier, config.limits.identities, config.limits.token_bytes)


def _open_log(target: str) -> int | None:
    """Open the exchange log anew, so that making it non-blocking touches nobody else's stdout."""
    if target == "off":
        return None
    path = "/dev/stdout" if target == "stdout" else target
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        if target != "stdout":
            raise ConfigError(f"exchange_log: {target}: {error.strerror}") from error
        return os.dup(1)  # a socket, as under some supervisors, cannot be opened by its path


async def _signalled() -> None:
    """Wait for SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()


if __name__ == "__main__":
    main()
