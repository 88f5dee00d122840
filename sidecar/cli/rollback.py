"""`rmv rollback`: what an earlier revision said, committed anew."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from sidecar.cli import output
from sidecar.cli.committing import commit
from sidecar.cli.lookup import MAX_REVISIONS, expect_model, no_revision, revision_of
from sidecar.cli.names import Model
from sidecar.cli.options import Actor, Comment, Timeout, Wait, commands, user
from sidecar.cli.review import as_json, decoded, is_behind, show
from sidecar.cli.session import Session, with_store
from sidecar.cli.waiting import WAIT_S, wait_for
from sidecar.config import allow_list
from sidecar.model.policy import Policy
from sidecar.policy import codec
from sidecar.policy.diff import diff
from sidecar.runtime.clock import SystemClock
from sidecar.store.base import HistoryEntry, Store
from sidecar.store.document import expect_committed

app = commands()


@app.command("rollback")
@with_store
async def rollback(
    session: Session,
    *,
    model: Model,
    revision: Annotated[
        int | None,
        typer.Argument(metavar="REVISION", min=1, help="Which; default: what was said before."),
    ] = None,
    comment: Comment = "",
    actor: Actor = None,
    wait: Wait = False,
    timeout_s: Timeout = None,
) -> None:
    """Commit again what an earlier revision said, as the next revision.

    The files of `rmv apply` are not rolled back: it refuses to undo this until they say the same.
    """
    store = session.store
    raw = await store.get_document(model)
    stored = None if raw is None else decoded(raw)
    entry = await _earlier(store, model, stored, revision)
    expect_committed(entry, model)
    source = f"revision {entry.revision} of {model}"
    said = codec.load(entry.document, source=source, allowed=allow_list(session.config))
    changes = diff(stored, said)
    began_s = SystemClock().monotonic_s()
    if stored is not None and not changes and not await is_behind(store, stored):
        now = stored.revision
    else:
        why = comment or f"rollback to revision {entry.revision}"
        wanted = msgspec.structs.replace(said, applied=stored.applied if stored else "")
        now = await commit(store, wanted, raw, actor or user(), why)
    if not session.as_json:
        output.say(_outcome(model, entry.revision, now, is_changed=bool(changes)))
        show(changes, sys.stdout)
    waited = await wait_for(session, model, now, began_s, timeout_s or WAIT_S) if wait else None
    if session.as_json:
        told = {"model": model, "revision": now, "rolled_back_to": entry.revision}
        output.emit({**told, "changes": as_json(changes), "waited": waited})


def _outcome(model: str, earlier: int, now: int, *, is_changed: bool) -> str:
    if is_changed:
        return f"{model} rolled back to revision {earlier} (revision {now})"
    return f"{model} unchanged: it says what revision {earlier} says (revision {now})"


async def _earlier(
    store: Store, model: str, stored: Policy | None, revision: int | None
) -> HistoryEntry:
    """Return the revision that is meant: by its number, or the newest that says something else."""
    if revision is not None:
        return await revision_of(store, model, revision)
    entries = await store.history(model, limit=MAX_REVISIONS)
    if not entries:
        await expect_model(store, model)
    for entry in entries:
        policy = decoded(entry.document)
        if policy is not None and diff(stored, policy):
            return entry
    raise no_revision(model, "no earlier revision that says something else")
