"""`rmv serve`: settings are checked here, then this process becomes the one that serves."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from sidecar import config as configuration
from sidecar.cli.options import (
    ConfigFile,
    Default,
    Prefix,
    Redis,
    Shadows,
    StateDir,
    StoreOptions,
    Versions,
    commands,
    given,
)
from sidecar.cli.seed import seed_policy

app = commands()


@app.command("serve")
def serve(
    ctx: typer.Context,
    *,
    config: ConfigFile = None,
    model: Annotated[
        str | None, typer.Option(help="The model of requests that name no other.", metavar="NAME")
    ] = None,
    version: Versions = None,
    default: Default = None,
    shadow: Shadows = None,
    listen: Annotated[
        str | None, typer.Option(help="Where clients connect.", metavar="HOST:PORT")
    ] = None,
    admin: Annotated[
        str | None, typer.Option(help="Health and metrics, or `off`.", metavar="HOST:PORT")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes.", metavar="N")] = None,
    redis: Redis = None,
    prefix: Prefix = None,
    state_dir: StateDir = None,
    exchange_log: Annotated[
        str | None, typer.Option(help="`stdout`, `off` or a file.", metavar="WHERE")
    ] = None,
    no_auth: Annotated[
        bool | None, typer.Option("--no-auth", help="Believe every caller without a token.")
    ] = None,
    allow_slow: Annotated[
        bool | None,
        typer.Option("--allow-slow", help="Start without modules in C that make it fast."),
    ] = None,
) -> None:
    """Serve: decide the version of each request and pass it on.

    Settings: file, then environment (RMV_LISTEN, RMV_LIMITS__HEAD_BYTES), then flags.
    --version, --default and --shadow make a policy when the store has none for the model.
    """
    options = given(ctx, StoreOptions(redis, prefix, state_dir, config))
    flags: dict[str, configuration.Flag] = {
        **options.flags(),
        "model": model,
        "listen": listen,
        "admin": admin,
        "workers": workers,
        "exchange_log": exchange_log,
        "no_auth": no_auth,
        "allow_slow": allow_slow,
    }
    settings = configuration.load(options.file(), os.environ, flags)
    allowed = configuration.allow_list(settings)
    policy = seed_policy(settings.model, version or (), default, shadow or (), allowed)
    file = options.file()
    # What is no file, as a pipe, is read once.
    again = str(file.absolute()) if file is not None and file.is_file() else ""
    become_server(configuration.ServeSpec(settings, policy, again))


def become_server(spec: configuration.ServeSpec) -> None:
    """Turn this process into the one that serves: same pid, no command line in its memory."""
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: a module that lies in the current folder must not stand in for one of ours.
    arguments = [sys.executable, "-P", "-m", "sidecar.app"]
    os.execve(sys.executable, arguments, configuration.hand_over(spec, os.environ))  # noqa: S606 -- no shell is wanted
