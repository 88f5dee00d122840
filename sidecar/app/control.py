"""The control process: keeps the embedded store, the admin listener and the workers alive."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from sidecar import is_compiled
from sidecar.admin.fleet import WorkerFleet
from sidecar.admin.server import AdminServer
from sidecar.app.spec import METRICS, READY, WORKER_VARIABLE
from sidecar.config import ServeSpec, hand_over
from sidecar.errors import ConfigError, StoreUnavailableError
from sidecar.policy import codec
from sidecar.runtime.processes import Workers
from sidecar.runtime.signals import ended
from sidecar.runtime.sockets import address_of, bind
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.connect import open_store
from sidecar.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sidecar.config import Config
    from sidecar.model.policy import Policy

SEED_ACTOR: Final = "flags"
READY_POLL_S: Final = 0.05
READY_WAIT_S: Final = 10.0
_log = logging.getLogger("sidecar.control")


async def run_control(spec: ServeSpec) -> None:
    """Run the sidecar until a signal comes; raises SidecarError or OSError if it cannot begin."""
    if spec.config.identity is None:
        _log.warning("AUTH IS OFF: every caller is believed to be whom its X-Tenant names")
    async with _store_for(spec.config) as config:
        if spec.seed_policy is not None:
            await _seed(config, spec.seed_policy)
        await _serve(config)


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


async def _serve(config: Config) -> None:
    with tempfile.TemporaryDirectory(prefix="rmv-") as folder:
        sockets = [Path(folder, f"worker-{n}") for n in range(config.workers)]
        fleet = WorkerFleet(sockets, ready=READY, metrics=METRICS)
        admin = AdminServer(fleet.unready, fleet.metrics)
        # Bound here and held: a port that is taken is told once, and not by every worker.
        held = bind(config.listen, shares_port=True)
        if config.admin is not None:
            await admin.start(bind(config.admin))
        bound = msgspec.structs.replace(config, listen=address_of(held))
        workers = Workers(
            [sys.executable, "-P", "-m", "sidecar.app"],
            [hand_over(ServeSpec(bound), {WORKER_VARIABLE: str(path)}) for path in sockets],
        )
        workers.start()
        announcer = spawn(_announce(bound, fleet), name="announce")
        await ended()
        _log.info("stopping", extra={"drain_s": config.timeouts.drain_s})
        await stop(announcer)
        await workers.stop(config.timeouts.drain_s)
        await admin.stop()
        held.close()


async def _announce(config: Config, fleet: WorkerFleet) -> None:
    """Say when every worker takes traffic, or what keeps one from it."""
    why = "no answer yet"
    for _ in range(int(READY_WAIT_S / READY_POLL_S)):
        why = await fleet.unready()
        if not why:
            _log.info(
                "serving",
                extra={
                    "listen": config.listen,
                    "admin": config.admin,
                    "workers": config.workers,
                    "compiled": is_compiled(),
                },
            )
            return
        await asyncio.sleep(READY_POLL_S)
    _log.error("not ready", extra={"why": why})


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
                "flags ignored: the stored policy was edited since; `rmv get` shows it",
                extra={"model": policy.model, "actor": stored.policy.actor},
            )
    except StoreUnavailableError as error:
        raise ConfigError(f"the policy of the flags cannot be stored: {error}") from error
    finally:
        await store.close()


def _same(stored: Policy, wanted: Policy) -> bool:
    """Return whether two policies differ at most in what a commit writes."""
    stored, wanted = (
        msgspec.structs.replace(policy, revision=0, actor="", comment="")
        for policy in (stored, wanted)
    )
    return codec.encode(stored) == codec.encode(wanted)
