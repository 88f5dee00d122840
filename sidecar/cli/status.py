"""`rmv status`: every model and every sidecar at a glance."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sidecar.cli import durations, output
from sidecar.cli.lookup import NO_POLICY
from sidecar.cli.marks import marked_kills, marked_pins, spell
from sidecar.cli.options import commands
from sidecar.cli.session import Session, with_store
from sidecar.errors import WrongTypeError
from sidecar.policy.problem import PolicyError
from sidecar.store.base import Instance, Kill, Store
from sidecar.store.keys import BadNameError

app = commands()


class ModelStatus(msgspec.Struct, frozen=True):
    """One model; `fault` is what is wrong with its stored document.

    `faulty_pins` of the pins cannot be followed; `has_policy` is false for a model that only pins
    or kills name.
    """

    model: str
    revision: int
    versions: tuple[str, ...]
    pins: int
    kills: tuple[Kill, ...]
    fault: str = ""
    faulty_pins: int = 0
    has_policy: bool = True


@app.command("status")
@with_store
async def status(session: Session) -> None:
    """Show models, what is switched off, and which sidecar decides by which revision."""
    store = session.store
    found = [await _status(store, model) for model in await store.named_models()]
    living = await _living(store)
    if session.as_json:
        output.emit({"models": found, "sidecars": living})
        return
    if not found:
        output.note(NO_POLICY)
    else:
        _tell_models(found)
    if living:
        print()
        _tell_sidecars(living, found)


async def _living(store: Store) -> list[Instance]:
    """Return the live sidecars; of a key that cannot tell of them, say so: the rest is known."""
    try:
        return await store.fleet()
    except WrongTypeError as error:
        output.warn(f"which sidecars are live is not known: {error}")
        return []


def _tell_models(found: Sequence[ModelStatus]) -> None:
    rows = [(one.model, *_cells(one)) for one in found]
    output.table(("MODEL", "REVISION", "VERSIONS", "PINS", "SWITCHED OFF"), rows)
    for one in found:
        if one.fault:
            output.warn(
                f"{one.model}: the stored document is not valid, so the last good one serves"
            )
            output.note(one.fault)
        if not one.has_policy:
            output.warn(f"{one.model}: pins or kills name it, but the store has no policy of it")


def _tell_sidecars(living: Sequence[Instance], found: Sequence[ModelStatus]) -> None:
    """Print who is live, what keeps each from the stored revisions, and what is not ready there."""
    stored = {one.model: one.revision for one in found if one.has_policy and not one.fault}
    rows = [
        (
            one.name,
            str(one.workers),
            _behind(one, stored) or "what is stored",
            _unready(one),
            "lost" if one.is_stale else "connected",
            f"{one.age_s:.1f}s ago",
            one.program,
        )
        for one in living
    ]
    output.table(
        ("SIDECAR", "WORKERS", "DECIDES BY", "NOT READY", "STORE", "SEEN", "PROGRAM"), rows
    )
    for one in living:
        for model, fault in sorted(one.faults.items()):
            output.warn(f"{one.name} refuses the document of {model}: {fault}")


def _behind(one: Instance, stored: dict[str, int]) -> str:
    """Name the models that a sidecar decides by an older revision, or not at all."""
    told = [
        f"{model} {one.revisions.get(model, 'none')} of {revision}"
        for model, revision in sorted(stored.items())
        if one.revisions.get(model, -1) < revision
    ]
    return ", ".join(told)


def _unready(one: Instance) -> str:
    """Name the versions without a healthy endpoint there."""
    return ", ".join(
        f"{model}:{version}" for model, named in sorted(one.unready.items()) for version in named
    )


async def _status(store: Store, model: str) -> ModelStatus:
    revision, fault, has_policy = 0, "", True
    versions: tuple[str, ...] = ()
    names: tuple[str, ...] | None = ()
    try:
        stored = await store.get_policy(model)
        has_policy = stored is not None
        if stored is not None:
            revision, versions = stored.policy.revision, tuple(stored.policy.versions)
            names = (*versions, *stored.policy.labels)
    except PolicyError as error:
        fault, names = str(error), None
    except BadNameError:  # of a pin or kill that was written by hand: no policy can have it
        return ModelStatus(model, 0, (), 0, (), has_policy=False)
    pins = faulty = 0
    async for one in marked_pins(store, model, names):
        pins += 1
        faulty += bool(one.fault)
    kills = await marked_kills(store, model, names)
    return ModelStatus(model, revision, versions, pins, kills, fault, faulty, has_policy)


def _cells(one: ModelStatus) -> tuple[str, str, str, str]:
    revision = str(one.revision) if one.has_policy else "none"
    pins = f"{one.pins} ({one.faulty_pins} faulty)" if one.faulty_pins else str(one.pins)
    kills = "; ".join(map(_spell, one.kills))
    return "invalid" if one.fault else revision, ", ".join(one.versions), pins, kills


def _spell(kill: Kill) -> str:
    term = f"ends in {durations.spell(kill.ttl_s)}" if kill.ttl_s else ""
    told = ", ".join(part for part in (kill.reason, term) if part)
    named = kill.version or "the whole model"
    return spell(f"{named} ({told})" if told else named, kill.fault)
