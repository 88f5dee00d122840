"""`rmv status`: every model and every sidecar at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from sidecar.cli import durations, output
from sidecar.cli.broken import way_out, what_serves
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

    `faulty_pins` of the pins cannot be followed; `is_deleted` says that the document is one of a
    signed end, not of a model; `doubt` is why sidecars do not believe it, as far as the settings
    here tell; `has_policy` is false for a model that only pins
    and kills name, or sidecars that have what the store has lost.
    """

    model: str
    revision: int
    versions: tuple[str, ...]
    pins: int
    kills: tuple[Kill, ...]
    fault: str = ""
    faulty_pins: int = 0
    has_policy: bool = True
    is_deleted: bool = False
    doubt: str = ""

    @property
    def is_to_serve(self) -> bool:
        """Whether sidecars are to serve it, by this document or by the last good one before it."""
        return self.has_policy and (bool(self.doubt) or not self.is_deleted)

    @property
    def told_revision(self) -> str:
        """What stands for the revision: a document that is refused has none that counts."""
        if self.fault:
            return "invalid"
        if self.doubt:
            return "unbelieved"
        return str(self.revision) if self.has_policy else "none"


@app.command("status")
@with_store
async def status(session: Session) -> None:
    """Show models, what is switched off, and the live sidecars.

    Of each sidecar it tells by which revisions it decides.
    """
    store = session.store
    living = await _living(store)
    named = {*await store.named_models(), *(model for one in living for model in one.revisions)}
    found = [await _status(store, model) for model in sorted(named)]
    if session.as_json:
        output.emit({"models": found, "sidecars": living})
        return
    if not found:
        output.note(NO_POLICY)
    else:
        ways = {one.model: await way_out(store, one.model) for one in found if one.fault}
        _tell_models(found, living, ways)
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


def _tell_models(
    found: Sequence[ModelStatus], living: Sequence[Instance], ways: Mapping[str, str]
) -> None:
    """Print the models; `ways` lead out of documents that are not valid."""
    rows = [(one.model, *_cells(one)) for one in found]
    output.table(("MODEL", "REVISION", "VERSIONS", "PINS", "SWITCHED OFF"), rows)
    for one in found:
        if one.fault:
            serves = what_serves(one.model, living)
            output.warn(f"{one.model}: the stored document is not valid; {serves}")
            output.note(f"{one.fault}\n{ways[one.model]}")
        if one.doubt:
            serves = what_serves(one.model, living)
            output.warn(f"{one.model}: the stored document is not believed, {one.doubt}; {serves}")
        if not one.has_policy:
            is_lost = any(one.model in sidecar.revisions for sidecar in living)
            why = "sidecars serve it" if is_lost else "pins or kills name it"
            output.warn(f"{one.model}: {why}, but the store has no policy of it")
            if is_lost:
                output.note(
                    "Restore the store's data, or `rmv apply` the file of it: see docs/redis.md."
                )


def _tell_sidecars(living: Sequence[Instance], found: Sequence[ModelStatus]) -> None:
    """Print who is live, what keeps each from the stored revisions, and what is not ready there."""
    stored = {one.model: one for one in found if one.is_to_serve}
    rows = [
        (
            one.name,
            str(one.workers),
            _behind(one, stored) or "what is stored",
            _unready(one),
            "stale" if one.is_stale else "connected",
            f"{one.age_s:.1f}s ago",
            one.program,
        )
        for one in living
    ]
    output.table(
        ("SIDECAR", "WORKERS", "DECIDES BY", "NOT READY", "STORE", "SEEN", "PROGRAM"), rows
    )
    for one in living:
        if one.refused:
            told = ", ".join(f"{number} {cause}" for cause, number in sorted(one.refused.items()))
            output.warn(f"{one.name} does not believe what is stored: {told}")
            output.note("`rmv verify` tells what is signed, and by which key: see docs/signing.md.")
        for model, fault in sorted(one.faults.items()):
            does = "refuses the document of" if model in stored else "goes on serving"
            output.warn(f"{one.name} {does} {model}: {output.inner(fault)}")


def _behind(one: Instance, stored: Mapping[str, ModelStatus]) -> str:
    """Name the models that a sidecar decides by something else than is stored, or not at all."""
    told = [
        f"{name} {one.revisions.get(name, 'none')} of {model.told_revision}{_refusal(one, model)}"
        for name, model in sorted(stored.items())
        if model.fault or model.doubt or name in one.faults or _is_older(one, model)
    ]
    lost = [
        f"{model} {one.revisions[model]} of none"
        for model in sorted(one.revisions.keys() - stored.keys())
    ]
    return ", ".join(told + lost)


def _is_older(one: Instance, model: ModelStatus) -> bool:
    return one.revisions.get(model.model, -1) < model.revision


def _refusal(one: Instance, model: ModelStatus) -> str:
    """Say that a sidecar refuses a document in which nothing is wrong as far as is known here."""
    is_sound = not model.fault and not model.doubt
    return " (refused)" if is_sound and model.model in one.faults else ""


def _unready(one: Instance) -> str:
    """Name the versions without a healthy endpoint there."""
    return ", ".join(
        f"{model}:{version}" for model, named in sorted(one.unready.items()) for version in named
    )


async def _status(store: Store, model: str) -> ModelStatus:
    revision, fault, doubt, has_policy, is_deleted = 0, "", "", True, False
    versions: tuple[str, ...] = ()
    names: tuple[str, ...] | None = ()
    try:
        stored = await store.get_policy(model)
        has_policy = stored is not None
        if stored is not None:
            revision, versions = stored.policy.revision, tuple(stored.policy.versions)
            is_deleted, doubt = stored.policy.deleted, store.doubt_of(stored.policy)
            # What is not believed tells nothing of what serves.
            names = None if doubt else (*versions, *stored.policy.labels)
    except PolicyError as error:
        fault, names = str(error), None
    except BadNameError:  # of a pin or kill that was written by hand: no policy can have it
        return ModelStatus(model, 0, (), 0, (), has_policy=False)
    pins = faulty = 0
    async for one in marked_pins(store, model, names):
        pins += 1
        faulty += bool(one.fault)
    kills = await marked_kills(store, model, names)
    return ModelStatus(
        model, revision, versions, pins, kills, fault, faulty, has_policy, is_deleted, doubt
    )


def _cells(one: ModelStatus) -> tuple[str, str, str, str]:
    versions = "(deleted)" if one.is_deleted else ", ".join(one.versions)
    pins = f"{one.pins} ({one.faulty_pins} faulty)" if one.faulty_pins else str(one.pins)
    kills = "; ".join(map(_spell, one.kills))
    return one.told_revision, "" if one.doubt else versions, pins, kills


def _spell(kill: Kill) -> str:
    term = f"ends in {durations.spell(kill.ttl_s)}" if kill.ttl_s else ""
    told = ", ".join(part for part in (kill.reason, term) if part)
    named = kill.version or "the whole model"
    return spell(f"{named} ({told})" if told else named, kill.fault)
