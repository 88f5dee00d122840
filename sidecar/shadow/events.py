"""Event streams: their events, and when these came."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from sidecar.model.shadow import Uncompared
from sidecar.shadow.body import MAX_VALUES, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.shadow.findings import Findings

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event; `end` is the number of the body's bytes that it takes to know all of it."""

    kind: bytes
    data: bytes
    end: int


def parse(body: bytes) -> list[Event]:
    """Return the events of a stream that have data, as a browser reads them.

    WHATWG HTML, section 9.2.6: lines end in CR, LF or both; data of several lines are joined by
    line feeds; comments are left out, and so is an event that no empty line ends.

    Raises:
        UnreadableError: there are too many lines.
    """
    _bound_lines(body)
    found: list[Event] = []
    data: list[bytes] = []
    kind = b""
    end = len(_BOM) if body.startswith(_BOM) else 0
    for ended in body[end:].splitlines(keepends=True):
        end += len(ended)
        line = ended.rstrip(b"\r\n")
        if not line:
            if data:
                found.append(Event(kind, b"\n".join(data), end))
            kind, data = b"", []
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value[1:] if value[:1] == b" " else value)
        elif name == b"event":
            kind = value[1:] if value[:1] == b" " else value
    return found


def parse_lines(body: bytes) -> list[Event]:
    """Return the lines of a body that are not blank as events: a JSON document each.

    Raises:
        UnreadableError: there are too many.
    """
    _bound_lines(body)
    found = []
    end = 0
    for line in body.splitlines(keepends=True):
        end += len(line)
        if line.strip():
            found.append(Event(b"", line.strip(), end))
    return found


def _bound_lines(body: bytes) -> None:
    if body.count(b"\n") + body.count(b"\r") > MAX_VALUES:
        raise UnreadableError(Uncompared.SIZE)


def measure(
    ends: Sequence[int], marks: Sequence[tuple[int, float]], side: str, findings: Findings
) -> None:
    """Measure when events came of which `ends` says where they end in the body.

    `first_token_s` is when the first came, `gap_mean_s`, `gap_p95_s` and `gap_max_s` are the times
    between one and the next. Events of one read came at once. Nothing is known without `marks`.
    """
    if not ends or not marks:
        return
    reads = [number for number, _ in marks]
    last = len(marks) - 1
    times = [marks[min(bisect_left(reads, end), last)][1] for end in ends]
    findings.measures[f"first_token_s.{side}"] = times[0]
    if len(times) > 1:
        gaps = sorted([later - one for one, later in pairwise(times)])
        findings.measures[f"gap_mean_s.{side}"] = (times[-1] - times[0]) / len(gaps)
        findings.measures[f"gap_p95_s.{side}"] = gaps[ceil(0.95 * len(gaps)) - 1]
        findings.measures[f"gap_max_s.{side}"] = gaps[-1]
