"""`rmv delete`: a model taken out of the store."""

from __future__ import annotations

from typing import Annotated

import typer

from sidecar.cli import output
from sidecar.cli.apply import EditedError, carry_out
from sidecar.cli.failure import advised
from sidecar.cli.lookup import expect_model
from sidecar.cli.names import Model
from sidecar.cli.options import commands
from sidecar.cli.review import review
from sidecar.cli.session import Session, with_store

app = commands()


@app.command("delete")
@with_store
async def delete(
    session: Session,
    model: Model,
    force: Annotated[
        bool, typer.Option("--force", help="Delete a document that is not valid, too.")
    ] = False,
) -> None:
    """Delete a model's policy, so that its requests get 404.

    Its history, pins and kills stay.
    """
    found = await review(session.store, model, None)
    if found.raw is None:
        await expect_model(session.store, model)
    if found.is_broken and not force:
        error = EditedError(f"{model} holds a document that is not valid and in no history")
        raise advised(error, "--force deletes it.")
    outcome = await carry_out(session.store, found, "", "")
    if session.as_json:
        output.emit(outcome)
        return
    output.say(f"{model} deleted (revision {outcome.revision})")
    output.note(f"`rmv rollback {model}` brings back what its history has")
