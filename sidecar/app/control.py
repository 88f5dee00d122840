"""The control process: keeps the embedded store, the admin listener and the workers alive."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from sidecar import is_compiled
from sidecar.admin.fleet import WorkerFleet
from sidecar.admin.server import AdminServer
from sidecar.app.spec import LISTENING_VARIABLE, METRICS, READY, SHARED_GAUGES, WORKER_VARIABLE
from sidecar.config import ServeSpec, hand_over
from sidecar.errors import ConfigError, SidecarError, StoreUnavailableError
from sidecar.policy import codec
from sidecar.policy.diff import fingerprint
from sidecar.policy.problem import PolicyError
from sidecar.runtime.processes import Workers
from sidecar.runtime.questions import ask
from sidecar.runtime.signals import Ending
from sidecar.runtime.sockets import HeldPort, address_of, bind
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.connect import open_store
from sidecar.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from sidecar.config import Config
    from sidecar.model.policy import Policy
    from sidecar.store.base import Store, StoredPolicy

SEED_ACTOR: Final = "flags"
READY_POLL_S: Final = 0.05
READY_LATE_POLL_S: Final = 1.0
READY_WAIT_S: Final = 10.0
_log = logging.getLogger("sidecar.control")


async def run_control(spec: ServeSpec) -> None:
    """Run the sidecar until a signal comes; raises SidecarError or OSError if it cannot begin."""
    ending = Ending()
    if spec.config.identity is None:
        _log.warning("AUTH IS OFF: every caller is believed to be whom its X-Tenant names")
    async with _store_for(spec.config) as config:
        if spec.seed_policy is not None:
            await _seed(config, spec.seed_policy)
        await _serve(config, ending)


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


async def _serve(config: Config, ending: Ending) -> None:
    with tempfile.TemporaryDirectory(prefix="rmv-") as folder:
        # Bound here and held: a port that is taken is told once, and not by every worker.
        held = HeldPort(config.listen)
        bound = msgspec.structs.replace(config, listen=held.address)
        admin_socket = None if config.admin is None else bind(config.admin)
        if admin_socket is not None:
            bound = msgspec.structs.replace(bound, admin=address_of(admin_socket))
        workers = Workers(
            WorkerCrew(bound),
            held.sockets(config.workers),
            Path(folder),
            _drain_s(config),
            on_hopeless=ending.ask,
        )
        fleet = WorkerFleet(workers.questions, ready=READY, metrics=METRICS, shared=SHARED_GAUGES)
        admin = AdminServer(partial(_unready, fleet, ending), fleet.metrics)
        if admin_socket is not None:
            await admin.start(admin_socket)
        _log.info("starting", extra=_summary(bound))
        workers.start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, workers.replace)
        announcer = spawn(_announce(bound, fleet), name="announce")
        await ending.asked()
        await stop(announcer)
        await _stop(workers, _drain_s(config), ending)
        await admin.stop()
        held.close()
        if workers.is_hopeless:
            raise SidecarError("a worker could not begin; what it said stands above")


class WorkerCrew:
    """Workers of one configuration."""

    argv = (sys.executable, "-P", "-m", "sidecar.app")

    def __init__(self, config: Config) -> None:
        self._spec = ServeSpec(config)

    def environment(self, listening: socket.socket, questions: Path) -> dict[str, str]:
        """Return what `sidecar.app` reads in a worker."""
        own = {WORKER_VARIABLE: str(questions), LISTENING_VARIABLE: str(listening.fileno())}
        return hand_over(self._spec, own)

    async def is_ready(self, questions: Path) -> bool:
        """Return whether a worker says that it takes traffic."""
        try:
            return await ask(questions, READY) == ""
        except OSError:  # it does not answer yet; TimeoutError is one
            return False


async def _unready(fleet: WorkerFleet, ending: Ending) -> str:
    """Return why no traffic should come: from the first signal on, before any worker knows."""
    return "draining" if ending.is_asked else await fleet.unready()


def _drain_s(config: Config) -> float:
    """Return how long a worker may take to end."""
    return max(config.timeouts.drain_s, config.timeouts.drain_tunnel_s)


async def _stop(workers: Workers, drain_s: float, ending: Ending) -> None:
    """End the workers: when asked again without waiting for what they have in hand."""

    async def hurry() -> None:
        await ending.asked()
        _log.warning("asked again: stopping at once")
        workers.kill()

    _log.info("stopping", extra={"drain_s": drain_s})
    hurrying = spawn(hurry(), name="hurry")
    await workers.stop()
    await stop(hurrying)


async def _announce(config: Config, fleet: WorkerFleet) -> None:
    """Say when every worker takes traffic, and once what keeps one from it for long."""
    clock = asyncio.get_running_loop().time
    late_s = clock() + READY_WAIT_S
    is_late = False
    while why := await fleet.unready():
        if not is_late and clock() > late_s:
            is_late = True
            _log.error("not ready", extra={"why": why})
        await asyncio.sleep(READY_LATE_POLL_S if is_late else READY_POLL_S)
    _log.info("serving", extra={**_summary(config), "compiled": is_compiled()})


def _summary(config: Config) -> dict[str, object]:
    return {"listen": config.listen, "admin": config.admin or "off", "workers": config.workers}


async def _seed(config: Config, policy: Policy) -> None:
    """Commit the policy that the flags describe, unless someone has edited the stored one."""
    policy = msgspec.structs.replace(policy, applied=fingerprint(policy))
    store = open_store(config.redis, config.prefix, config.state_dir)
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
    except StoreUnavailableError as error:
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
