"""The options that commands share, and the configuration they add up to."""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from msgspec import Struct

from sidecar import config as configuration
from sidecar.cli import durations
from sidecar.policy import moment
from sidecar.runtime.clock import SystemClock

Redis = Annotated[
    str | None,
    typer.Option(help="Store: a Redis URL, or `embedded` (RMV_REDIS).", metavar="URL"),
]
Prefix = Annotated[
    str | None, typer.Option(help="What every key begins with (RMV_PREFIX).", metavar="NAME")
]
StateDir = Annotated[
    str | None,
    typer.Option(help="Folder of the embedded store (RMV_STATE_DIR).", metavar="DIR"),
]
ConfigFile = Annotated[
    str | None,
    typer.Option("--config", "-c", help="TOML configuration file (RMV_CONFIG).", metavar="FILE"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _seconds(text: str) -> float:
    try:
        return durations.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _moment(text: str) -> float:
    try:
        return moment.seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def ago_or_at(text: str) -> float:
    """Read how long ago a moment was, or the moment; return epoch seconds."""
    try:
        return SystemClock().now_s() - durations.parse(text)
    except ValueError:
        pass
    try:
        return moment.seconds(text)
    except ValueError as error:
        msg = f"`{text}` is neither a time (2026-11-23T13:00:00Z) nor how long ago (15m, 1h, 2d)"
        raise typer.BadParameter(msg) from error


Kind = TypeVar("Kind", bound=Enum)


def one_of(kind: type[Kind]) -> Callable[[str], Kind]:
    """Return a parser of an option that takes one of a few words."""

    def parse(text: str | Kind) -> Kind:
        try:
            return kind(text)
        except ValueError as error:
            words = ", ".join(str(one.value) for one in kind)
            msg = f"`{text}` is none of {words}"
            raise typer.BadParameter(msg) from error

    return parse


Ttl = Annotated[
    float | None,
    typer.Option(parser=_seconds, help="End by itself after: 30s, 15m, 1h, 2d.", metavar="TIME"),
]
At = Annotated[
    float | None,
    typer.Option("--at", parser=_moment, help="When: 2026-11-23T13:00:00Z.", metavar="TIME"),
]
Before = Annotated[
    float | None,
    typer.Option(
        "--before",
        parser=ago_or_at,
        help="Issued before: 2026-11-23T13:00:00Z, or how long ago. Default: now.",
        metavar="TIME",
    ),
]
Versions = Annotated[
    list[str] | None,
    typer.Option(help="A version and its endpoint; may be repeated.", metavar="NAME=URL"),
]
Default = Annotated[str | None, typer.Option(help="The version that answers.", metavar="NAME")]
Shadows = Annotated[
    list[str] | None, typer.Option(help="A version that gets copies.", metavar="NAME[=PERCENT]")
]
Scopes = Annotated[list[str] | None, typer.Option(help="A scope; may be repeated.")]
Segments = Annotated[
    list[str] | None,
    typer.Option("--segment", help="A segment that the token lists; may be repeated."),
]
Grants = Annotated[
    list[str] | None,
    typer.Option(
        "--grant",
        help="What the token grants of the model; may be repeated.",
        metavar="VERSION|label:LABEL|RANGE",
    ),
]
Claims = Annotated[
    list[str] | None, typer.Option(help="A claim; may be repeated.", metavar="NAME=VALUE")
]
Headers = Annotated[
    list[str] | None, typer.Option("--header", "-H", help="A header.", metavar="'NAME: VALUE'")
]
Subject = Annotated[str, typer.Option(help="The caller's subject.")]
AppName = Annotated[str, typer.Option("--app", help="The caller's app.")]
Method = Annotated[str, typer.Option(help="The request's method.")]
Target = Annotated[str, typer.Option(help="The request's target.")]
Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant.")]
Force = Annotated[
    bool, typer.Option("--force", help="Do it although the policy lacks the version.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", parser=_seconds, help="How long to wait; default: 30s.", metavar="TIME"
    ),
]
Since = Annotated[
    float | None,
    typer.Option(parser=_seconds, help="No further back than: 15m, 1h, 2d.", metavar="TIME"),
]
SigningKey = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="RMV_SIGNING_KEY",
        show_envvar=False,
        help="Sign it with the private key of a file (RMV_SIGNING_KEY).",
        metavar="FILE",
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Return when every live sidecar decides by it.")]
Actor = Annotated[str | None, typer.Option(help="Who; default: user@host.")]
Comment = Annotated[str, typer.Option(help="Why; kept in the history.")]


class StoreOptions(Struct, frozen=True):
    """Which store is meant; None where nothing was said."""

    redis: str | None = None
    prefix: str | None = None
    state_dir: str | None = None
    config: str | None = None
    as_json: bool = False

    def over(self, weaker: StoreOptions) -> StoreOptions:
        """Return these options, with those of `weaker` where nothing was said."""
        return StoreOptions(
            redis=self.redis or weaker.redis,
            prefix=self.prefix or weaker.prefix,
            state_dir=self.state_dir or weaker.state_dir,
            config=self.config or weaker.config,
            as_json=self.as_json or weaker.as_json,
        )

    def flags(self) -> dict[str, configuration.Flag]:
        """Return the settings that were given."""
        return {"redis": self.redis, "prefix": self.prefix, "state_dir": self.state_dir}

    def file(self) -> Path | None:
        """Return the configuration file that was named, by the option or by RMV_CONFIG."""
        named = self.config or os.environ.get("RMV_CONFIG")
        return Path(named) if named else None

    def read(self) -> configuration.Config:
        """Return the configuration a tool works by; raises ConfigError."""
        return configuration.read(self.file(), os.environ, self.flags())


def user() -> str:
    """Return who runs this, as a history names them: `user@host`."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        name = "unknown"
    return f"{name}@{platform.node()}"


def commands() -> typer.Typer:
    """Return an empty app for the commands of one module."""
    return typer.Typer(add_completion=False, rich_markup_mode=None)


def given(ctx: object, options: StoreOptions) -> StoreOptions:
    """Return a command's options over those that stood before its name."""
    before: object = getattr(ctx, "obj", None)
    return options.over(before) if isinstance(before, StoreOptions) else options
