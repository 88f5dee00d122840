"""JSON text to plain values in steps, piece by piece, refusing what JSON readers disagree on.

The C scanner of `json` reads whatever fits into a window. What does not, or has something odd in
it, is a collection whose members are read one by one, until what is odd stands alone.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.policy.problem import MAX_STEP_CHARS

if TYPE_CHECKING:
    from sidecar.model.identity import JSON
    from sidecar.policy.problem import Path
    from sidecar.policy.steps import Steps

WINDOW: Final = 2048  # characters: some tens of microseconds to read
SMALL: Final = 64  # characters: to skip over so many again costs less than to keep where they end
MAX_DEPTH: Final = 32  # of values in values; a policy needs 7
MAX_DIGITS: Final = 308  # of a whole number: with more of them it may be no double
_BLANKS: Final = re.compile("[ \\t\\n\\r]*")


class Pieces(NamedTuple):
    """A value, and where each value in the text that is not small ends, by its start."""

    value: JSON
    ends: dict[int, int]


class FlawError(ValueError):
    """One value of a text that cannot be taken. `path` leads to it, `at` is its offset."""

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at
        self.path: Path = ()


def read(text: str) -> Steps[Pieces]:
    """Read a text that is known to be well-formed JSON.

    Raises:
        FlawError: an object has one key twice, or a number is out of range.
        RecursionError: it is nested too deeply.
    """
    reader = _Reader(text)
    value = yield from reader.read(skip_blanks(text, 0))
    return Pieces(value, reader.ends)


def skip_blanks(text: str, at: int) -> int:
    """Return the first offset from `at` on where there is no blank."""
    found = _BLANKS.match(text, at)
    return at if found is None else found.end()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._end = 0
        """Where the value ends that was read last."""
        self.ends: dict[int, int] = {}

    def read(self, at: int) -> Steps[JSON]:
        text = self._text
        window = text[at : at + WINDOW]
        value: JSON
        try:
            value, length = _decode(window)
        except ValueError:
            pass  # longer than the window, or odd: its members tell
        else:
            if length < len(window) or at + length == len(text):  # else a number may go on
                self._note(at, at + length)
                return value
        yield
        if text[at] == "[":
            return (yield from self._list(at))
        if text[at] == "{":
            return (yield from self._object(at))
        return self._scalar(at)

    def _list(self, at: int) -> Steps[JSON]:
        text, items = self._text, list["JSON"]()
        here = skip_blanks(text, at + 1)
        while text[here] != "]":
            try:
                items.append((yield from self.read(here)))
            except FlawError as flaw:
                flaw.path = (len(items), *flaw.path)
                raise
            here = self._next()
            yield
        self._note(at, here + 1)
        return items

    def _object(self, at: int) -> Steps[JSON]:
        text, members = self._text, dict[str, "JSON"]()
        here = skip_blanks(text, at + 1)
        while text[here] != "}":
            key, end = _decode(text, here)
            if key in members:
                raise FlawError(f"the key {json.dumps(key[:MAX_STEP_CHARS])} is given twice", here)
            here = skip_blanks(text, skip_blanks(text, end) + 1)  # past the colon
            try:
                members[key] = yield from self.read(here)
            except FlawError as flaw:
                flaw.path = (key, *flaw.path)
                raise
            here = self._next()
            yield
        self._note(at, here + 1)
        return members

    def _scalar(self, at: int) -> JSON:
        value: JSON
        try:
            value, end = _decode(self._text, at)
        except ValueError as error:
            raise FlawError("number out of range", at) from error
        self._note(at, end)
        return value

    def _note(self, at: int, end: int) -> None:
        self._end = end
        if end - at > SMALL:
            self.ends[at] = end

    def _next(self) -> int:
        """Return where what follows the last value begins: the next member, or the end."""
        here = skip_blanks(self._text, self._end)
        return skip_blanks(self._text, here + 1) if self._text[here] == "," else here


def _members(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key is given twice")
    return members


def _float(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise ValueError("out of range")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("out of range")
    return int(text)


_decode = json.JSONDecoder(
    object_pairs_hook=_members, parse_float=_float, parse_int=_int
).raw_decode
