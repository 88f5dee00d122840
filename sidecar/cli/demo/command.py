"""The command itself: its options, its order of events, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from sidecar.cli.demo import checkout as material
from sidecar.cli.demo import folder as folders
from sidecar.cli.demo import invitation
from sidecar.cli.demo import stage as stages
from sidecar.cli.demo.children import ChildFailedError
from sidecar.cli.demo.screen import Claims, Screen
from sidecar.cli.demo.stage import FREE, USUAL_LISTEN, Stage
from sidecar.cli.demo.story import Story
from sidecar.cli.options import commands
from sidecar.config import parse_address
from sidecar.errors import ConfigError, SidecarError

WATCH_S = 0.5
_SIGNALLED = 128  # a shell's way to say that a signal ended a command
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # but nohup has the last ignored

app = commands()


@app.command("demo")
def demo(
    *,
    exits: Annotated[bool, typer.Option("--exit", help="End after the last step.")] = False,
    listen: Annotated[
        str | None,
        typer.Option(help=f"Where the sidecar listens; {USUAL_LISTEN}.", metavar="HOST:PORT"),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Use this folder, and leave it: settings, logs, data.", metavar="DIR"),
    ] = None,
) -> None:
    """Show the whole product in a minute.

    With real models and real data, and every claim is checked. It runs from a checkout of the
    repository, needs no service, and leaves nothing behind.
    """
    raise typer.Exit(asyncio.run(show(exits=exits, listen=listen, keep=keep)))


async def show(*, exits: bool, listen: str | None, keep: Path | None) -> int:
    """Run the demo; return the status to exit with, which is 0 unless a signal stopped it.

    Raises:
        ConfigError: it cannot run here or as asked.
        ChildFailedError: a process failed, or what was shown did not hold.
    """
    screen = Screen(sys.stdout)
    with _signals_cancel() as told:
        try:
            await _show(screen, exits=exits, listen=listen, keep=keep)
        except asyncio.CancelledError:
            if not told:
                raise
            screen.heading("Stopped before the end.")
            return _SIGNALLED + told[0]
    return 0


async def _show(screen: Screen, *, exits: bool, listen: str | None, keep: Path | None) -> None:
    began_s = perf_counter()
    checkout = material.load()
    address = choose_address(screen, listen)
    with folders.opened(keep) as folder:
        async with stages.raised(checkout, folder, address) as stage:
            claims = await _tell(screen, stage)
            took = f"{perf_counter() - began_s:.1f} s"
            if keep is not None:
                screen.line(f"Kept: {folder.path}")
            if claims.failed:
                screen.heading(
                    f"{claims.failed} of {claims.failed + claims.held} claims failed. ({took})"
                )
                raise stage.sidecar.failure("is not all that is claimed of it")
            screen.heading(f"All {claims.held} claims hold. ({took})")
            if not exits:
                screen.heading("Try it: everything stays up until Ctrl-C.")
                for line in invitation.write(stage):
                    screen.line(line)
                await stay(stage)
                screen.heading("Ending.")


async def _tell(screen: Screen, stage: Stage) -> Claims:
    """Take every step; a failure comes with the last words of the process that is behind it."""
    story = Story(stage, screen)
    try:
        for step in (story.start, story.send_rows, story.compare, story.refuse, story.pin):
            await step()
    except ChildFailedError:
        raise
    except SidecarError as error:
        raise (stage.ended() or stage.sidecar).failure(str(error)) from error
    return story.claims


@contextmanager
def _signals_cancel() -> Iterator[list[int]]:
    """Let the first signal that asks for an end cancel this task; later ones change nothing.

    Yields the list that the signal's number is put in. What is taken down takes seconds at most,
    and a second Ctrl-C must not leave half of it behind.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    told: list[int] = []

    def end(number: int) -> None:
        if not told and task is not None:
            told.append(number)
            task.cancel()

    endings = [one for one in _ENDINGS if signal.getsignal(one) is not signal.SIG_IGN]
    for one in endings:
        loop.add_signal_handler(one, end, one)
    try:
        yield told
    finally:
        for one in endings:
            loop.remove_signal_handler(one)


def choose_address(screen: Screen, listen: str | None) -> str:
    """Return where to listen; only the usual port is replaced when it is taken."""
    if listen is None and not stages.is_free(USUAL_LISTEN):
        screen.line(f"{USUAL_LISTEN} is taken, so the sidecar chooses another port.")
        return FREE
    if listen is None:
        return USUAL_LISTEN
    parse_address(listen)
    if not stages.is_free(listen):
        msg = f"--listen {listen}: cannot listen there; is the port taken?"
        raise ConfigError(msg)
    return listen


async def stay(stage: Stage) -> None:
    """Return when a signal says so; DemoError when a process is gone before."""
    try:
        while (gone := stage.ended()) is None:  # noqa: ASYNC110 -- processes, not an event
            await asyncio.sleep(WATCH_S)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()  # that is how it is meant to end
        return
    raise gone.failure("ended by itself")
