"""`rmv apply`: bring the store to what policy documents say."""

from __future__ import annotations

import getpass
import platform
from typing import Annotated

import msgspec
import typer

from sidecar.cli import documents, output
from sidecar.cli.options import commands
from sidecar.cli.session import Session, with_store
from sidecar.cli.validate import Files
from sidecar.errors import StoreConflictError
from sidecar.model.policy import Policy
from sidecar.policy import codec
from sidecar.policy.problem import PolicyError
from sidecar.store.adoption import DIRECT, Adoption, judge
from sidecar.store.base import Store

app = commands()


class Outcome(msgspec.Struct, frozen=True):
    """What became of one model's policy: `created`, `configured` or `unchanged`.

    `replaced` names a direct edit that is no longer in force: `revision 4 by direct`.
    """

    model: str
    outcome: str
    revision: int
    replaced: str = ""


@app.command("apply")
@with_store
async def apply(
    session: Session,
    file: Files,
    comment: Annotated[str, typer.Option(help="Why; kept in the history.")] = "",
    actor: Annotated[str | None, typer.Option(help="Who; default: user@host.")] = None,
) -> None:
    """Commit policy documents that differ from the store's; nothing if any of them is invalid."""
    found = documents.read(file)
    if found.problems:
        raise PolicyError(found.problems)
    for warning in documents.warnings(found):
        output.warn(str(warning))
    outcomes: list[Outcome] = []
    try:
        for policy in found.policies.values():
            one = await apply_policy(session.store, policy, actor or _user(), comment)
            outcomes.append(one)
            if not session.as_json:
                replaced = f", replaces {one.replaced}" if one.replaced else ""
                print(f"{one.model} {one.outcome} (revision {one.revision}{replaced})")
    finally:
        if session.as_json:
            output.emit(outcomes)


async def apply_policy(store: Store, policy: Policy, actor: str, comment: str) -> Outcome:
    """Commit a policy if it differs from the stored one.

    A stored document that is not valid is replaced. Raises StoreConflictError when somebody else
    changes it at the same time: what they meant must not be lost unseen.
    """
    raw = await store.get_document(policy.model)
    stored = None if raw is None else _decoded(raw)
    if stored is not None and _bare(stored) == _bare(policy):
        return Outcome(policy.model, "unchanged", stored.revision)
    replaced = "" if raw is None or stored is None else await _direct_edit(store, stored, raw)
    try:
        committed = await store.commit(policy, expected=raw, actor=actor, comment=comment)
    except StoreConflictError as error:
        msg = (
            f"{policy.model}: somebody else changed it just now; look at `rmv get` and apply again"
        )
        raise StoreConflictError(msg) from error
    outcome = "created" if raw is None else "configured"
    return Outcome(policy.model, outcome, committed.revision, replaced)


async def _direct_edit(store: Store, stored: Policy, raw: bytes) -> str:
    """Name the stored document if it was written past `rmv apply`, adopted already or not."""
    if stored.actor == DIRECT:
        return f"revision {stored.revision} by {DIRECT}"
    newest = next(iter(await store.history(stored.model, limit=1)), None)
    last = newest.revision if newest else 0
    recorded = newest.digest if newest and newest.revision == stored.revision else None
    verdict = judge(stored.revision, codec.digest(raw), last=last, recorded=recorded)
    return "a direct edit" if verdict is Adoption.COMMIT else ""


def _decoded(raw: bytes) -> Policy | None:
    """Return a stored policy; None for a broken one, which is what an apply repairs."""
    try:
        return codec.decode(raw, source="store")
    except PolicyError:
        return None


def _bare(policy: Policy) -> bytes:
    """Encode a policy without what a commit adds."""
    return codec.encode(msgspec.structs.replace(policy, revision=0, actor="", comment=""))


def _user() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{platform.node()}"
