"""Where values stand in a JSON text: lines and columns for those alone that are asked for.

Only what leads to them is walked here; all else is skipped over by the C scanner of `json`, so that
a large document costs about as much as reading it once more.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from sidecar.policy.problem import below, enclosing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Place = tuple[int, int]
"""Line and column, both from 1."""

_BLANKS = re.compile(r"[ \t\n\r]*")
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
    found = _Search(text, paths).found
    return {path: place(text, at) for path, at in found.items()}


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


def twin(text: str) -> Place | None:
    """Return where a JSON text has a key that its object has already."""
    ahead = [_start(text, 0)]
    while ahead:
        at = ahead.pop()
        seen: set[str] = set()
        inner: list[int] = []
        for step, key_at, value_at in _members(text, at):
            if isinstance(step, str) and step in seen:
                return place(text, key_at)
            if isinstance(step, str):
                seen.add(step)
            if text[value_at] in "{[":
                inner.append(value_at)
        ahead += reversed(inner)
    return None


class _Search:
    """Walks to the values that are wanted, and notes where they and those around them start."""

    def __init__(self, text: str, paths: Iterable[str]) -> None:
        self.found: dict[str, int] = {}
        self._text = text
        self._left = set(paths)
        self._around = {outer for path in self._left for outer in enclosing(path)}
        self._visit("", _start(text, 0))

    def _visit(self, path: str, at: int) -> None:
        self.found[path] = at
        self._left.discard(path)
        if path not in self._around:
            return
        for step, _, value_at in _members(self._text, at):
            inner = below(path, step)
            if inner in self._left or inner in self._around:
                self._visit(inner, value_at)
            if not self._left:
                return


def _members(text: str, at: int) -> Iterator[tuple[str | int, int, int]]:
    """Yield step, key's offset and value's offset of what is in the collection at `at`."""
    if text[at] not in "{[":
        return
    is_object, number = text[at] == "{", 0
    here = _start(text, at + 1)
    while text[here] not in "]}":
        step: str | int = number
        key_at = value_at = here
        if is_object:
            step, end = _skip(text, here)
            value_at = _start(text, _start(text, end) + 1)  # past the colon
        yield step, key_at, value_at
        _, end = _skip(text, value_at)  # not before: who has found all that is wanted goes
        here = _start(text, end)
        if text[here] == ",":
            here = _start(text, here + 1)
        number += 1


def _start(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return at if found is None else found.end()
