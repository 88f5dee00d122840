"""Documents that tests put into a store, and waiting until they have taken effect."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sidecar.model.policy import Policy, Version
from sidecar.policy import codec
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.live import LivePolicies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sidecar.store.base import Store

GIVE_UP_S = 20.0  # far beyond what a slow machine needs


def policy(
    model: str = "fraud", default: str = "v1", revision: int = 0, comment: str = ""
) -> Policy:
    """Return a small valid policy with the versions v1 and v2."""
    versions = {
        "v1": Version(endpoints=("http://127.0.0.1:9001",)),
        "v2": Version(endpoints=("http://127.0.0.1:9002",)),
    }
    return Policy(
        model=model, versions=versions, default=default, revision=revision, comment=comment
    )


def document(
    model: str = "fraud", default: str = "v1", revision: int = 0, comment: str = ""
) -> bytes:
    """Return `policy` as it is stored."""
    return codec.encode(policy(model, default, revision, comment))


async def eventually(holds: Callable[[], bool]) -> None:
    """Return as soon as `holds()`; fail if it never does."""
    async with asyncio.timeout(GIVE_UP_S):
        while not holds():  # noqa: ASYNC110 -- what is waited for happens in another process
            await asyncio.sleep(0.002)


def default_of(live: LivePolicies, model: str = "fraud") -> str | None:
    """Return the default version in force, None when the model has no snapshot."""
    snapshot = live.snapshots.get(model)
    return None if snapshot is None else snapshot.policy.default


def pin_of(live: LivePolicies, tenant: str, model: str = "fraud") -> str | None:
    """Return the version a tenant is held to in the snapshot in force."""
    return live.snapshots[model].pins.get(tenant)


@asynccontextmanager
async def watching(store: Store, live: LivePolicies | None = None) -> AsyncIterator[LivePolicies]:
    """Watch `store`, loaded when entered, and stop at the end."""
    live = live or LivePolicies()
    task = spawn(store.watch(live), name="watch under test")
    try:
        await eventually(lambda: not live.is_stale)
        yield live
    finally:
        await stop(task)
        assert task.cancelled(), "a watch ends by cancellation alone"
