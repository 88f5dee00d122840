"""`MODEL@VERSION`, as an argument and as the value of an option."""

from __future__ import annotations

from typing import Annotated

import typer

from sidecar.cli.names import complete_target


def split(text: str) -> tuple[str, str]:
    """Return model and version of `MODEL@VERSION` or `MODEL:VERSION`; no version of `MODEL`."""
    model, sign, version = text.replace(":", "@", 1).partition("@")
    if not model or (sign and not version):
        msg = f"`{text}` is not MODEL@VERSION"
        raise typer.BadParameter(msg)
    return model, version


Target = Annotated[
    str,
    typer.Argument(
        metavar="MODEL[@VERSION]",
        help="The version, or a label of it; without one: all of the model.",
        autocompletion=complete_target,
    ),
]
