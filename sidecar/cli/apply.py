"""`rmv apply`, `rmv diff`: bring the store to what policy documents say; tell what would change."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sidecar.cli import documents, output
from sidecar.cli.committing import commit, conflict
from sidecar.cli.failure import advised
from sidecar.cli.options import Actor, Comment, SigningKey, Timeout, Wait, commands, user
from sidecar.cli.review import Review, as_json, compared, review, show, spell
from sidecar.cli.session import Session, failing_with, with_store
from sidecar.cli.signing import sign_with
from sidecar.cli.validate import Files
from sidecar.cli.waiting import wait_for
from sidecar.config import allow_list
from sidecar.errors import SidecarError, StoreConflictError
from sidecar.model.identity import JSON
from sidecar.model.policy import Policy
from sidecar.policy.diff import fingerprint
from sidecar.policy.problem import PolicyError
from sidecar.runtime.clock import SystemClock
from sidecar.store.base import Store

DIFFERENT = 1
BROKEN = "a document that is not valid"
MAX_STRAYS = 20  # keys that are told one by one
MAX_KEY_CHARS = 200  # of such a key: Redis takes half a gigabyte
TROUBLE = 2  # as diff(1): 1 is an answer

Prune = Annotated[
    bool, typer.Option("--prune", help="Delete models that the folder does not have.")
]

app = commands()


class EditedError(SidecarError):
    """Applying would undo what somebody changed in the store since files were last applied."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one model's policy, or would.

    `created`, `configured`, `signed` (it says the same, by another key or none), `unchanged`,
    `taken over` (the files say now what an edit said before
    them), `confirmed` (it stands there already, but sidecars decide by a newer revision that the
    store has lost), `deleted`, `kept` (edited, so left alone) or `refused`. `replaced` names the
    edits that are no longer in force: `revision 4 by direct`. `changes` are what the files would do
    to what is stored, or to the revision `compared_with` where that cannot be read; `edits` what
    somebody did since files were applied, that would be lost.
    """

    model: str
    outcome: str
    revision: int
    replaced: str = ""
    changes: list[dict[str, JSON]] = []
    edits: list[dict[str, JSON]] = []
    compared_with: int | None = None


@app.command("apply")
@with_store
async def apply(
    session: Session,
    *,
    file: Files,
    comment: Comment = "",
    actor: Actor = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would change, and change nothing.")
    ] = False,
    prune: Prune = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite edits that the files do not have.")
    ] = False,
    keep_edits: Annotated[
        bool, typer.Option("--keep-edits", help="Leave models alone that were edited so.")
    ] = False,
    wait: Wait = False,
    timeout_s: Timeout = None,
    key: SigningKey = None,
) -> None:
    """Commit policy documents that differ from the store's.

    Nothing is committed if any of them is invalid, or somebody has edited a model in the store
    since the last apply, and the documents do not say the same: look, then --force, or bring the
    edit into the files.
    """
    _check_prune(file, prune=prune)
    _expect_one(force, keep_edits, "--force overwrites edits, --keep-edits does not: give one")
    _expect_one(dry_run, wait, "--dry-run changes nothing: there is nothing to --wait for")
    sign_with(session, key)
    reviews = await _reviews(session.store, _read(file, session), prune=prune)
    edited = [] if force else [one for one in reviews if one.is_loss]
    if edited and not keep_edits:
        raise _refusal(session, edited)
    began_s = SystemClock().monotonic_s()
    outcomes: list[Outcome] = []
    try:
        for one in reviews:
            outcome = _planned(one, "kept" if one in edited else "")
            if not dry_run and one not in edited:
                outcome = await carry_out(session.store, one, actor or user(), comment)
            outcomes.append(outcome)
            if not session.as_json:
                _tell(one, outcome, is_planned=dry_run)
    finally:
        if session.as_json:
            output.emit(outcomes)
    if wait and (revisions := _in_force(outcomes)):
        await wait_for(session, revisions, began_s, timeout_s)


@app.command("diff")
@failing_with(TROUBLE)
@with_store
async def diff(session: Session, *, file: Files, prune: Prune = False) -> None:
    """Tell what `rmv apply` would change. Exit status: 0 nothing, 1 something, 2 trouble."""
    _check_prune(file, prune=prune)
    reviews = await _reviews(session.store, _read(file, session), prune=prune)
    different = [one for one in reviews if one.changes or one.is_loss or one.is_broken]
    if session.as_json:
        output.emit([_planned(one) for one in different])
    for one in different if not session.as_json else ():
        output.say(f"{one.model} ({_stored(one)})")
        show(one.changes, sys.stdout)
        if one.is_loss:
            output.warn(_edited(one))
    if different:
        raise typer.Exit(DIFFERENT)


async def apply_policy(store: Store, policy: Policy, actor: str, comment: str) -> Outcome:
    """Commit a policy if it differs from the stored one.

    A stored document that is not valid is replaced. Raises EditedError when an edit would be lost,
    and StoreConflictError when somebody else changes it at the same time: what they meant must not
    be lost unseen.
    """
    found = await review(store, policy.model, policy)
    if found.undone:
        raise EditedError(_edited(found))
    return await carry_out(store, found, actor, comment)


def _expect_one(first: bool, second: bool, why: str) -> None:
    if first and second:
        raise typer.BadParameter(why)


def _in_force(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return the revisions by which sidecars decide once they have come along."""
    gone = {"deleted", "kept", "refused"}
    return {one.model: one.revision for one in outcomes if one.outcome not in gone}


def _check_prune(file: Sequence[Path], *, prune: bool) -> None:
    if prune and not any(path.is_dir() for path in file):
        msg = "--prune needs a folder: -f policies/ says that nothing else is wanted"
        raise typer.BadParameter(msg)


def _read(file: Sequence[Path], session: Session) -> tuple[Policy, ...]:
    found = documents.read(file, allow_list(session.config))
    if found.problems:
        raise PolicyError(found.problems)
    for warning in found.warnings:
        output.warn(str(warning))
    return tuple(found.policies.values())


async def _warn_of_strays(store: Store) -> None:
    """Tell of what pruning leaves alone: it may be anybody's, and serves nobody."""
    strays = await store.stray_documents()
    for key in strays[:MAX_STRAYS]:
        shown = key if len(key) <= MAX_KEY_CHARS else f"{key[:MAX_KEY_CHARS]}..."
        output.warn(f"{shown} is left alone: no model can have this name, so it is no policy")
    if len(strays) > MAX_STRAYS:
        output.warn(f"{len(strays) - MAX_STRAYS:,} more keys like these are left alone")


async def _reviews(store: Store, wanted: Collection[Policy], *, prune: bool) -> list[Review]:
    found = [await review(store, policy.model, policy) for policy in wanted]
    if prune:
        named = {policy.model for policy in wanted}
        await _warn_of_strays(store)
        rest = [model for model in await store.models() if model not in named]
        found += [await review(store, model, None) for model in rest]
    return found


async def carry_out(store: Store, one: Review, actor: str, comment: str) -> Outcome:
    """Make the store say what the files say of one model."""
    planned = _planned(one)
    if planned.outcome == "unchanged":
        return planned
    if one.wanted is None:
        revision = await _delete(store, one, actor, comment)
        return msgspec.structs.replace(planned, revision=revision)
    wanted = msgspec.structs.replace(one.wanted, applied=fingerprint(one.wanted))
    revision = await commit(store, wanted, one.raw, actor, comment)
    return msgspec.structs.replace(planned, revision=revision)


async def _delete(store: Store, one: Review, actor: str, comment: str) -> int:
    """Delete a policy, unless it was changed since it was looked at; return its last revision."""
    if store.signer is not None:  # sidecars that trust keys want the end of a model signed, too
        end = Policy(one.model, versions={}, deleted=True)
        end = msgspec.structs.replace(end, applied=fingerprint(end))
        return await commit(store, end, one.raw, actor, comment)
    try:
        await store.delete_policy(one.model, expected=one.raw)
    except StoreConflictError as error:
        raise conflict(one.model) from error
    return one.stored.revision if one.stored else 0


def _planned(one: Review, outcome: str = "") -> Outcome:
    """Return what will become of a model; its revision is the one that is stored now."""
    if one.is_settled:
        outcome = "unchanged"
    elif not outcome:
        outcome = _verb(one)
    revision = one.stored.revision if one.stored else 0
    return Outcome(
        one.model,
        outcome,
        revision,
        ", ".join(one.editors),
        as_json(one.changes),
        as_json(one.undone),
        one.compared_with,
    )


def _verb(one: Review) -> str:
    if one.wanted is None:
        return "deleted"
    if one.raw is None:
        return "created"
    if one.changes or one.stored is None:
        return "configured"
    if one.is_behind:
        return "confirmed"
    return "signed" if one.is_unsigned else "taken over"


def _stored(one: Review) -> str:
    if one.is_broken:
        what = f"in the place of {BROKEN}" if one.wanted else BROKEN
        return what + compared(one.compared_with)
    return "new" if one.stored is None else f"revision {one.stored.revision}"


def _tell(one: Review, outcome: Outcome, *, is_planned: bool) -> None:
    if outcome.outcome == "kept":
        output.warn(f"{_edited(one)}\nIt is left as it is.")
    at = "dry run" if is_planned else f"revision {outcome.revision}"
    is_repaired = one.is_broken and one.wanted is not None
    lost = outcome.replaced or (BROKEN if is_repaired else "")
    replaced = f", replaces {lost}" if lost and outcome.outcome != "kept" else ""
    against = compared(one.compared_with) if is_planned else ""
    output.say(f"{one.model} {outcome.outcome} ({at}{replaced}{against})")
    if is_planned and outcome.outcome != "kept":
        show(one.changes, sys.stdout)


def _refusal(session: Session, edited: Sequence[Review]) -> EditedError:
    """Return a failure that tells which edits would be lost."""
    if session.as_json:
        output.emit([_planned(one, "refused") for one in edited])
    models = " ".join(one.model for one in edited)
    return advised(
        EditedError("\n".join(map(_edited, edited))),
        "Applying would undo this, so nothing was changed. Bring it into the files "
        f"(`rmv get {models}` prints what is stored), or apply with --force.",
    )


def _edited(one: Review) -> str:
    """Say who edited a model since files last said what it is, and what they changed."""
    if not one.undone:
        return f"{one.model} holds a document that is not valid, which deleting it would lose"
    how = "was edited since it was last applied" if one.was_applied else "was never applied"
    lines = [f"{one.model} {how}: {', '.join(one.editors)}"]
    return "\n".join([*lines, *(f"  {spell(change)}" for change in one.undone)])
