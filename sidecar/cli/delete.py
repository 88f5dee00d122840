"""`rmv delete`: a model taken out of the store."""

from __future__ import annotations

from typing import Annotated

import typer

from sidecar.cli import output
from sidecar.cli.apply import EditedError, carry_out
from sidecar.cli.failure import advised
from sidecar.cli.lookup import NotFoundError, expect_model
from sidecar.cli.names import Model
from sidecar.cli.options import Actor, SigningKey, commands, user
from sidecar.cli.review import review
from sidecar.cli.session import Session, with_store
from sidecar.cli.signing import sign_with
from sidecar.store.base import Store

app = commands()


@app.command("delete")
@with_store
async def delete(
    session: Session,
    model: Model,
    force: Annotated[
        bool, typer.Option("--force", help="Delete a document that is not valid, too.")
    ] = False,
    actor: Actor = None,
    key: SigningKey = None,
) -> None:
    """Delete a model's policy, so that its requests get 404.

    Its history, pins and kills stay.
    """
    sign_with(session, key)
    found = await review(session.store, model, None)
    if found.raw is None and not await _is_held(session.store, model):
        await expect_model(session.store, model)
    if found.is_broken and not force:
        error = EditedError(f"{model} holds a document that is not valid and in no history")
        raise advised(error, "--force deletes it.")
    if found.stored is not None and found.stored.deleted and found.is_settled:
        raise NotFoundError(f"{model} is deleted already (revision {found.stored.revision})")
    outcome = await carry_out(session.store, found, actor or user(), "deleted")
    if session.as_json:
        output.emit(outcome)
        return
    output.say(f"{model} deleted (revision {outcome.revision})")
    output.note(f"`rmv rollback {model}` brings back what its history has")


async def _is_held(store: Store, model: str) -> bool:
    """Return whether sidecars hold on to a model that the store has lost: its end can be signed."""
    living = () if store.signer is None else await store.fleet(model)
    return any(model in one.revisions for one in living)
