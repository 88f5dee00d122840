"""What pins and kills of a store cannot be followed, and why, in the words of the sidecar's log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

from msgspec import structs

from sidecar.model.identity import is_tenant
from sidecar.store.base import Kill, Pin, Store
from sidecar.store.doubts import NO_MODEL, NO_PINNED, NO_TENANT, NO_VERSION

Versions = Collection[str] | None
"""The versions of a policy; None when the stored document is refused, so nothing is known."""


async def marked_kills(store: Store, model: str, versions: Versions) -> tuple[Kill, ...]:
    """Return the kills of a model, each with why it cannot be followed as fault."""
    found = await store.kills(model)
    return tuple(
        structs.replace(one, fault=one.fault or (_fault(one.version, versions, is_kill=True)))
        for one in found
    )


async def marked_pins(store: Store, model: str, versions: Versions) -> AsyncIterator[Pin]:
    """Iterate over the pins of a model, each with why it cannot be followed as fault."""
    async for one in store.pins(model):
        fault = one.fault or _fault(one.version, versions)
        if not is_tenant(one.tenant):
            fault = NO_TENANT
        yield structs.replace(one, fault=fault) if fault else one


def spell(text: str, fault: str) -> str:
    """Return `text` with its fault: `v22 (oops) - no such version`."""
    return " - ".join(filter(None, (text, fault)))


def _fault(version: str, versions: Versions, *, is_kill: bool = False) -> str:
    if versions is None or version in versions:
        return ""
    if not versions:
        return NO_MODEL
    if not is_kill:
        return NO_PINNED
    return NO_VERSION if version else ""
