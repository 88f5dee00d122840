"""`rmv audit`: what was done and decided, and whether that was changed since."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import msgspec
import typer

from sidecar.audit.entry import Entry
from sidecar.audit.verify import ChainReport, Fault, Head, Verifier
from sidecar.cli import durations, output
from sidecar.cli.options import ago_or_at, commands, one_of
from sidecar.cli.session import Session, failing_with, with_store
from sidecar.cli.trail import Files, Found, From, Trail, entries, trail_of, trails
from sidecar.errors import SidecarError
from sidecar.model.audit import Kind
from sidecar.runtime.clock import SystemClock

FOLLOW_S = 0.5
MAX_TOLD = 20  # notes, and faults, of one place that are printed; --json has all
OF_A_CHAIN = {kind.value for kind in (Kind.BEGIN, Kind.END, Kind.CHECKPOINT, Kind.LOST)}
TROUBLE = 2  # exit status of `verify`: 1 is an answer, and so is the next
UNPROVED = 3

app = commands()
audit = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Read and check what was audited."
)
app.add_typer(audit, name="audit")


When = Annotated[
    float | None, typer.Option(parser=ago_or_at, help="A time, or how long ago.", metavar="TIME")
]

Kinds = Annotated[
    list[Kind] | None,
    typer.Option(
        "--kind",
        parser=one_of(Kind),
        help="Of this kind; may be repeated. Default: all but checkpoints.",
        metavar="KIND",
    ),
]


class Wanted(NamedTuple):
    """Which entries are looked for; None and an empty text leave a member open.

    Without `kinds` they are all but checkpoints, which prove what others tell, and tell nothing.
    """

    kinds: Sequence[Kind] = ()
    request_id: str = ""
    tenant: str = ""
    subject: str = ""
    model: str = ""
    version: str = ""
    since_s: float | None = None
    until_s: float | None = None

    def fits(self, one: Entry) -> bool:
        """Return whether an entry is one of them."""
        named = ("request_id", "tenant", "subject", "model", "version")
        return (
            self._is_kind(one.kind)
            and (self.since_s is None or one.at_s >= self.since_s)
            and (self.until_s is None or one.at_s < self.until_s)
            and all(getattr(self, name) in {"", getattr(one, name)} for name in named)
        )

    def _is_kind(self, kind: str) -> bool:
        if not self.kinds:
            return kind != Kind.CHECKPOINT.value
        return any(kind == one.value for one in self.kinds)


@audit.command("tail")
@with_store
async def tail(
    session: Session,
    *,
    number: Annotated[int, typer.Option("-n", min=0, help="How many of the last entries.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as entries come.")] = False,
    kind: Kinds = None,
    file: Files = None,
    source: From = None,
) -> None:
    """Print the last entries, oldest first."""
    trail, wanted = await trail_of(session, file, source), Wanted(kind or ())
    last: deque[Found] = deque(maxlen=number)
    async for found in entries(trail, takes_torn=not follow):
        if wanted.fits(found.entry):
            last.append(found)
    for found in last:
        _print(found, as_json=session.as_json)
    while follow:
        await asyncio.sleep(FOLLOW_S)
        async for found in entries(trail, takes_torn=False):
            if wanted.fits(found.entry):
                _print(found, as_json=session.as_json)


@audit.command("search")
@with_store
async def search(
    session: Session,
    *,
    kind: Kinds = None,
    request_id: Annotated[str, typer.Option(help="Of this request.")] = "",
    tenant: Annotated[str, typer.Option(help="Of this tenant.")] = "",
    subject: Annotated[str, typer.Option(help="Of this subject.")] = "",
    model: Annotated[str, typer.Option(help="Of this model.")] = "",
    version: Annotated[str, typer.Option(help="Of this version.")] = "",
    since: When = None,
    until: When = None,
    file: Files = None,
    source: From = None,
) -> None:
    """Print the entries that fit all that is given, oldest first.

    A time is written 2026-11-23T13:00:00Z, how long ago 15m, 1h, 2d.
    """
    wanted = Wanted(kind or (), request_id, tenant, subject, model, version, since, until)
    async for found in entries(await trail_of(session, file, source)):
        if wanted.fits(found.entry):
            _print(found, as_json=session.as_json)


@audit.command("export")
@with_store
async def export(
    session: Session,
    *,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file; else standard output.")
    ] = None,
    file: Files = None,
    source: From = None,
) -> None:
    """Write every line as it is, so that `rmv audit verify --file` can check the copy."""
    trail = await trail_of(session, file, source)
    number = 0
    with nullcontext(sys.stdout.buffer) if to is None else _create(to) as out:
        async for page in trail.pages():
            out.writelines(line + b"\n" for _, line in page.lines)
            number += len(page.lines)
        out.flush()
    output.note(f"{output.counted(number, 'line')} of {trail.name} written")


@audit.command("verify")
@failing_with(TROUBLE)
@with_store
async def verify(
    session: Session,
    *,
    key: Annotated[
        list[Path] | None,
        typer.Option(help="Ed25519 public key (PEM) of checkpoints; may be repeated."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="What an earlier `verify --json` printed: nothing of it may be missing."),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Nothing may have been rotated or trimmed away.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 where something cannot be proved.")
    ] = False,
    file: Files = None,
    source: From = None,
) -> None:
    """Check every chain, and name the first row that was changed, dropped, moved or put in.

    Exit status: 0 no such row, 1 there is one, 2 it could not be checked.
    """
    check = _check_of(key or ())
    seen = [] if against is None else _seen(against)
    results = []
    for trail in await trails(session, file, source):
        verifier = Verifier(check, is_whole=whole or trail.is_whole, known=_heads(seen, trail))
        async for page in trail.pages():
            verifier.read(page.source, page.lines)
        chains = verifier.end(SystemClock().now_s())
        found = Result(trail.name, verifier.entries, chains, verifier.faults, verifier.notes)
        results.append(found)
    if session.as_json:
        output.emit(results)
    else:
        for result in results:
            _tell(result, is_checked=check is not None)
    if any(result.faults for result in results):
        raise typer.Exit(1)
    if strict and any(not _is_proved(result) for result in results):
        raise typer.Exit(UNPROVED)


class Result(msgspec.Struct):
    """What was found in one place."""

    source: str
    entries: int
    chains: list[ChainReport]
    faults: list[Fault]
    notes: list[str]


def _is_proved(result: Result) -> bool:
    return not result.notes and not any(chain.notes for chain in result.chains)


def _tell(result: Result, *, is_checked: bool) -> None:
    of = output.counted(len(result.chains), "writer")
    output.say(f"{result.source}: {output.counted(result.entries, 'entry', 'entries')} of {of}")
    notes = [f"{chain.writer} {note}" for chain in result.chains for note in chain.notes]
    notes += result.notes
    for note in notes[:MAX_TOLD]:
        output.say(f"  {output.plain(note)}")
    if len(notes) > MAX_TOLD:
        output.say(f"  and {len(notes) - MAX_TOLD:,} more: --json has all")
    if not is_checked:
        output.say("  signatures were not checked: --key names the public key")
    for fault in result.faults[:MAX_TOLD]:
        place = f"{fault.place}: " if fault.place else ""  # of what is gone there is none
        whose = f"entry {fault.seq} of {fault.writer}: " if fault.writer else ""
        told = f"{place}{whose}{fault.what}"
        output.complain(output.plain(told))  # a writer's name is what somebody wrote there
    if len(result.faults) > MAX_TOLD:
        output.complain(
            f"{len(result.faults) - MAX_TOLD:,} more in {result.source}: --json has all"
        )
    if not result.faults:
        output.say("  no row was changed, dropped, moved or put in")


def _check_of(keys: Sequence[Path]) -> Callable[[bytes, bytes], bool] | None:
    """Return what tells whether a signature is of one of these keys; raises KeyFileError."""
    if not keys:
        return None
    from sidecar.runtime.ed25519 import load_public  # noqa: PLC0415 -- slow to import

    loaded = [load_public(path) for path in keys]
    return lambda message, signature: any(one.verify(message, signature) for one in loaded)


class _Seen(msgspec.Struct):
    """What an earlier `verify --json` said of one place."""

    source: str
    chains: list[Head]


def _seen(path: Path) -> list[_Seen]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[_Seen])
    except OSError as error:
        raise SidecarError(f"{path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise SidecarError(f"{path}: not what `rmv audit verify --json` prints: {error}") from error


def _heads(seen: Sequence[_Seen], trail: Trail) -> list[Head]:
    """Return the heads that were seen in this place, or in all if it was not among them."""
    here = [one for one in seen if one.source == trail.name]
    return [head for one in here or seen for head in one.chains]


def _create(path: Path) -> BinaryIO:
    try:
        return path.open("xb")
    except OSError as error:
        raise SidecarError(f"{path}: {error.strerror}") from error


def _print(found: Found, *, as_json: bool) -> None:
    if as_json:
        output.emit_line(msgspec.json.decode(found.line))
    else:
        output.say(output.plain(_spell(found.entry)))
    sys.stdout.flush()


def _spell(one: Entry) -> str:
    """Return an entry on one line, for people."""
    caller = "/".join(word for word in (one.tenant, one.subject, one.app) if word)
    what = f"{one.model}:{one.version}" if one.version else one.model
    facts = " ".join(f"{name}={_fact(value)}" for name, value in one.facts.items())
    status = str(one.status) if one.status else ""
    writer = one.writer if one.kind in OF_A_CHAIN else ""
    words = (writer, one.actor, caller, what, one.reason, one.code, status, facts, one.request_id)
    return f"{durations.clock(one.at_s)}  {one.kind:<10}  {'  '.join(filter(None, words))}"


def _fact(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
