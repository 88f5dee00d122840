"""`rmv keygen`: a pair of keys, one to sign with, one to trust."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sidecar.cli import output
from sidecar.cli.options import AsJson, StoreOptions, commands, given
from sidecar.runtime.ed25519 import generate

app = commands()


@app.command("keygen")
def keygen(
    ctx: typer.Context,
    *,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Whose: alice, release. Names the files.")
    ],
    folder: Annotated[
        Path, typer.Option("--dir", help="Where; default: here.", metavar="DIR")
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Make a pair of keys to sign with.

    They are Ed25519, in NAME.key and NAME.pub.

    Both are readable by their owner alone, and nothing that is there is overwritten.
    """
    if Path(name).name != name:
        msg = f"`{name}` is no name of a file: --dir says where"
        raise typer.BadParameter(msg)
    public = generate(folder, name)
    private, trusted = folder / f"{name}.key", folder / f"{name}.pub"
    if given(ctx, StoreOptions(as_json=as_json)).as_json:
        output.emit({"key": public.id, "private": str(private), "public": str(trusted)})
        return
    output.facts(
        (("key", public.id), ("private", str(private)), ("public", str(trusted))),
    )
    output.note(
        f"For policies: `rmv apply --key {private}` signs, sidecars believe it once "
        f"`signing.trusted` names {trusted}; the private file is then no sidecar's.\n"
        f"For audit: `audit.key_file` names {private}, and auditors get {trusted}."
    )
