"""Whether chains of audit still hold together: a stream of lines in, the first wrong one named.

What a reader without keys can see: that a line was changed, that lines between two others are
missing, came in another order, or belong to another chain. Whoever can write to a sink could make
up a whole chain anew: a checkpoint's signature shows that of everything before it. What follows
the last checkpoint of a chain that was not ended can be cut off unseen, and so can a whole chain
whose head nobody has written down.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct, field

from sidecar.audit.chain import CONTEXT, GENESIS, HASH_TAIL, SIGNATURE_TAIL
from sidecar.audit.outlet import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_FAULTS: Final = 1000  # told one by one; more are counted
_ENDING: Final = re.compile(rb',"hash":"[0-9a-f]{64}"\}')
_DIGEST: Final = slice(-66, -2)  # of these bytes
_START: Final = b'{"writer":"'
_BEGINNING: Final = re.compile(rb'\{"writer":"([A-Za-z0-9._-]+)","seq":(\d{1,18}),')

Place = tuple[str, object]
"""The file or stream, and the number of a line or the id of an entry."""


class Fault(Struct):
    """What is wrong in a chain: the row at `place` is the first wrong one, entry `seq` of it.

    `writer` is empty where a row does not even tell that.
    """

    place: str
    writer: str
    seq: int
    what: str


class Head(Struct, frozen=True):
    """The end of a chain, as far as it was seen."""

    writer: str
    seq: int
    hash: str


class ChainReport(Struct):
    """What was seen of a chain. Of `notes` each says what cannot be known, or is no fault."""

    writer: str
    first_seq: int = 0
    seq: int = 0
    hash: str = GENESIS
    entries: int = 0
    checkpoints: int = 0
    signed_seq: int = 0
    """Of the last checkpoint whose signature was found good."""
    is_ended: bool = False
    last_at_s: float = 0.0
    repeated: int = 0
    """Lines that stand there twice: a sink did not say that it had them, and got them again."""
    notes: list[str] = field(default_factory=list)


class _Line(Struct):
    """What a chain is made of."""

    writer: str
    seq: int
    prev: str
    at_s: float
    kind: str
    last: bool = False
    signature: str = ""
    facts: dict[str, object] = {}


class _Track:
    """A chain on its way."""

    __slots__ = (
        "after_signed",
        "gap",
        "gap_fault",
        "is_signing",
        "is_unsure",
        "place",
        "promised",
        "recent",
        "report",
        "torn",
    )

    def __init__(self, writer: str) -> None:
        self.report = ChainReport(writer)
        self.place: Place = ("", 0)  # of the newest entry
        self.recent: dict[int, bytes] = {}  # digests by seq
        self.gap = range(0)
        self.gap_fault: Fault | None = None
        self.torn: dict[int, Place] = {}  # lines that cannot be read, by seq
        self.is_signing = False
        self.promised = 0  # at most so many entries from one checkpoint to the next; 0: not said
        self.after_signed = 0
        self.is_unsure = False  # whether the hash of the newest entry may be wrong


_decode: Final = msgspec.json.Decoder(_Line).decode


class Verifier:
    """Takes the lines of one sink in their order.

    `verify` tells whether a signature over a message is of a key that is believed; without it
    signatures are not looked at. `is_whole` says that nothing was ever removed from the sink: then
    chains have to be there from their first entry. `known` are heads that were seen before.
    """

    def __init__(
        self,
        verify: Callable[[bytes, bytes], bool] | None = None,
        *,
        is_whole: bool = False,
        known: Iterable[Head] = (),
    ) -> None:
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        """What is to be said of no chain that is here, and is no fault for sure."""
        self.entries = 0
        self._verify = verify
        self._is_whole = is_whole
        self._known: Mapping[str, Head] = {one.writer: one for one in known}
        self._tracks: dict[str, _Track] = {}

    def read(self, source: str, lines: Iterable[tuple[object, bytes]]) -> None:
        """Take lines, each with its number or id, without line ends."""
        take = self._take
        for at, line in lines:
            take(line, (source, at))

    def _take(self, line: bytes, place: Place) -> None:
        canonical, tail = line[:-HASH_TAIL] + b"}", line[-HASH_TAIL:]
        found = hashlib.sha256(canonical).hexdigest().encode()
        try:
            one = _decode(line)
        except (ValueError, RecursionError):  # of JSON, or of text that is no UTF-8
            self._take_unreadable(line, place)
            return
        self.entries += 1
        track = self._tracks.get(one.writer)
        if tail != b',"hash":"%b"}' % found:
            self._take_changed(track, one, tail[_DIGEST], place)
            return
        if track is None:
            track = self._tracks[one.writer] = self._begin(one, place)
        report = track.report
        if one.seq == report.seq + 1 and one.prev == report.hash and not report.is_ended:
            self._advance(track, one, found, place)
        elif not self._take_odd(track, one, found, place):
            return
        if one.signature:
            self._check_signature(track, one, canonical, place)
        elif track.is_signing:
            self._expect_checkpoint(track, one, place)

    def _take_changed(self, track: _Track | None, one: _Line, found: bytes, place: Place) -> None:
        """Take a line that is not what its hash says: of what else it says nothing is sure."""
        self._blame(one.writer, place, one.seq, "it is not what its hash says: changed")
        if track is not None and one.seq == track.report.seq + 1:
            self._advance(track, one, found, place)
            track.is_unsure = True
            track.after_signed += 1

    def end(self, now_s: float) -> list[ChainReport]:
        """Return what was seen of each chain; call it once, after the last line."""
        for track in self._tracks.values():
            self._note_end(track, now_s)
        for head in self._known.values():
            self._look_for(head)
        return [track.report for track in self._tracks.values()]

    def _begin(self, one: _Line, place: Place) -> _Track:
        track = _Track(one.writer)
        report = track.report
        report.first_seq = one.seq
        if one.seq > 1:
            report.seq, report.hash = one.seq - 1, one.prev
            if self._is_whole:
                is_one = one.seq == 2  # noqa: PLR2004
                gone = "entry 1" if is_one else f"entries 1 to {one.seq - 1}"
                why = f"{gone} of its chain {'is' if is_one else 'are'} missing before it"
                self._blame(one.writer, place, one.seq, why)
            else:
                report.notes.append(f"begins with entry {one.seq}: the older ones are not here")
        return track

    def _advance(self, track: _Track, one: _Line, digest: bytes, place: Place) -> None:
        report = track.report
        report.seq = one.seq
        report.hash = digest.decode("ascii", "replace")
        report.entries += 1
        report.last_at_s = one.at_s
        report.is_ended = one.last
        track.place = place
        track.is_unsure = False
        track.recent[one.seq] = digest
        track.recent.pop(one.seq - BATCH, None)
        known = self._known.get(one.writer)
        if known is not None and known.seq == one.seq and known.hash.encode() != digest:
            self._blame(one.writer, place, one.seq, "it is another entry than was seen here before")

    def _take_odd(self, track: _Track, one: _Line, digest: bytes, place: Place) -> bool:
        """Take a line that is whole and not the next one; return whether it counts."""
        report = track.report
        if track.recent.get(one.seq) == digest:
            report.repeated += 1
            return False
        if one.seq in track.gap and track.gap_fault is not None:
            why = f"it stands where entry {track.gap.start} should: the order was changed"
            track.gap_fault.what = why
            return False
        if one.seq <= report.seq:
            why = f"it comes after entry {report.seq}: out of order, or of another chain"
            self._blame(one.writer, place, one.seq, why)
            return False
        if report.is_ended:
            self._blame(one.writer, place, one.seq, "it follows the entry that ended its chain")
        elif one.seq > report.seq + 1:
            self._take_gap(track, one, place)
        elif not track.is_unsure:
            self._take_break(track, one, place)
        report.seq = one.seq - 1
        self._advance(track, one, digest, place)
        return True

    def _take_gap(self, track: _Track, one: _Line, place: Place) -> None:
        missing = range(track.report.seq + 1, one.seq)
        torn = track.torn.get(missing.start)
        if torn is not None:
            why = "it cannot be read, and the chain goes on: changed"
            self._blame(one.writer, torn, missing.start, why)
            return
        first, last = missing.start, missing[-1]
        what = f"entry {first} is" if first == last else f"entries {first} to {last} are"
        fault = self._blame(one.writer, place, one.seq, f"{what} missing before it")
        track.gap, track.gap_fault = missing, fault

    def _take_break(self, track: _Track, one: _Line, place: Place) -> None:
        """Take an entry that has the right number and was made after another than is before it."""
        if track.report.entries:
            why = f"entry {one.seq}, which follows, was made after another one: replaced"
            self._blame(one.writer, track.place, track.report.seq, why)
        else:
            self._blame(one.writer, place, one.seq, "it is the first, yet was made after another")

    def _check_signature(self, track: _Track, one: _Line, canonical: bytes, place: Place) -> None:
        report = track.report
        report.checkpoints += 1
        track.is_signing, track.after_signed = True, 0
        promised = one.facts.get("every_entries")
        track.promised = promised if isinstance(promised, int) else 0
        if self._verify is None:
            return
        message = CONTEXT + canonical[:-SIGNATURE_TAIL] + b"}"
        if self._verify(message, _bytes(one.signature)):
            report.signed_seq = one.seq
        else:
            why = (
                f"its signature is of no key that was given, or an entry from "
                f"{report.signed_seq + 1} on was replaced"
            )
            self._blame(one.writer, place, one.seq, why)

    def _expect_checkpoint(self, track: _Track, one: _Line, place: Place) -> None:
        track.after_signed += 1
        if one.last:  # whoever signs, signs the end as well
            self._blame(one.writer, place, one.seq, "it ends its chain and is not signed: made up")
        if track.promised and track.after_signed == track.promised:
            why = f"a checkpoint should be here: there is one every {track.promised} entries"
            self._blame(one.writer, place, one.seq, why)

    def _take_unreadable(self, line: bytes, place: Place) -> None:
        """Take a line that is no entry: half of one, as a killed process leaves it, or worse."""
        if not line.strip():
            return
        begun = line.rstrip(b"\0")[: len(_START)]  # a loss of power may leave zeros
        if not _START.startswith(begun) and not _ENDING.search(line):
            self._blame("", place, 0, "it is no entry, and no beginning of one: put in")
            return
        found = _BEGINNING.match(line)
        writer, seq = ("", 0) if found is None else (found[1].decode(), int(found[2]))
        track = self._tracks.get(writer)
        if _ENDING.search(line, max(0, len(line) - HASH_TAIL)):
            self._blame(writer, place, seq, "it cannot be read: changed")
            if track is not None and seq == track.report.seq + 1:
                track.report.seq, track.is_unsure = seq, True
        elif track is None and len(self.notes) >= MAX_FAULTS:
            return
        elif track is None:
            whose = f"half a line of {writer}" if writer else "no entry, or too little of one"
            self.notes.append(f"{_spell(place)}: {whose}")
        elif seq not in track.recent and len(track.torn) < MAX_FAULTS:
            track.torn[seq] = place

    def _note_end(self, track: _Track, now_s: float) -> None:
        report = track.report
        notes = report.notes
        for seq, place in track.torn.items():
            if seq > report.seq:
                where = _spell(place)
                notes.append(f"{where}: entry {seq} is torn: its writer died, or it was cut off")
        if report.repeated:
            notes.append(f"{report.repeated} lines are there twice: written again after a failure")
        unsigned = report.seq - report.signed_seq
        if self._verify is not None and not report.signed_seq:
            notes.append("has no checkpoint: that it was not made up anew cannot be proved")
        elif self._verify is not None and unsigned:
            notes.append(f"{unsigned} entries follow its last checkpoint")
        if not report.is_ended:
            silent_s = max(0.0, now_s - report.last_at_s)
            notes.append(
                f"was not ended: it goes on (last entry {silent_s:.0f} s ago), its writer was "
                "killed, or its end was cut off"
            )

    def _look_for(self, head: Head) -> None:
        track = self._tracks.get(head.writer)
        if track is None:
            why = f"its chain is not here; entry {head.seq} of it was seen before"
            if self._is_whole:
                self.faults.append(Fault("", head.writer, head.seq, why))
            else:
                self.notes.append(f"{head.writer}: {why}: removed, or with all that was as old")
        elif track.report.seq < head.seq:
            why = f"it is the last of its chain, and entry {head.seq} was seen before: cut off"
            self._blame(head.writer, track.place, track.report.seq, why)

    def _blame(self, writer: str, place: Place, seq: int, what: str) -> Fault:
        fault = Fault(_spell(place), writer, seq, what)
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(fault)
        return fault


def _spell(place: Place) -> str:
    return f"{place[0]}:{place[1]}"


def _bytes(signature: str) -> bytes:
    try:
        return base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return b""
