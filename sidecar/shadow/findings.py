"""What a comparison has found so far: bounded, and without what is masked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar

import msgspec

from sidecar.model.shadow import Difference
from sidecar.shadow.tolerance import NUMBERS, delta

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

S = TypeVar("S", str, bytes, list[str])

MAX_FIELDS = 64
MAX_DIFFERENCES = 20
MAX_VALUE_CHARS = 200
MASKED = "***"


Row = tuple[tuple[str, str], tuple[float, float] | None]
"""Both sides' label, and probability of the primary's label, of one row of a classification."""


class FullError(Exception):
    """As many fields differ as are told."""


class TooMuchError(Exception):
    """The answers are nested too deeply to be compared."""


class Findings:
    """The fields that differ, in the order in which they were found, and what they say.

    `rows` and `tokens` are what `Outcome` tells of a classification and of the shadow's answer.
    """

    __slots__ = ("_told", "differences", "fields", "measures", "rows", "tokens")

    def __init__(self) -> None:
        self.fields: dict[str, None] = {}
        self.differences: list[Difference] = []
        self.measures: dict[str, float] = {}
        self.rows: list[Row] = []
        self.tokens: tuple[int, int] | None = None
        self._told: set[tuple[str, str]] = set()

    def note(
        self,
        field: str,
        kind: str,
        primary: str = "",
        shadow: str = "",
        delta: float | None = None,
    ) -> None:
        """Note that a field differs; of many differences of one kind in it, the first is told.

        Raises:
            FullError: no further field can be noted.
        """
        if (field, kind) not in self._told and len(self.differences) < MAX_DIFFERENCES:
            self._told.add((field, kind))
            self.differences.append(Difference(field, kind, primary, shadow, delta))
        self.fields[field] = None
        if len(self.fields) >= MAX_FIELDS:
            raise FullError

    def wants(self, field: str, kind: str) -> bool:
        """Return whether what the sides say would be told."""
        return len(self.differences) < MAX_DIFFERENCES and (field, kind) not in self._told

    def note_values(self, field: str, primary: JSON, shadow: JSON, *, is_masked: bool) -> None:
        """Note that two values differ: in their type, or in what they are.

        Raises:
            FullError: no further field can be noted.
        """
        kind = "value" if json_type(primary) == json_type(shadow) else "type"
        if is_masked:
            self.note(field, kind, MASKED, MASKED)
        elif not self.wants(field, kind):
            self.note(field, kind)
        elif type(primary) in NUMBERS and type(shadow) in NUMBERS:
            by = delta(primary, shadow)  # type: ignore[arg-type]
            self.note(field, kind, spell_value(primary), spell_value(shadow), by)
        else:
            primary, shadow = _excerpts(primary, shadow)
            self.note(field, kind, spell_value(primary), spell_value(shadow))

    def note_absence(self, field: str, kind: str, value: JSON, *, is_masked: bool) -> None:
        """Note what the shadow lacks (`missing`), or has alone (`extra`).

        Raises:
            FullError: no further field can be noted.
        """
        said = ""
        if is_masked:
            said = MASKED
        elif self.wants(field, kind):
            said = spell_value(value)
        self.note(field, kind, *((said, "") if kind == "missing" else ("", said)))

    def note_length(self, field: str, primary: int, shadow: int) -> None:
        """Note that two arrays differ in length.

        Raises:
            FullError: no further field can be noted.
        """
        self.note(field, "length", str(primary), str(shadow), float(shadow - primary))


def spell_value(value: JSON) -> str:
    """Return a value as JSON, cut at 200 characters."""
    try:
        spelled = msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, OverflowError):  # a lone surrogate; a very long integer
        spelled = json.dumps(value)
    return spelled if len(spelled) <= MAX_VALUE_CHARS else spelled[: MAX_VALUE_CHARS - 1] + "…"


def _excerpts(one: JSON, other: JSON) -> tuple[JSON, JSON]:
    """Return two long texts from a little before where they part."""
    if not isinstance(one, str) or not isinstance(other, str):
        return one, other
    start = mismatch(one, other) - MAX_VALUE_CHARS // 4
    if start <= 0 or max(len(one), len(other)) < MAX_VALUE_CHARS - 2:
        return one[:MAX_VALUE_CHARS], other[:MAX_VALUE_CHARS]
    return f"…{one[start : start + MAX_VALUE_CHARS]}", f"…{other[start : start + MAX_VALUE_CHARS]}"


def mismatch(one: S, other: S) -> int:
    """Return how long a beginning two sequences have in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def json_type(value: JSON) -> str:
    """Return the name of a value's type in JSON, in which all numbers are of one."""
    if value is None:
        return "null"
    return _TYPES[type(value)]


_TYPES: dict[type, str] = {
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
