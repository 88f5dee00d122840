"""Several documents in one file, as `rmv get` prints them: YAML with `---`, or a JSON list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import msgspec

from sidecar.policy.problem import Problem

_BETWEEN = re.compile(rb"^---[ \t]*(?:#[^\n]*)?\r?\n?", re.MULTILINE)
_SAYS = re.compile(rb"^[ \t]*[^#\s]", re.MULTILINE)


class Piece(NamedTuple):
    """One document of a file: what it is called, and how many lines stand above it."""

    name: str
    raw: bytes
    above: int

    def placed(self, problems: Iterable[Problem], source: str) -> Iterator[Problem]:
        """Yield problems of this document at their lines of the file."""
        for one in problems:
            line = None if one.line is None else one.line + self.above
            yield msgspec.structs.replace(one, source=source, line=line)


def pieces(raw: bytes, source: str) -> list[Piece]:
    """Return the documents of a file; the whole of it if it is not told to be several."""
    parts = _of_list(raw) if raw.lstrip().startswith(b"[") else _of_stream(raw)
    if len(parts) < 2:  # noqa: PLR2004 -- several
        return [Piece(source, raw, 0)]
    numbered = enumerate(parts, 1)
    return [Piece(f"{source}#{number}", part, above) for number, (part, above) in numbered]


def _of_stream(raw: bytes) -> list[tuple[bytes, int]]:
    ends = [(0, 0), *(found.span() for found in _BETWEEN.finditer(raw)), (len(raw), len(raw))]
    found: list[tuple[bytes, int]] = []
    above = 0
    for (before, start), (end, _) in pairwise(ends):
        above += raw.count(b"\n", before, start)
        part = raw[start:end]
        if _SAYS.search(part):
            found.append((part, above))
        above += part.count(b"\n")
    return found


def _of_list(raw: bytes) -> list[tuple[bytes, int]]:
    try:
        parts = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.DecodeError:
        return []
    found: list[tuple[bytes, int]] = []
    at = above = 0
    for part in map(bytes, parts):
        start = raw.index(part, at)
        above += raw.count(b"\n", at, start)
        found.append((part, above))
        at = start + len(part)
        above += part.count(b"\n")
    return found
