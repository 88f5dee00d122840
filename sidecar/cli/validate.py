"""`rmv validate`, `rmv schema`: what is wrong with policy documents, and how they look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sidecar.cli import documents, output
from sidecar.cli.options import AsJson, ConfigFile, StoreOptions, commands, given
from sidecar.config import allow_list
from sidecar.policy.schema import schema

Files = Annotated[
    list[Path],
    typer.Option(
        "--file", "-f", help="A document, a folder of them, or -; may be repeated.", metavar="PATH"
    ),
]

app = commands()


@app.command("validate")
def validate(
    ctx: typer.Context, file: Files, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Tell every problem of policy documents, each with its place.

    Exit status: 0 they are good, 1 they have problems, 2 the command was not understood. Warnings
    go to standard error and change nothing about it.
    """
    options = given(ctx, StoreOptions(config=config, as_json=as_json))
    found = documents.read(file, allow_list(options.read()))
    if options.as_json:
        told = {"problems": found.problems, "warnings": found.warnings}
        output.emit({"valid": not found.problems, **told})
    else:
        for problem in found.problems:
            output.say(str(problem))
        for source, policy in found.policies.items() if not found.problems else ():
            output.say(f"{source}: policy of {policy.model} is valid")
        for one in found.warnings:
            output.warn(str(one))
    if found.problems:
        raise typer.Exit(1)


@app.command("schema")
def print_schema(*, as_json: AsJson = False) -> None:
    """Print the JSON Schema of policy documents, for editors."""
    output.emit(schema())
