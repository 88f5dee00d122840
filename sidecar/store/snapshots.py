"""A model as its store has it now: what tools decide by, which serve nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.policy.snapshot import compile_snapshot

if TYPE_CHECKING:
    from sidecar.model.policy import Policy
    from sidecar.policy.snapshot import Snapshot
    from sidecar.store.base import Store


async def snapshot_of(store: Store, policy: Policy, tenants: frozenset[str]) -> Snapshot:
    """Compile a policy with what the store holds for its model: kills, and pins of `tenants`."""
    pins = await store.pins_of(policy.model, tenants)
    kills = {one.version: one.reason for one in await store.kills(policy.model) if not one.fault}
    return compile_snapshot(policy, pins, kills)
