"""Where values stand in a JSON text: lines and columns for those alone that are asked for.

Only what leads to them is walked here; all else is skipped over by the C scanner of `json`, so that
a large document costs about as much as reading it once more.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from sidecar.policy.pieces import skip_blanks
from sidecar.policy.problem import below, enclosing
from sidecar.policy.steps import Steps, finish

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Place = tuple[int, int]
"""Line and column, both from 1."""

_NESTING = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_skip = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode  # no number is too long


def place(text: str, at: int) -> Place:
    """Return the line and column of an offset."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def nearest(path: str, found: Mapping[str, Place]) -> Place | None:
    """Return the place at a spelled path, or else of the nearest value that encloses it."""
    return next((found[one] for one in (path, *enclosing(path)) if one in found), None)


def in_json(text: str, paths: Iterable[str]) -> dict[str, Place]:
    """Return the places of the values at `paths` and of those around them, as far as there are any.

    `text` has to be JSON.
    """
    return finish(finding(text, paths, {}))


def finding(text: str, paths: Iterable[str], ends: Mapping[int, int]) -> Steps[dict[str, Place]]:
    """Find what `in_json` returns; `ends` are known ends of values, by their starts."""
    search = _Search(text, paths, ends)
    yield from search.visit("", skip_blanks(text, 0))
    return placed(text, search.found)


def placed(text: str, offsets: Mapping[str, int]) -> dict[str, Place]:
    """Return the places of offsets by path: the text is looked through once, however many."""
    found: dict[str, Place] = {}
    line, end, seen = 1, -1, 0  # `end` is that of the line before
    for path, at in sorted(offsets.items(), key=lambda one: one[1]):
        line += text.count("\n", seen, at)
        end = max(end, text.rfind("\n", seen, at))
        seen = at
        found[path] = line, at - end
    return found


def too_deep(text: str, most: int) -> Place:
    """Return where a JSON text is nested deeper than `most`; its end if it is nowhere."""
    depth = 0
    for mark in _NESTING.finditer(text):
        if mark[0] in {"[", "{"}:
            depth += 1
            if depth > most:
                return place(text, mark.start())
        elif mark[0] in {"]", "}"}:
            depth -= 1
    return place(text, len(text))


class Wanted:
    """Spelled paths to look for; `left` are those not found yet.

    Paths are compared as texts, so it may lead a few steps astray, where nothing will be found.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self.left = set(paths)
        self._sorted = sorted(self.left)

    def leads(self, path: str) -> bool:
        """Return whether the value at `path` is wanted, or one in it may be."""
        return self._begins(path, bisect_left(self._sorted, path))

    def goes_on(self, path: str) -> bool:
        """Return whether something in the value at `path` may be wanted."""
        return self._begins(path, bisect_right(self._sorted, path))

    def _begins(self, path: str, at: int) -> bool:
        return at < len(self._sorted) and self._sorted[at].startswith(path)


class _Search:
    """Walks to the values that are wanted, and notes where they and those around them start."""

    def __init__(self, text: str, paths: Iterable[str], ends: Mapping[int, int]) -> None:
        self.found: dict[str, int] = {}
        self._text = text
        self._ends = ends
        self._wanted = Wanted(paths)

    def visit(self, path: str, at: int) -> Steps[None]:
        """Look at the value at an offset, and into it if something in it is wanted."""
        self.found[path] = at
        self._wanted.left.discard(path)
        if not self._wanted.goes_on(path):
            return
        for step, value_at in self._members(at):
            inner = below(path, step)
            if self._wanted.leads(inner):
                yield from self.visit(inner, value_at)
            if not self._wanted.left:
                return
            yield

    def _members(self, at: int) -> Iterator[tuple[str | int, int]]:
        """Yield step and offset of what is in the collection at `at`."""
        text = self._text
        if text[at] not in "{[":
            return
        is_object, number = text[at] == "{", 0
        here = skip_blanks(text, at + 1)
        while text[here] not in "]}":
            step: str | int = number
            if is_object:
                step, end = _skip(text, here)
                here = skip_blanks(text, skip_blanks(text, end) + 1)  # past the colon
            end = self._ends.get(here) or _skip(text, here)[1]
            yield step, here
            here = skip_blanks(text, end)
            if text[here] == ",":
                here = skip_blanks(text, here + 1)
            number += 1
