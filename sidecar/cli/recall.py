"""`rmv recall`: who got answers of versions that were made from something."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Annotated, NamedTuple

import msgspec
import typer

from sidecar.audit.entry import Entry, decode
from sidecar.cli import durations, output
from sidecar.cli.audit import When
from sidecar.cli.options import commands
from sidecar.cli.session import Session, with_store
from sidecar.cli.trail import Files, From, Trail, trail_of
from sidecar.errors import Code
from sidecar.model.audit import Kind
from sidecar.model.policy import Audited, Lineage, Policy
from sidecar.model.record import CLIENT_GONE, CLIENT_GONE_STATUS
from sidecar.policy import codec
from sidecar.policy.lineage import digest
from sidecar.policy.problem import PolicyError
from sidecar.store.base import Store
from sidecar.store.committed import MAX_REVISIONS, fault_of

MAX_RECENT = 10_000  # entries; what is written twice stands within some batches
MIN_COMMIT_CHARS = 7  # git's own shortest abbreviation
FIELDS = ("training_data", "feature_set", "config", "image", "git", "run", "registry", "digest")

_IN_ITS_PLACE = {**{one.slug: one.status for one in Code}, CLIENT_GONE: CLIENT_GONE_STATUS}
_DECISION = b'"kind":"%b"' % Kind.DECISION.value.encode()
_LOST = b'"kind":"%b"' % Kind.LOST.value.encode()

app = commands()


class Wanted(NamedTuple):
    """One thing that a version may be made from."""

    field: str
    value: str

    def is_in(self, lineage: Lineage, lineage_digest: str) -> bool:
        """Return whether a lineage has it; data and features may be named or told by digest."""
        match self.field:
            case "training_data":
                return any(self.value in {one.name, one.digest} for one in lineage.training_data)
            case "feature_set":
                one = lineage.feature_set
                return one is not None and self.value in {one.service, one.digest}
            case "git":
                return lineage.git.startswith(self.value)
            case "digest":
                return lineage_digest == self.value
            case _:
                return bool(getattr(lineage, self.field) == self.value)


def _wanted(text: str) -> Wanted:
    field, _, value = text.partition("=")
    if field not in FIELDS or not value:
        msg = f"`{text}` is not FIELD=VALUE; the fields are {', '.join(FIELDS)}"
        raise typer.BadParameter(msg)
    if field == "git" and len(value) < MIN_COMMIT_CHARS:
        msg = f"a commit is told by at least {MIN_COMMIT_CHARS} of its digits"
        raise typer.BadParameter(msg)
    return Wanted(field, value)


class Built(NamedTuple):
    """A version that was made from what is looked for, in some revisions of its policy.

    `untold` are revisions with a version of this name and no lineage: it may be the same one.
    `unaudited` are those of both in which audit was not told of decisions.
    """

    model: str
    version: str
    digests: tuple[str, ...]
    revisions: tuple[int, ...]
    untold: tuple[int, ...]
    unaudited: tuple[int, ...]


class Span(msgspec.Struct):
    """How many answers there were, and when the first and the last of them (epoch seconds)."""

    answers: int = 0
    first_s: float | None = None
    last_s: float | None = None

    def add(self, at_s: float) -> None:
        """Count an answer."""
        self.join(Span(1, at_s, at_s))

    def join(self, other: Span) -> None:
        """Count those of another."""
        self.answers += other.answers
        firsts = [at_s for at_s in (self.first_s, other.first_s) if at_s is not None]
        lasts = [at_s for at_s in (self.last_s, other.last_s) if at_s is not None]
        self.first_s, self.last_s = min(firsts, default=None), max(lasts, default=None)


class Answers(msgspec.Struct):
    """What a tenant got of a version. `is_sure` is false where the lineage was not told then."""

    tenant: str
    model: str
    version: str
    is_sure: bool
    span: Span = msgspec.field(default_factory=Span)


class Known(msgspec.Struct):
    """What audit knows at all: its decisions, and how many entries it lost.

    `orphans` are answers of versions whose lineage no history tells any more.
    """

    source: str
    span: Span = msgspec.field(default_factory=Span)
    lost: int = 0
    orphans: int = 0


class Versions(NamedTuple):
    """What the histories tell: versions that are looked for, and the digests of all lineages.

    `cut` are models of which not all revisions were looked through.
    """

    built: list[Built]
    digests: frozenset[str]
    cut: tuple[str, ...]


class Served(NamedTuple):
    """What audit says of an answer, but for the time."""

    tenant: str
    model: str
    version: str
    lineage: str
    revision: int


@app.command("recall")
@with_store
async def recall(
    session: Session,
    *,
    lineage: Annotated[
        list[Wanted],
        typer.Option(
            parser=_wanted,
            help="What it was made from: training_data, feature_set, config, image, git, run,"
            " registry or digest (of the whole lineage). May be repeated: any of them.",
            metavar="FIELD=VALUE",
        ),
    ],
    since: When = None,
    until: When = None,
    file: Files = None,
    source: From = None,
) -> None:
    """List who got answers of what was made from something.

    Which tenants, how many, and when. Audit's decisions are joined with the histories' documents.
    --since and --until take a time, or how long ago: 15m, 1h, 2d.
    """
    place = await trail_of(session, file, source)
    known, served = Known(place.name), dict[Served, Span]()
    await _count(place, (since, until), known, served)
    models = sorted({*await session.store.models(), *(one.model for one in served)})
    found = await _versions(session.store, models, lineage)
    answers = _answers(served, found, known)
    if session.as_json:
        versions = [one._asdict() for one in found.built]
        told = {"versions": versions, "answers": answers, "known": known}
        output.emit({**told, "not_looked_through": found.cut})
        return
    _tell(found, answers, (since, until))
    for line in _limits(found, known):
        output.note(line)


async def _count(
    place: Trail,
    period: tuple[float | None, float | None],
    known: Known,
    served: dict[Served, Span],
) -> None:
    """Count the answers that audit knows of, and note what it knows at all."""
    async for entry in _entries(place):
        if not _is_within(entry.at_s, period):
            continue
        if entry.kind == Kind.LOST.value:
            number = entry.facts.get("entries")
            known.lost += number if isinstance(number, int) else 0
            continue
        known.span.add(entry.at_s)
        if _has_begun(entry):
            of = Served(entry.tenant, entry.model, entry.version, entry.lineage, entry.revision)
            served.setdefault(of, Span()).add(entry.at_s)


def _has_begun(entry: Entry) -> bool:
    """Return whether a version began to answer, be it that the answer was cut short.

    Whoever read a part has it. What the sidecar tells in its place has the status of its code.
    """
    return bool(entry.version) and entry.status != _IN_ITS_PLACE.get(entry.code)


def _answers(served: dict[Served, Span], found: Versions, known: Known) -> list[Answers]:
    """Return the answers of the versions that are looked for, by tenant and version."""
    sure = {(one.model, one.version): one.digests for one in found.built}
    perhaps = {(one.model, one.version): one.untold for one in found.built}
    counted: dict[tuple[str, str, str, bool], Answers] = {}
    for one, span in served.items():
        of = one.model, one.version
        if one.lineage and one.lineage not in found.digests:
            known.orphans += span.answers
        is_sure = bool(one.lineage) and one.lineage in sure.get(of, ())
        if is_sure or (not one.lineage and one.revision in perhaps.get(of, ())):
            at = (one.tenant, *of, is_sure)
            counted.setdefault(at, Answers(*at)).span.join(span)
    return [counted[at] for at in sorted(counted)]


async def _versions(store: Store, models: Iterable[str], wanted: Sequence[Wanted]) -> Versions:
    """Look through the histories of models."""
    built: list[Built] = []
    digests: set[str] = set()
    cut: list[str] = []
    for model in models:
        entries = await store.history(model, MAX_REVISIONS)
        if len(entries) == MAX_REVISIONS and entries[-1].revision > 1:
            cut.append(model)
        revisions = [
            (entry.revision, policy)
            for entry in reversed(entries)
            if not fault_of(entry, model) and (policy := _read(entry.document)) is not None
        ]
        built += _built(model, revisions, wanted, digests)
    return Versions(built, frozenset(digests), tuple(cut))


def _read(raw: bytes) -> Policy | None:
    try:
        return codec.decode(raw, source="")
    except PolicyError:
        return None


def _built(
    model: str,
    revisions: Sequence[tuple[int, Policy]],
    wanted: Sequence[Wanted],
    digests: set[str],
) -> Iterator[Built]:
    """Yield the versions of a model that were made from what is looked for; note all digests."""
    made: dict[str, dict[int, str]] = {}
    untold: dict[str, list[int]] = {}
    for revision, policy in revisions:
        for name, version in policy.versions.items():
            if version.lineage is None:
                untold.setdefault(name, []).append(revision)
                continue
            lineage_digest = digest(version)
            digests.add(lineage_digest)
            if any(one.is_in(version.lineage, lineage_digest) for one in wanted):
                made.setdefault(name, {})[revision] = lineage_digest
    silent = {number for number, policy in revisions if policy.audit is not Audited.DECISIONS}
    for name, of in made.items():
        perhaps = tuple(untold.get(name, ()))
        unaudited = tuple(one for one in sorted({*of, *perhaps}) if one in silent)
        yield Built(model, name, tuple(dict.fromkeys(of.values())), tuple(of), perhaps, unaudited)


async def _entries(place: Trail) -> AsyncIterator[Entry]:
    """Iterate over decisions and losses, each once: a sink that was slow to say may have two."""
    recent: dict[str, None] = {}
    async for page in place.pages():
        for _, line in page.lines:
            if _DECISION not in line and _LOST not in line:
                continue
            try:
                entry = decode(line)
            except (ValueError, RecursionError):  # of JSON, or of text that is no UTF-8
                continue  # `rmv audit verify` tells of it
            if entry.hash in recent or entry.kind not in {Kind.DECISION.value, Kind.LOST.value}:
                continue
            recent[entry.hash] = None
            if len(recent) > MAX_RECENT:
                del recent[next(iter(recent))]
            yield entry


def _is_within(at_s: float, period: tuple[float | None, float | None]) -> bool:
    since_s, until_s = period
    return (since_s is None or at_s >= since_s) and (until_s is None or at_s < until_s)


def _tell(
    found: Versions, answers: Sequence[Answers], period: tuple[float | None, float | None]
) -> None:
    if not found.built:
        output.say("no version of any model was made from it, as far as the histories tell")
        return
    rows = [
        (f"{one.model}@{one.version}", _ranges(one.revisions), one.digests[-1][:19])
        for one in found.built
    ]
    output.table(("VERSION", "REVISIONS", "DIGEST"), rows)
    print()
    if answers:
        columns = ("TENANT", "VERSION", "ANSWERS", "FIRST", "LAST", "LINEAGE")
        output.table(columns, map(_row, answers))
    tenants = len({one.tenant for one in answers})
    total = sum(one.span.answers for one in answers)
    counted = f"{output.counted(total, 'answer')} to {output.counted(tenants, 'tenant')}"
    output.say(f"{counted}{_period(period)}")


def _row(one: Answers) -> tuple[str, ...]:
    return (
        one.tenant,
        f"{one.model}@{one.version}",
        f"{one.span.answers:,}",
        durations.clock(one.span.first_s or 0.0),
        durations.clock(one.span.last_s or 0.0),
        "told" if one.is_sure else "not told then",
    )


def _period(period: tuple[float | None, float | None]) -> str:
    since_s, until_s = period
    begin = "" if since_s is None else f" since {durations.clock(since_s)}"
    return begin + ("" if until_s is None else f" until {durations.clock(until_s)}")


def _limits(found: Versions, known: Known) -> Iterator[str]:
    """Yield what has to be known of the figures: whatever audit was not told is not in them."""
    decided = known.span
    if decided.first_s is None or decided.last_s is None:
        yield f"{known.source} has no decisions of that time: nothing is known of who got what"
    else:
        yield (
            f"{known.source} has {output.counted(decided.answers, 'decision')} of that time, from "
            f"{durations.clock(decided.first_s)} to {durations.clock(decided.last_s)}; what was "
            "before or after is not known"
        )
    for one in found.built:
        if one.unaudited:
            revisions = "revision" if len(one.unaudited) == 1 else "revisions"
            yield (
                f"{one.model}@{one.version}: without `audit: decisions` in {revisions} "
                f"{_ranges(one.unaudited)}: who got its answers then is not known"
            )
    if known.lost:
        lost = output.counted(known.lost, "entry", "entries")
        yield f"audit lost {lost} of that time: there may be more answers"
    if known.orphans:
        orphans = output.counted(known.orphans, "answer")
        yield f"{orphans} of versions whose lineage no history tells any more may belong here"
    for model in found.cut:
        yield f"of {model} only the newest {MAX_REVISIONS:,} revisions were looked through"


def _ranges(numbers: Iterable[int]) -> str:
    """Spell numbers in order as `1-3, 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)
