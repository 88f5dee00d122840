"""The control process: keeps the embedded store, the admin listener and the workers alive."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from sidecar import is_compiled
from sidecar.admin.fleet import WorkerFleet
from sidecar.app.admin import administering
from sidecar.app.auditing import auditing, noting, telling
from sidecar.app.keys import KeyDesk
from sidecar.app.spec import LISTENING_VARIABLE, METRICS, READY, SHARED_GAUGES, WORKER_VARIABLE
from sidecar.config import ServeSpec, hand_over
from sidecar.errors import ConfigError, HistoryError, SidecarError, StoreUnavailableError
from sidecar.model.admin import AdminSettings
from sidecar.policy import codec
from sidecar.policy.diff import fingerprint
from sidecar.policy.problem import PolicyError
from sidecar.runtime import faults
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.processes import Patience, Workers, allow_files
from sidecar.runtime.signals import Ending
from sidecar.runtime.sockets import HeldPort, address_of, bind
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.connect import open_store
from sidecar.store.embedded import EmbeddedServer
from sidecar.telemetry.merge import Ledger
from sidecar.telemetry.metrics import Metrics

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterable

    from sidecar.audit.log import AuditLog
    from sidecar.config import Config
    from sidecar.model.policy import Policy
    from sidecar.runtime.questions import Line
    from sidecar.store.base import Store, StoredPolicy

SEED_ACTOR: Final = "flags"
READY_POLL_S: Final = 0.05
READY_LATE_POLL_S: Final = 1.0
ALLOCATOR: Final = {"MALLOC_TRIM_THRESHOLD_": "2097152", "MALLOC_MMAP_THRESHOLD_": "1048576"}
"""mallopt(3) of workers, in bytes. By its defaults glibc gives the buffers that bodies pass through
back to the kernel, to fault them in again at once: a fifth of what an upload of 64 KiB costs."""
ADMIN_VARIABLES: Final = "RMV_ADMIN_"  # settings that no worker needs
READY_WAIT_S: Final = 10.0
SPARE_FILES: Final = 1024  # of a worker, for mirrors, the store, logs and libraries
_log = logging.getLogger("sidecar.control")


async def run_control(spec: ServeSpec) -> None:
    """Run the sidecar until a signal comes; raises SidecarError or OSError if it cannot begin."""
    ending = Ending()
    faults.outlive(asyncio.get_running_loop())
    if spec.config.no_auth:
        _log.warning("AUTH IS OFF: every caller is believed to be whom its X-Tenant names")
    if not spec.config.upstream_tls.verify:
        _log.warning("UPSTREAM TLS IS NOT VERIFIED: any certificate of any endpoint is believed")
    _allow_files(spec.config)
    metrics = Metrics()
    async with _store_for(spec.config) as config, auditing(config, metrics) as audit:
        if spec.seed_policy is not None:
            if config.signing.trusted:
                raise ConfigError(
                    "--version and the like describe a policy that nobody signs, which "
                    "signing.trusted asks for: `rmv apply --key` commits one that is signed"
                )
            await _seed(config, spec.seed_policy, audit)
        await _serve(msgspec.structs.replace(spec, config=config), ending, metrics, audit)


def _allow_files(config: Config) -> None:
    """Raise the limit of open files, which workers inherit; tell if clients may meet it."""
    needed = 2 * config.limits.connections  # each client may need an upstream
    if (allowed := allow_files(needed + SPARE_FILES)) < needed:
        _log.warning(
            "the limit of open files is low for limits.connections",
            extra={"allowed": allowed, "needed": needed},
        )


@asynccontextmanager
async def _store_for(config: Config) -> AsyncIterator[Config]:
    """Start the embedded server if that is asked for; yield the configuration with its address."""
    if config.redis != "embedded":
        yield config
        return
    server = EmbeddedServer(config.state_dir)
    await server.start()
    keeper = spawn(server.supervise(), name="embedded-store")
    try:
        yield msgspec.structs.replace(config, redis=server.url)
    finally:
        await stop(keeper)
        await server.stop()


async def _serve(spec: ServeSpec, ending: Ending, metrics: Metrics, audit: AuditLog) -> None:
    config = spec.config
    # Bound here and held: a port that is taken is told once, and not by every worker.
    held = HeldPort(config.listen)
    bound = msgspec.structs.replace(config, listen=held.address)
    admin_socket = None if config.admin is None else bind(config.admin)
    if admin_socket is not None:
        bound = msgspec.structs.replace(bound, admin=address_of(admin_socket))
    ledger = Ledger(SHARED_GAUGES)
    desk = KeyDesk(config.believed, SystemClock(), metrics, audit)
    await desk.start()
    workers = Workers(
        WorkerCrew(bound, ledger, desk),
        held.sockets(config.workers),
        _patience(config),
        on_hopeless=ending.ask,
    )

    def counted() -> str:
        """Return what this process has counted."""
        desk.measure()
        return metrics.exposition()

    fleet = WorkerFleet(workers, ledger, ready=READY, metrics=METRICS, own=counted)
    admin = administering(
        msgspec.structs.replace(spec, config=bound),
        admin_socket,
        audit,
        metrics,
        unready=partial(_unready, fleet, ending),
        exposition=fleet.metrics,
    )
    async with admin as read_credentials:
        _log.info("starting", extra=_summary(bound))
        workers.start()
        loop = asyncio.get_running_loop()
        renewals = read_credentials, desk.refresh, workers.replace
        loop.add_signal_handler(signal.SIGHUP, _renew, renewals)
        helpers = [spawn(_announce(bound, fleet), name="announce")]
        if admin_socket is not None:
            helpers.append(spawn(fleet.keep_reading(), name="read metrics"))
        await ending.asked()
        await stop(*helpers)
        await _stop(workers, _patience(config).kill_s, ending)
        await desk.stop()
    held.close()
    if workers.is_hopeless:
        raise SidecarError("a worker could not begin; what it said stands above")


def _renew(renewals: Iterable[Callable[[], None]]) -> None:
    """Have all renewed: credentials, keys, workers."""
    for renew in renewals:
        try:
            renew()
        except Exception as error:  # noqa: BLE001 -- the others are renewed all the same
            faults.note("renewal", error)


class WorkerCrew:
    """Workers of one configuration."""

    argv = (sys.executable, "-P", "-m", "sidecar.app")

    def __init__(self, config: Config, ledger: Ledger, desk: KeyDesk) -> None:
        """Close the accounts of those that are gone in `ledger`; `desk` tells them of keys."""
        # Workers face the clients of models: what operators may do is not told to them.
        bare = msgspec.structs.replace(config, admin_api=AdminSettings(), admin_tokens=())
        self._spec = ServeSpec(bare)
        self._ledger = ledger
        self._desk = desk

    def environment(self, listening: socket.socket, answering: socket.socket) -> dict[str, str]:
        """Return what `sidecar.app` reads in a worker."""
        own = {
            WORKER_VARIABLE: str(answering.fileno()),
            LISTENING_VARIABLE: str(listening.fileno()),
        }
        allocator = {name: size for name, size in ALLOCATOR.items() if name not in os.environ}
        untold = {name: "" for name in os.environ if name.startswith(ADMIN_VARIABLES)}
        return hand_over(self._spec, own | allocator | untold)

    def on_started(self, line: Line) -> None:
        """Tell a new worker what it has to know, and hear what it says."""
        self._desk.follow(line)

    async def is_ready(self, line: Line) -> bool:
        """Return whether a worker says that it takes traffic."""
        try:
            return line.has_begun and await line.ask(READY) == ""
        except OSError:  # it does not answer yet; TimeoutError is one
            return False

    async def answers(self, line: Line) -> bool:
        """Return whether a worker answers, be it that it is not ready."""
        try:
            await line.ask(READY)
        except OSError:
            return False
        return True

    def on_gone(self, line: Line) -> None:
        """Keep what a worker has counted."""
        self._desk.leave(line)
        self._ledger.close(line.name, line.last_word)


async def _unready(fleet: WorkerFleet, ending: Ending) -> str:
    """Return why no traffic should come: from the first signal on, before any worker knows."""
    return "draining" if ending.is_asked else await fleet.unready()


def _patience(config: Config) -> Patience:
    timeouts = config.timeouts
    drain_s = max(timeouts.drain_s, timeouts.drain_tunnel_s)
    return Patience(drain_s, timeouts.worker_start_s, timeouts.worker_hang_s)


async def _stop(workers: Workers, kill_s: float, ending: Ending) -> None:
    """End the workers: when asked again without waiting for what they have in hand."""

    async def hurry() -> None:
        await ending.asked()
        _log.warning("asked again: stopping at once")
        workers.kill()

    _log.info("stopping", extra={"kills_after_s": kill_s})
    hurrying = spawn(hurry(), name="hurry")
    await workers.stop()
    await stop(hurrying)


async def _announce(config: Config, fleet: WorkerFleet) -> None:
    """Say when every worker takes traffic, and once what keeps one from it for long."""
    clock = asyncio.get_running_loop().time
    late_s = clock() + READY_WAIT_S
    is_late = False
    while why := await _why_unready(fleet):
        if not is_late and clock() > late_s:
            is_late = True
            _log.error("not ready", extra={"why": why})
        await asyncio.sleep(READY_LATE_POLL_S if is_late else READY_POLL_S)
    _log.info("serving", extra={**_summary(config), "compiled": is_compiled()})


async def _why_unready(fleet: WorkerFleet) -> str:
    try:
        return await fleet.unready()
    except Exception as error:  # noqa: BLE001 -- asked again soon
        return faults.note("workers", error)


def _summary(config: Config) -> dict[str, object]:
    return {"listen": config.listen, "admin": config.admin or "off", "workers": config.workers}


async def _seed(config: Config, policy: Policy, audit: AuditLog) -> None:
    """Commit the policy that the flags describe, unless someone has edited the stored one."""
    policy = msgspec.structs.replace(policy, applied=fingerprint(policy))
    opened = open_store(config.redis, config.prefix, config.state_dir)
    store = telling(opened, noting(audit, SEED_ACTOR))
    try:
        stored = await store.get_policy(policy.model)
        if stored is None:
            await store.commit(policy, expected=None, actor=SEED_ACTOR, comment="first start")
        elif fingerprint(stored.policy) == policy.applied:
            return
        elif await _is_seeded(store, stored):
            comment = "flags changed"
            await store.commit(policy, expected=stored.raw, actor=SEED_ACTOR, comment=comment)
        else:
            _log.warning(
                "flags ignored, as the policy was edited: `rmv apply -f FILE`, or delete its key",
                extra={"model": policy.model, "revision": stored.policy.revision},
            )
    except PolicyError as error:  # somebody's edit: other models serve all the same
        _log.error(
            "flags ignored: the stored policy is not valid",
            extra={"model": policy.model, "reason": str(error)},
        )
    except (StoreUnavailableError, HistoryError) as error:
        raise ConfigError(f"the policy of the flags cannot be stored: {error}") from error
    finally:
        await store.close()


async def _is_seeded(store: Store, stored: StoredPolicy) -> bool:
    """Return whether a document is byte by byte what an earlier start made of its flags.

    An edit by redis-cli may have kept the actor and the revision that it found.
    """
    newest = await store.history(stored.policy.model, limit=1)
    digest = codec.digest(stored.raw)
    return any(entry.actor == SEED_ACTOR and entry.digest == digest for entry in newest)
