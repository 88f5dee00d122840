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
from sidecar.store.base import Store

app = commands()


class Outcome(msgspec.Struct, frozen=True):
    """What became of one model's policy: `created`, `configured` or `unchanged`."""

    model: str
    outcome: str
    revision: int


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
    outcomes: list[Outcome] = []
    try:
        for policy in found.policies.values():
            one = await apply_policy(session.store, policy, actor or _user(), comment)
            outcomes.append(one)
            if not session.as_json:
                print(f"{one.model} {one.outcome} (revision {one.revision})")
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
    try:
        committed = await store.commit(policy, expected=raw, actor=actor, comment=comment)
    except StoreConflictError as error:
        msg = (
            f"{policy.model}: somebody else changed it just now; look at `rmv get` and apply again"
        )
        raise StoreConflictError(msg) from error
    outcome = "created" if raw is None else "configured"
    return Outcome(policy.model, outcome, committed.revision)


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
