"""How a failure is told: what went wrong, where, and what to do about it."""

from __future__ import annotations

import re
from typing import TypeVar, cast

import msgspec
import typer

from sidecar.cli import output
from sidecar.errors import SidecarError
from sidecar.policy.problem import PolicyError, Problem

Misuse = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])
"""What a command line is refused by: the base of these errors, which typer does not export."""

_OPTION = re.compile(r"--[a-z][a-z-]*")

E = TypeVar("E", bound=SidecarError)


class Failure(msgspec.Struct, frozen=True):
    """What `--json` prints of a failure, every field each time.

    `place` is where it is: `fraud.yaml:12:7: rules[1].serve`, or an option. `problems` are those
    of documents, as `rmv validate` has them, the first of them at `place`. `next` says what to do.
    None: not known.
    """

    error: str
    place: str | None = None
    problems: tuple[Problem, ...] = ()
    next: str | None = None


def advised(error: E, next_step: str) -> E:
    """Return an error that also says what to do: people read it on a line of its own."""
    error.add_note(next_step)
    return error


def tell(error: SidecarError) -> None:
    """Say on stderr why a command failed."""
    if not output.is_for_programs():
        output.complain(in_words(error))
        return
    problems = error.problems if isinstance(error, PolicyError) else ()
    place = str(msgspec.structs.replace(problems[0], reason="")) if problems else None
    place = place or _said(str(error))
    output.report(Failure(str(error), place, problems, _next_step(error) or None))


def in_words(error: SidecarError) -> str:
    """Return what people read of an error."""
    return "\n".join(filter(None, (str(error), _next_step(error))))


def tell_misuse(error: typer.BadParameter) -> None:
    """Say on stderr why a command line was refused."""
    if not output.is_for_programs():
        error.show()
        return
    command = error.ctx.command_path if error.ctx else "rmv"
    advice = f"`{command} --help` tells what it takes"
    place = _option(error) or _said(error.message)
    output.report(Failure(error.format_message(), place, next=advice))


def _next_step(error: SidecarError) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


def _said(text: str) -> str | None:
    """Return the option that a text is of: those that refuse one begin with it."""
    found = _OPTION.match(text)
    return found[0] if found else None


def _option(error: typer.BadParameter) -> str | None:
    """Return the option or argument that was refused, if it is one."""
    named = getattr(error, "option_name", None)
    if isinstance(named, str):
        return named
    param = getattr(error, "param", None)  # only some of these errors have one
    if param is None:
        return None
    spelled: str = param.opts[0]
    return spelled if spelled.startswith("-") else param.metavar or spelled
