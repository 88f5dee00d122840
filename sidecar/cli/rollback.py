"""`rmv rollback`: what an earlier revision said, committed anew.

A second rollback goes one step further back, not to what the first one went away from: that is what
somebody found bad, and two people, or one who is impatient, may well type the same command. So
each rollback tells in its comment which revision it is one of.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec
import typer

from sidecar.cli import output
from sidecar.cli.committing import commit
from sidecar.cli.failure import advised
from sidecar.cli.lookup import expect_model, no_revision, revision_of
from sidecar.cli.names import Model, complete_revision
from sidecar.cli.options import Actor, Comment, SigningKey, Timeout, Wait, commands, user
from sidecar.cli.review import (
    LOOK_BACK,
    as_json,
    compared,
    decoded,
    is_behind,
    last_good,
    read,
    show,
)
from sidecar.cli.session import Session, with_store
from sidecar.cli.signing import UnbelievedError, doubt_of, sign_with
from sidecar.cli.waiting import wait_for
from sidecar.config import allow_list
from sidecar.errors import SidecarError
from sidecar.model.policy import Policy
from sidecar.policy import codec
from sidecar.policy.diff import diff
from sidecar.policy.problem import PolicyError
from sidecar.runtime.clock import SystemClock
from sidecar.store.base import HistoryEntry, Store
from sidecar.store.committed import MAX_REVISIONS, expect_committed
from sidecar.store.document import without_lines

MARK = "rollback to revision "
_MARKED = re.compile(rf"(?:^|\(){MARK}([0-9]{{1,19}})\)?$")

app = commands()


class UnclearError(SidecarError):
    """It is not clear which revision a rollback is to go to."""


@app.command("rollback")
@with_store
async def rollback(
    session: Session,
    *,
    model: Model,
    revision: Annotated[
        int | None,
        typer.Argument(
            metavar="REVISION",
            min=1,
            help="Which; default: what was said before.",
            autocompletion=complete_revision,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would change, and change nothing.")
    ] = False,
    comment: Comment = "",
    actor: Actor = None,
    wait: Wait = False,
    timeout_s: Timeout = None,
    key: SigningKey = None,
) -> None:
    """Commit again what an earlier revision said, as the next.

    A second rollback goes one step further back: what the first one went away from, only its number
    brings back. The files of `rmv apply` are not rolled back: it refuses to undo this until they
    say the same.
    """
    if dry_run and wait:
        msg = "--dry-run changes nothing: there is nothing to --wait for"
        raise typer.BadParameter(msg)
    sign_with(session, key)
    store = session.store
    raw = await store.get_document(model)
    stored = read(raw, model)
    entry = await _earlier(store, model, stored, revision)
    expect_committed(entry, model)
    source = f"revision {entry.revision} of {model}"
    said = _load(entry, source, session)
    doubt = doubt_of(session, said)
    if session.store.signer is not None and said.revision != entry.revision:
        doubt = f"its document is that of revision {said.revision}"
    if doubt:
        raise UnbelievedError(f"{source} is not to be signed anew: {doubt}")
    is_doubtful = stored is not None and bool(doubt_of(session, stored))
    base = await _base(store, model, raw)
    changes = diff(base.policy, said)
    began_s = SystemClock().monotonic_s()
    now = stored.revision if stored else 0
    is_wanted = stored is None or changes or is_doubtful or await is_behind(store, stored)
    if not dry_run and is_wanted:
        mark = f"{MARK}{entry.revision}"
        why = f"{comment} ({mark})" if comment else mark
        applied = stored.applied if stored and not is_doubtful else ""
        wanted = msgspec.structs.replace(said, applied=applied)
        now = await commit(store, wanted, raw, actor or user(), why)
    if not session.as_json:
        at = ("dry run" if dry_run else f"revision {now}") + base.replaces
        is_changed = bool(changes or base.replaces)
        output.say(_outcome(model, entry.revision, at, is_changed=is_changed))
        show(changes, sys.stdout)
    waited = await wait_for(session, {model: now}, began_s, timeout_s) if wait else None
    if session.as_json:
        told = {"model": model, "revision": now, "rolled_back_to": entry.revision}
        against = {"compared_with": base.compared_with}
        output.emit({**told, **against, "changes": as_json(changes), "waited": waited})


class _Base(NamedTuple):
    """What changes are told against; `replaces` says what it stands for if that is not stored."""

    policy: Policy | None
    replaces: str = ""
    compared_with: int | None = None


async def _base(store: Store, model: str, raw: bytes | None) -> _Base:
    """Return what is stored; where it cannot be read, what is decided by in its place."""
    stored = read(raw, model)
    if raw is None or stored is not None:
        return _Base(stored)
    good = await last_good(store, model)
    number = None if good is None else good.revision
    return _Base(good, f", replaces a document that is not valid{compared(number)}", number)


def _load(entry: HistoryEntry, source: str, session: Session) -> Policy:
    """Read an earlier revision, as one that is to be in force again."""
    try:
        return codec.load(entry.document, source=source, allowed=allow_list(session.config))
    except PolicyError as error:
        raise without_lines(error, entry.document) from error


def _outcome(model: str, earlier: int, at: str, *, is_changed: bool) -> str:
    if is_changed:
        return f"{model} rolled back to revision {earlier} ({at})"
    return f"{model} unchanged: it says what revision {earlier} says ({at})"


async def _earlier(
    store: Store, model: str, stored: Policy | None, revision: int | None
) -> HistoryEntry:
    """Return the revision that is meant: by its number, or one step back from what is stored."""
    if revision is not None:
        return await revision_of(store, model, revision)
    entries = await store.history(model, limit=MAX_REVISIONS)
    if not entries:
        await expect_model(store, model)
    at = one_back(entries, stored)
    if at is None:
        raise no_revision(model, "nothing further back that says something else")
    if stored is not None:
        _expect_clear(model, entries[at], entries[at + 1 : at + LOOK_BACK], stored)
    return entries[at]


def one_back(entries: Sequence[HistoryEntry], stored: Policy | None) -> int | None:
    """Return where, newest first, the history says what was in force before `stored`.

    A revision that is a rollback stands for the one that it went to: what lies between was left.
    """
    at = 0
    while at < len(entries):
        policy = decoded(entries[at].document)
        if policy is not None and (stored is None or diff(stored, policy)):
            return at
        at = _origin(entries, at) + 1
    return None


def _origin(entries: Sequence[HistoryEntry], at: int) -> int:
    """Return where the revision is that the one at `at` is a rollback to; itself if it is none.

    What was trimmed from the history counts as its end.
    """
    while marked := _MARKED.search(entries[at].comment):
        wanted = int(marked[1])
        if wanted >= entries[at].revision:
            return at
        older = range(at + 1, len(entries))
        found = next((one for one in older if entries[one].revision <= wanted), len(entries))
        if found == len(entries):
            return found
        if entries[found].revision == wanted and not _say_the_same(entries[at], entries[found]):
            return at  # a comment about something else
        at = found
    return at


def _say_the_same(one: HistoryEntry, other: HistoryEntry) -> bool:
    policy, before = decoded(one.document), decoded(other.document)
    return policy is not None and before is not None and not diff(policy, before)


def _expect_clear(
    model: str, found: HistoryEntry, older: Sequence[HistoryEntry], stored: Policy
) -> None:
    """Raise UnclearError when `found` was left already, for what is stored now: by files, say."""
    for entry in older:
        policy = decoded(entry.document)
        if policy is not None and not diff(stored, policy):
            msg = (
                f"{model} says what revision {entry.revision} said, so revision {found.revision} "
                "was taken back already, and may be a bad one."
            )
            advice = (
                f"Name the revision that you want: `rmv history {model}` lists them, "
                f"`rmv rollback {model} {found.revision} --dry-run` tells what would change."
            )
            raise advised(UnclearError(msg), advice)
