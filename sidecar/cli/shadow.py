"""`rmv shadow`: what shadow tests have shown."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sidecar.cli import durations, output
from sidecar.cli.failure import advised
from sidecar.cli.lookup import NotFoundError, policy_of
from sidecar.cli.names import complete_target
from sidecar.cli.options import commands
from sidecar.cli.redraw import Redraw
from sidecar.cli.session import Session, failing_with, with_store
from sidecar.cli.shadowed import ShadowTest, shadow_test_named, shadow_tests
from sidecar.cli.targets import split
from sidecar.errors import SidecarError
from sidecar.model.shadow import Difference, Evidence
from sidecar.shadow import markdown, spelling, svg
from sidecar.shadow.bias import account
from sidecar.shadow.report import Report, make_report
from sidecar.shadow.verdict import Check, Conclusion, Finding, conclude, spelling_of

WATCH_S = 2.0  # as often as sidecars tell
MAX_FIELDS = 20  # of those that are named where none is the one that was asked for
TROUBLE = 2  # of a report: 1 is an answer
FAILED, UNSETTLED = 1, 3  # exit statuses of `report --check`
_COLOURS: dict[Finding, output.Colour] = {Finding.PASS: "green", Finding.FAIL: "red"}

app = commands()
shadow = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="See what shadow tests have shown."
)
app.add_typer(shadow, name="shadow")

Target = Annotated[
    str,
    typer.Argument(
        metavar="MODEL@VERSION",
        help="The shadow's version, or a label of it.",
        autocompletion=complete_target,
    ),
]
TestId = Annotated[
    str | None, typer.Option("--test", help="Another test of it than the current.", metavar="ID")
]


class UnwritableError(SidecarError):
    """A file cannot be written."""


class Row(msgspec.Struct):
    """One test in a list; `agreement` is that of the serving version with the most pairs."""

    model: str
    version: str
    test: str
    is_current: bool
    since_s: float
    until_s: float
    eligible: int
    mirrored: int
    compared: int
    agreement: float | None
    outcome: Finding
    why: str


@shadow.command("list")
@with_store
async def list_(
    session: Session,
    *,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Only of this model.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Ended tests, too.")] = False,
) -> None:
    """List shadow tests: what became of the copies, how many agree, the verdict."""
    found = [
        one for one in await shadow_tests(session.store, model) if one.is_current or everything
    ]
    if model is not None and not found:
        await policy_of(session.store, model)  # raises where there is none
    rows = [_row(one) for one in found]
    if session.as_json:
        output.emit(rows)
    elif not rows:
        who = "no policy has" if model is None else f"the policy of {model} has no"
        output.note(f"{who} shadows; docs/shadow.md says how to begin")
    else:
        titles = ("SHADOW", "TEST", "ELIGIBLE", "MIRRORED", "COMPARED", "AGREE", "VERDICT", "WHY")
        colours = [_COLOURS.get(row.outcome) for row in rows]
        output.table(titles, [_cells(row) for row in rows], colours)


@shadow.command("report")
@failing_with(TROUBLE)
@with_store
async def report(
    session: Session,
    *,
    target: Target,
    test: TestId = None,
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder for report.md, report.json and plots."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit with 1 if it fails, 3 if inconclusive, 2 for trouble."),
    ] = False,
) -> None:
    """Report on a shadow test, as Markdown: sample, agreement, errors, latencies, fields, cost.

    With --output also as JSON and with plots (SVG).
    """
    found = await _named(session, target, test)
    made = _report(found)
    if to is not None:
        _write(made, to)
        output.note(f"{to}: report.md, report.json and plots")
    elif session.as_json:
        output.emit(made)
    else:
        output.say(markdown.render(made))
    if check and made.outcome is not Finding.PASS:
        raise typer.Exit(FAILED if made.outcome is Finding.FAIL else UNSETTLED)


@shadow.command("diffs")
@with_store
async def diffs(
    session: Session,
    *,
    target: Target,
    number: Annotated[int, typer.Option("-n", min=1, help="How many, the newest first.")] = 20,
    field: Annotated[str, typer.Option(help="Only pairs that differ in it.")] = "",
    tenant: Annotated[str, typer.Option(help="Only of this tenant.")] = "",
    request_id: Annotated[str, typer.Option(help="Only of this request, of either side.")] = "",
) -> None:
    """Show pairs that disagreed, and in what."""
    found = await _named(session, target, None)
    kept: list[Evidence] = []
    seen = 0
    fields: set[str] = set()
    async for one in _evidence(session, found):
        seen += 1
        fields.update(one.fields)
        if (
            (not field or field in one.fields)
            and tenant in {"", one.tenant}
            and request_id in {"", one.request_id, one.shadow_request_id}
        ):
            kept.append(one)
        if len(kept) == number:
            break
    if session.as_json:
        output.emit(kept)
        return
    if not kept:
        told = f"{found.name}: none of {seen:,} pairs that are kept fits"
        known = f"; they differ in {', '.join(sorted(fields)[:MAX_FIELDS])}"
        output.note(f"{told}{known if field else ''}" if seen else _no_pairs(found))
    for place, one in enumerate(kept):
        print("\n" if place else "", end="")
        _show(one)
    if kept and not any(_told(one) for one in kept):
        output.note("without what both sides said: `compare.keep.values` of the policy keeps it")


@shadow.command("watch")
@with_store
async def watch(
    session: Session,
    *,
    target: Target,
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="End after so many looks.")
    ] = None,
) -> None:
    """Show the figures of a shadow test as they come, until Ctrl-C.

    On a terminal they are drawn in place; else, and with --json, a line each look.
    """
    screen = Redraw(sys.stdout)
    looks = 0
    while True:
        found = await _named(session, target, None)
        if session.as_json:
            output.emit_line(_row(found))
        elif not screen.draw(_figures(found)):
            output.say(_line(_row(found)))
        sys.stdout.flush()
        looks += 1
        if looks == rounds:
            return
        await asyncio.sleep(WATCH_S)


@shadow.command("export")
@with_store
async def export(
    session: Session,
    *,
    target: Target,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file; else standard output.")
    ] = None,
) -> None:
    """Write the kept pairs, a line of JSON each, the oldest first: for `rmv replay`."""
    found = await _named(session, target, None)
    kept = [one async for one in _evidence(session, found)]
    if not kept:
        output.note(f"{_no_pairs(found)}: nothing is written")
        return
    try:
        with nullcontext(sys.stdout.buffer) if to is None else to.open("xb") as out:
            out.writelines(msgspec.json.encode(one) + b"\n" for one in reversed(kept))
            out.flush()
    except OSError as error:
        unwritable = UnwritableError(f"{to or 'standard output'}: {error.strerror}")
        if isinstance(error, FileExistsError):
            advised(unwritable, "Nothing is overwritten: give a name that is free.")
        raise unwritable from error
    disagreed = sum(pairs.number - pairs.agreed for pairs in found.tally.pairs.values())
    of_all = f", of {disagreed:,} that disagreed" if disagreed > len(kept) else ""
    output.note(f"{len(kept):,} pairs of {found.name} written{of_all}")
    if not any(one.method for one in kept):
        output.note("without requests: `compare.keep.bodies` of the policy keeps them for a replay")


@shadow.command("reset")
@with_store
async def reset(session: Session, *, target: Target) -> None:
    """Forget what was counted and kept of a shadow: its test begins anew.

    Sidecars hear of it within two seconds, and forget with the rest what they counted until then.
    """
    found = await _named(session, target, None)
    number = await session.store.reset_shadow(found.tally.model, found.tally.version)
    if session.as_json:
        output.emit({"model": found.tally.model, "version": found.tally.version, "tests": number})
    else:
        tests = output.counted(number, "test")
        output.say(f"{found.name}: {tests} forgotten; counting begins anew within 2 s")


async def _named(session: Session, target: str, test: str | None) -> ShadowTest:
    model, version = split(target)
    if not version:
        msg = f"`{target}` names no version: write MODEL@VERSION"
        raise typer.BadParameter(msg)
    return await shadow_test_named(session.store, model, version, test)


async def _evidence(session: Session, found: ShadowTest) -> AsyncIterator[Evidence]:
    """Iterate over what is kept of a test, the newest first; what cannot be read is counted."""
    unread = 0
    async for one in session.store.evidence(found.tally.model, found.tally.version):
        if one is None:
            unread += 1
        elif one.test == found.tally.test:
            yield one
    if unread:
        output.warn(f"{found.name}: {unread:,} entries are no evidence, and are left out")


def _report(found: ShadowTest) -> Report:
    try:
        return make_report(found.tally, found.shadow, found.currency)
    except ValueError as error:
        raise NotFoundError(f"{found.name}: its counts cannot be: {error}") from error


def _conclusion(found: ShadowTest) -> Conclusion:
    try:
        return conclude(found.tally, found.shadow)
    except ValueError as error:
        raise NotFoundError(f"{found.name}: its counts cannot be: {error}") from error


def _row(found: ShadowTest) -> Row:
    tally, ledger = found.tally, found.tally.ledger
    conclusion = _conclusion(found)
    most = max(tally.pairs.values(), key=lambda pairs: pairs.number, default=None)
    return Row(
        model=tally.model,
        version=tally.version,
        test=tally.test,
        is_current=found.is_current,
        since_s=tally.since_s,
        until_s=tally.until_s,
        eligible=ledger.eligible,
        mirrored=ledger.mirrored,
        compared=ledger.compared,
        agreement=most.agreed / most.number if most is not None and most.number else None,
        outcome=conclusion.outcome,
        why=conclusion.why if tally.workers else "no sidecar has told of copies yet",
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.model}@{row.version}",
        row.test if row.is_current else f"{row.test} (ended)",
        f"{row.eligible:,}",
        f"{row.mirrored:,}",
        f"{row.compared:,}",
        "" if row.agreement is None else spelling.percent(row.agreement),
        row.outcome.value,
        row.why,
    )


def _line(row: Row) -> str:
    agree = "-" if row.agreement is None else spelling.percent(row.agreement)
    return (
        f"{durations.clock(row.until_s)}  eligible {row.eligible:,}  mirrored {row.mirrored:,}  "
        f"compared {row.compared:,}  agree {agree}  {row.outcome.value}: {row.why}"
    )


def _figures(found: ShadowTest) -> list[str]:
    """Return what `watch` draws."""
    tally, conclusion = found.tally, _conclusion(found)
    books = account(tally.ledger, found.shadow.key if found.shadow is not None else "request")
    lines = [
        f"{found.name}  test {tally.test}  {durations.clock(tally.until_s)}  "
        f"{output.counted(tally.workers, 'worker')}",
        f"eligible {tally.ledger.eligible:,} = sampled out {tally.ledger.sampled_out:,} + mirrored "
        f"{tally.ledger.mirrored:,} + skipped {sum(tally.ledger.skipped.values()):,}"
        f"{_causes(tally.ledger.skipped)}",
        f"mirrored {tally.ledger.mirrored:,} = compared {tally.ledger.compared:,} + failed "
        f"{sum(tally.ledger.failed.values()):,}{_causes(tally.ledger.failed)} + uncompared "
        f"{sum(tally.ledger.uncompared.values()):,}{_causes(tally.ledger.uncompared)} + under way "
        f"{books.under_way:,}",
    ]
    for primary, verdict in conclusion.against.items():
        lines.append(f"against {primary}: {verdict.outcome.value}: {verdict.why}")
        lines += [_checked(check) for check in verdict.checks]
    lines.append(f"{conclusion.outcome.value}: {conclusion.why}")
    return [output.plain(line) for line in lines]


def _checked(check: Check) -> str:
    spell = spelling_of(check.name)
    seen = "-" if check.estimate is None else spell(check.estimate)
    within = spelling.between(check.interval, spell)
    return f"  {check.name}: {seen} in {within}, bound {spell(check.bound)}: {check.outcome.value}"


def _causes(counts: dict[str, int]) -> str:
    told = ", ".join(f"{cause} {number:,}" for cause, number in sorted(counts.items()) if number)
    return f" ({told})" if told else ""


def _show(one: Evidence) -> None:
    output.facts(
        [
            ("at", durations.clock(one.at_s, "milliseconds")),
            ("request", one.request_id),
            ("shadow's", one.shadow_request_id if one.shadow_request_id != one.request_id else ""),
            ("tenant", one.tenant),
            ("answered by", one.primary),
            ("status", _sides(str(one.primary_status), str(one.shadow_status))),
            ("took", _sides(spelling.seconds(one.primary_s), spelling.seconds(one.shadow_s))),
            ("compared as", one.kind),
            ("differs in", ", ".join(one.fields)),
        ]
    )
    told = _told(one)
    if told:
        rows = [(diff.field, diff.kind, diff.primary, diff.shadow, _delta(diff)) for diff in told]
        output.table(("FIELD", "WHAT", "CLIENT GOT", "SHADOW SAID", "BY"), rows)


def _told(one: Evidence) -> list[Difference]:
    """Return the differences of which it was kept what both sides said."""
    return [diff for diff in one.differences if diff.primary or diff.shadow]


def _sides(primary: str, shadow: str) -> str:
    return f"{primary}, of the shadow {shadow}"


def _delta(diff: Difference) -> str:
    return "" if diff.delta is None else f"{diff.delta:+.4g}"


def _no_pairs(found: ShadowTest) -> str:
    shadow = found.shadow
    if shadow is not None and shadow.compare is None:
        return f"{found.name}: nothing is compared, so nothing is kept; `compare` asks for it"
    if shadow is not None and shadow.compare is not None and not shadow.compare.keep.pairs:
        return f"{found.name}: `compare.keep.pairs` is 0, so no pair is kept"
    return f"{found.name}: no pair that disagreed is kept"


def _write(made: Report, folder: Path) -> None:
    plots = svg.plots(made)
    files = {
        "report.md": markdown.render(made, plots),
        "report.json": output.as_json(made) + "\n",
        **plots,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        unwritable = UnwritableError(f"{error.filename or folder}: {error.strerror}")
        if isinstance(error, FileExistsError):
            advised(unwritable, "A report is a folder of files: give the name of one.")
        raise unwritable from error
