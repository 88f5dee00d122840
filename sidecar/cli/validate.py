"""`rmv validate`: what is wrong with policy documents, without any store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sidecar.cli import documents, output
from sidecar.cli.options import AsJson, StoreOptions, commands, given

Files = Annotated[
    list[Path],
    typer.Option(
        "--file", "-f", help="A document, a folder of them, or -; may be repeated.", metavar="PATH"
    ),
]

app = commands()


@app.command("validate")
def validate(ctx: typer.Context, file: Files, as_json: AsJson = False) -> None:
    """Tell every problem of policy documents, each with its place."""
    found = documents.read(file)
    oddities = documents.warnings(found)
    if given(ctx, StoreOptions(as_json=as_json)).as_json:
        output.emit({"valid": not found.problems, "problems": found.problems, "warnings": oddities})
    else:
        for problem in found.problems:
            print(problem)
        for source, policy in found.policies.items() if not found.problems else ():
            print(f"{source}: policy of {policy.model} is valid")
        for one in oddities:
            output.warn(str(one))
    if found.problems:
        raise typer.Exit(1)
