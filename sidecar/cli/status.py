"""`rmv status`: every model at a glance."""

from __future__ import annotations

import msgspec

from sidecar.cli import durations, output
from sidecar.cli.options import commands
from sidecar.cli.session import Session, with_store
from sidecar.policy.problem import PolicyError
from sidecar.store.base import Kill, Store

app = commands()


class ModelStatus(msgspec.Struct, frozen=True):
    """One model; `fault` is what is wrong with its stored document."""

    model: str
    revision: int
    versions: tuple[str, ...]
    pins: int
    kills: tuple[Kill, ...]
    fault: str = ""


@app.command("status")
@with_store
async def status(session: Session) -> None:
    """Show models, revisions, pins, and what is switched off."""
    found = [await _status(session.store, model) for model in await session.store.models()]
    if session.as_json:
        output.emit(found)
        return
    if not found:
        output.note("the store has no policy yet; `rmv apply -f policies/` commits some")
        return
    rows = [(one.model, *_cells(one)) for one in found]
    output.table(("MODEL", "REVISION", "VERSIONS", "PINS", "SWITCHED OFF"), rows)
    for one in found:
        if one.fault:
            output.warn(
                f"{one.model}: the stored document is not valid, so the last good one serves"
            )
            output.note(one.fault)


async def _status(store: Store, model: str) -> ModelStatus:
    revision, versions, fault = 0, tuple[str, ...](), ""
    try:
        stored = await store.get_policy(model)
        if stored is not None:
            revision, versions = stored.policy.revision, tuple(stored.policy.versions)
    except PolicyError as error:
        fault = str(error)
    pins = 0
    async for _ in store.pins(model):
        pins += 1
    return ModelStatus(model, revision, versions, pins, tuple(await store.kills(model)), fault)


def _cells(one: ModelStatus) -> tuple[str, str, str, str]:
    revision = "invalid" if one.fault else str(one.revision)
    return revision, ", ".join(one.versions), str(one.pins), "; ".join(map(_spell, one.kills))


def _spell(kill: Kill) -> str:
    term = f", ends in {durations.spell(kill.ttl_s)}" if kill.ttl_s else ""
    return f"{kill.version or 'the whole model'} ({kill.reason}{term})"
