"""The command `rmv`: which commands there are, and how they end."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from sidecar import __version__, is_compiled
from sidecar.cli import output
from sidecar.cli.failure import Misuse, tell, tell_misuse
from sidecar.cli.options import AsJson, ConfigFile, Prefix, Redis, StateDir, StoreOptions
from sidecar.cli.shell import whole_words
from sidecar.errors import ConfigError, SidecarError

COMMANDS = {
    "init": "sidecar.cli.init",
    "serve": "sidecar.cli.serve",
    "validate": "sidecar.cli.validate",
    "schema": "sidecar.cli.validate",
    "diff": "sidecar.cli.apply",
    "apply": "sidecar.cli.apply",
    "delete": "sidecar.cli.delete",
    "get": "sidecar.cli.get",
    "history": "sidecar.cli.get",
    "rollback": "sidecar.cli.rollback",
    "status": "sidecar.cli.status",
    "explain": "sidecar.cli.explain",
    "access": "sidecar.cli.access",
    "why": "sidecar.cli.why",
    "lineage": "sidecar.cli.lineage",
    "recall": "sidecar.cli.recall",
    "import": "sidecar.cli.mlflow",
    "sync": "sidecar.cli.mlflow",
    "plan": "sidecar.cli.plan",
    "try": "sidecar.cli.trial",
    "shadow": "sidecar.cli.shadow",
    "replay": "sidecar.cli.replay",
    "label": "sidecar.cli.label",
    "pin": "sidecar.cli.pin",
    "unpin": "sidecar.cli.pin",
    "pins": "sidecar.cli.pin",
    "kill": "sidecar.cli.kill",
    "unkill": "sidecar.cli.kill",
    "revoke": "sidecar.cli.revoke",
    "unrevoke": "sidecar.cli.revoke",
    "revocations": "sidecar.cli.revoke",
    "keygen": "sidecar.cli.keygen",
    "sign": "sidecar.cli.sign",
    "verify": "sidecar.cli.verify",
    "audit": "sidecar.cli.audit",
    "admin": "sidecar.cli.admin",
    "token": "sidecar.cli.token",
    "demo": "sidecar.cli.demo",
}
"""Where each command is: in the Typer `app` of that module."""

USAGE = 2
FAILURE = 1


class LazyGroup(TyperGroup):
    """Imports a command's module only when it is run: `rmv validate` needs no Redis client."""

    def list_commands(self, ctx: object) -> list[str]:
        """Return the names, in the order of `--help`."""
        return list(COMMANDS)

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | TyperGroup | None:
        """Return a command by its name, or None."""
        if cmd_name in COMMANDS:
            return _import(cmd_name)
        # It is among these that typer then looks for what was probably meant.
        self.commands.update({name: _import(name) for name in COMMANDS})
        return None


def _import(name: str) -> TyperCommand | TyperGroup:
    group = get_group(importlib.import_module(COMMANDS[name]).app)
    command = group.commands[name]
    if not isinstance(command, (TyperCommand, TyperGroup)):
        msg = f"{name} is not a command of Typer"
        raise TypeError(msg)
    return command


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 it is done, 1 it failed, 2 it was not understood."""
    given = sys.argv[1:] if argv is None else argv
    is_json = "--json" in takewhile(lambda one: one != "--", given)
    with output.for_programs(is_so=is_json), whole_words():
        sys.exit(_run(given))


def _run(argv: Sequence[str]) -> int:
    """Run one command and return its exit status; whatever it fails by is told here."""
    try:
        _expect_text(argv)
        status: object = app(args=argv, prog_name="rmv", standalone_mode=False)
    except Misuse as error:
        tell_misuse(error)
        return error.exit_code
    except SidecarError as error:
        tell(error)
        return USAGE if isinstance(error, ConfigError) else FAILURE
    return status if isinstance(status, int) else 0


def _expect_text(argv: Sequence[str]) -> None:
    """Raise ConfigError for an argument that is no UTF-8: a store could not take it."""
    for number, one in enumerate(argv, 1):
        try:
            one.encode()
        except UnicodeEncodeError as error:
            msg = f"argument {number} is not UTF-8: {one}"
            raise ConfigError(msg) from error


def _show_version(*, is_asked: bool) -> None:
    if is_asked:
        print(f"rmv {__version__}{' (compiled)' if is_compiled() else ''}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    *,
    redis: Redis = None,
    prefix: Prefix = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    version: Annotated[
        bool, typer.Option("--version", callback=lambda value: _show_version(is_asked=value))
    ] = False,
) -> None:
    """Decide at run time which model version serves each request.

    The options here may also follow a command.
    """
    ctx.obj = StoreOptions(redis, prefix, state_dir, config, as_json=as_json)
