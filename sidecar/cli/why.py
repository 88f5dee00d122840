"""`rmv why`: a decision that audit has, made once more from what it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, NamedTuple

import msgspec
import typer

from sidecar.audit.again import Again, again, spell_rejected
from sidecar.audit.chain import HASH_TAIL
from sidecar.audit.entry import Entry, Inputs, decode
from sidecar.cli import durations, matchers, output, steps
from sidecar.cli.failure import advised
from sidecar.cli.lookup import NotFoundError
from sidecar.cli.options import commands
from sidecar.cli.session import Session, with_store
from sidecar.cli.trail import Files, From, Trail, trails
from sidecar.model.audit import Kind
from sidecar.store import document
from sidecar.store.base import Store
from sidecar.store.committed import BrokenEntryError, expect_committed, find_revision

MAX_ENTRIES = 20  # of one request id, which clients may give to any number of requests
DIFFERS = 1  # exit status, also where it cannot be told

_OF_REQUESTS = frozenset({Kind.DECISION.value, Kind.DENIED.value})
_COMMITTED = frozenset({Kind.COMMIT.value, Kind.ADOPT.value, Kind.LABEL.value})
app = commands()


class Why(NamedTuple):
    """An entry of audit about a request; `again` is None where `fault` says why not.

    `is_intact` says whether the entry is what its hash says.
    """

    entry: Entry
    is_intact: bool
    again: Again | None
    fault: str = ""

    @property
    def is_same(self) -> bool | None:
        """Whether the outcome is the same; None where that cannot be told for sure."""
        if self.again is None or self.again.missing:
            return None
        return not self.again.differences

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to ask: it is the same, or no policy was asked at all."""
        return self.is_intact and (self.is_same is True or self.entry.inputs is None)

    def as_json(self) -> dict[str, object]:
        """Return all that is known, for programs."""
        again = self.again
        told: dict[str, object] = {
            "entry": msgspec.to_builtins(self.entry),
            "is_intact": self.is_intact,
            "is_same": self.is_same,
            "fault": self.fault or None,
            "again": None,
        }
        if again is not None:
            told["again"] = {
                "decision": msgspec.to_builtins(again.decision),
                "missing": again.missing,
                "differences": again.differences,
                "parting": again.parting,
                "trace": msgspec.to_builtins(again.trace),
            }
        return told

    def tell(self) -> None:
        """Print all that is known, for people."""
        output.facts(_recorded(self.entry))
        print()
        for line in self._verdict():
            output.say(line)
        if self.again is not None:
            steps.tell(self.again.trace, self.again.identity, self.again.killed)

    def _verdict(self) -> Iterator[str]:
        entry, again = self.entry, self.again
        if not self.is_intact:
            yield "the entry is not what its hash says: it was changed (`rmv audit verify`)"
        if again is None:
            yield self.fault
            return
        if again.missing:
            what = ", ".join(again.missing)
            yield f"it cannot be decided again for sure: audit does not have {what}"
        by = f"decided again by revision {entry.revision}"
        now = f"{again.decision.version or 'refused'} ({again.decision.reason})"
        if not again.differences:
            yield f"{by}: {now}, the same"
            return
        yield f"{by}: {now}, NOT the same"
        for one in again.differences:
            yield f"  {one.what}: audit has {one.then or 'nothing'}, now it is {one.now or 'none'}"
        if again.parting is not None:
            step, outcome, why = steps.told(again.parting, again.identity, again.killed)
            yield f"they part at {step}, which now comes to: {outcome} ({why})"
        yield (
            "so the history was changed, or the entry; or another release decided then, or a "
            "direct edit that was not adopted yet"
        )


class Found(NamedTuple):
    """What audit has of a request, and the digests of the revisions that it saw committed."""

    entries: list[tuple[Entry, bool]]
    digests: dict[tuple[str, int], str]
    is_cut: bool


@app.command("why")
@with_store
async def why(
    session: Session,
    *,
    request_id: Annotated[
        str, typer.Argument(metavar="REQUEST_ID", help="The X-Request-Id of the request.")
    ],
    file: Files = None,
    source: From = None,
) -> None:
    """Decide a request of audit again: does it come out the same?

    By the document of its revision, and by what audit recorded: caller, attributes, pin, kills and
    readiness. Exits with 1 unless the outcome is the same.
    """
    found = await _find(await trails(session, file, source), request_id)
    if found.is_cut:
        output.warn(f"the newest {MAX_ENTRIES} of all that have this id")
    told = [
        await _why(session.store, entry, is_intact, found.digests)
        for entry, is_intact in found.entries
    ]
    if session.as_json:
        output.emit([one.as_json() for one in told])
    else:
        for number, one in enumerate(told):
            print("\n" if number else "", end="")
            one.tell()
    if not all(one.is_settled for one in told):
        raise typer.Exit(DIFFERS)


async def _find(places: Sequence[Trail], request_id: str) -> Found:
    """Look through all places; the same request in two of them counts once.

    Raises:
        NotFoundError: audit has nothing of it.
    """
    wanted = msgspec.json.encode(request_id)
    kinds = [b'"kind":"%b"' % kind.encode() for kind in sorted(_COMMITTED)]
    entries: dict[tuple[float, str, str], tuple[Entry, bool]] = {}
    digests: dict[tuple[str, int], str] = {}
    is_cut = False
    for place in places:
        async for page in place.pages():
            for _, line in page.lines:
                if wanted in line:
                    _take_request(line, request_id, entries)
                    is_cut = is_cut or len(entries) > MAX_ENTRIES
                    if is_cut and len(entries) > MAX_ENTRIES:
                        del entries[min(entries)]
                elif any(kind in line for kind in kinds):
                    _take_commit(line, digests)
    if not entries:
        names = ", ".join(place.name for place in places)
        error = NotFoundError(f"{names}: nothing of a request {request_id}")
        advice = (
            "Of requests that were served only those are there whose policy said `audit: decisions`"
            " then, and of a flood of denials to callers without an identity there is a sum alone;"
            " `rmv explain --request` knows those that were sampled."
        )
        raise advised(error, advice)
    return Found([entries[at] for at in sorted(entries)], digests, is_cut)


def _take_request(
    line: bytes, request_id: str, entries: dict[tuple[float, str, str], tuple[Entry, bool]]
) -> None:
    entry = _decoded(line)
    if entry is None or entry.request_id != request_id or entry.kind not in _OF_REQUESTS:
        return
    canonical = line[:-HASH_TAIL] + b"}"
    is_intact = hashlib.sha256(canonical).hexdigest() == entry.hash
    at = entry.at_s, entry.model, entry.reason
    known = entries.get(at)
    if known is None or not known[1]:
        entries[at] = entry, is_intact


def _take_commit(line: bytes, digests: dict[tuple[str, int], str]) -> None:
    entry = _decoded(line)
    told = None if entry is None else entry.facts.get("digest")
    if entry is not None and entry.kind in _COMMITTED and isinstance(told, str):
        digests[entry.model, entry.revision] = told


def _decoded(line: bytes) -> Entry | None:
    try:
        return decode(line)
    except (ValueError, RecursionError):  # of JSON, or of text that is no UTF-8
        return None


async def _why(
    store: Store, entry: Entry, is_intact: bool, digests: dict[tuple[str, int], str]
) -> Why:
    if entry.inputs is None:
        what = f"it was refused with {entry.code}" if entry.code else "nothing was decided"
        return Why(entry, is_intact, None, f"no policy was asked: {what} before")
    stored = await find_revision(store, entry.model, entry.revision)
    if stored is None:
        fault = f"revision {entry.revision} of {entry.model} is not in the history"
        return Why(entry, is_intact, None, f"it cannot be decided again: {fault}")
    committed = digests.get((entry.model, entry.revision), stored.digest)
    try:
        expect_committed(stored, entry.model)
    except BrokenEntryError as error:
        return Why(entry, is_intact, None, f"it cannot be decided again: {error}")
    if committed != stored.digest:
        fault = (
            f"revision {entry.revision} of {entry.model} in the history is not the one that audit "
            f"saw committed (SHA-256 {committed[:16]}...)"
        )
        return Why(entry, is_intact, None, f"it cannot be decided again: {fault}")
    source = f"revision {entry.revision} of {entry.model}"
    policy = document.load(stored.document, model=entry.model, source=source)
    return Why(entry, is_intact, again(entry, policy))


def _recorded(entry: Entry) -> Iterable[tuple[str, str]]:
    inputs = entry.inputs or Inputs()
    status = str(entry.status) if entry.status else ""
    attributes = sorted(inputs.attributes.items())
    return [
        ("request", entry.request_id),
        ("at", durations.clock(entry.at_s, "milliseconds")),
        ("audited by", f"{entry.writer}, entry {entry.seq}"),
        ("model", entry.model),
        ("tenant", entry.tenant),
        ("subject", entry.subject),
        ("app", entry.app),
        ("asked for", inputs.asked_version or ""),
        *((name, ", ".join(map(str, values)) or "(absent)") for name, values in attributes),
        ("grants", matchers.grants_in_words(inputs.grants)),
        ("pinned to", inputs.pin or ""),
        ("killed", ", ".join(name or "the model" for name in inputs.kills)),
        ("not ready", ", ".join(inputs.unready)),
        ("version", entry.version),
        ("lineage", entry.lineage),
        ("refused", entry.code if not entry.version else ""),
        ("reason", entry.reason),
        ("revision", str(entry.revision) if entry.revision else ""),
        ("rejected", spell_rejected(entry.rejected)),
        ("answered", " ".join(filter(None, (status, entry.code)))),
        ("took", f"{entry.duration_s * 1000:.1f} ms"),
    ]
