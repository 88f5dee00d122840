"""`rmv admin`: credentials of the admin listener."""

from __future__ import annotations

import hashlib
import secrets
from enum import Enum
from typing import Annotated

import msgspec
import typer

from sidecar.cli import output
from sidecar.cli.options import AsJson, StoreOptions, commands, given, one_of
from sidecar.model.admin import AdminToken

TOKEN_BYTES = 32  # of randomness: so its hash needs no salt, and nobody guesses it
MARK = "rmv_"  # by which scanners for secrets know it


class Role(Enum):
    """What a token may do, each what those before it may, too."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


app = commands()
admin = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make credentials of the admin listener."
)
app.add_typer(admin, name="admin")


@admin.callback()
def _admin() -> None:
    """Make credentials of the admin listener."""


@admin.command("token")
def token(
    ctx: typer.Context,
    *,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Whose: it stands in histories and in audit.")
    ],
    role: Annotated[
        Role,
        typer.Option(parser=one_of(Role), help="viewer, operator or admin.", metavar="ROLE"),
    ],
    as_json: AsJson = False,
) -> None:
    """Make a bearer token for the admin API, and the lines of settings that believe it.

    It is printed once and kept nowhere: the settings have its hash.
    """
    made = MARK + secrets.token_urlsafe(TOKEN_BYTES)
    digest = hashlib.sha256(made.encode()).hexdigest()
    try:
        known = msgspec.convert({"name": name, "role": role.value, "sha256": digest}, AdminToken)
    except msgspec.ValidationError as error:
        msg = f"`{name}` is no name: 1 to 64 letters, digits, `.`, `_`, `@` and `-`"
        raise typer.BadParameter(msg) from error
    if given(ctx, StoreOptions(as_json=as_json)).as_json:
        output.emit({"token": made, "admin_token": known})
        return
    output.note(
        "First the token, which is told only here (Authorization: Bearer ...), then what the\n"
        "settings file of each sidecar gets; it is believed within a second."
    )
    print(made)
    print(
        f'\n[[admin_tokens]]\nname = "{known.name}"\nrole = "{known.role}"\n'
        f'sha256 = "{known.sha256}"'
    )
