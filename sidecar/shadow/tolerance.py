"""When two numbers are the same."""

from __future__ import annotations

from math import isfinite
from operator import eq, sub
from typing import NamedTuple

Number = int | float
NUMBERS = frozenset((int, float))  # not bool, which is no number in JSON


class Tolerance(NamedTuple):
    """By how much two numbers may differ: `absolute`, or `relative` of the greater of them."""

    absolute: float = 0.0
    relative: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether only equal numbers are the same."""
        return not self.absolute and not self.relative

    def allows(self, one: Number, other: Number) -> bool:
        """Return whether two numbers are the same; not-a-number is the same as itself."""
        if one == other or (one != one and other != other):  # noqa: PLR0124
            return True
        error = distance(one, other)
        if not isfinite(error):
            return False
        if error <= self.absolute:
            return True
        try:
            return error <= self.relative * max(abs(one), abs(other))
        except OverflowError:  # an integer beyond all floats
            return False

    def allows_all(self, ones: list[Number], others: list[Number]) -> bool:
        """Return whether two lists of equal length are the same, number by number."""
        return all(map(eq, ones, others)) or all(map(self.allows, ones, others))


def delta(primary: Number, shadow: Number) -> float | None:
    """Return the shadow's less the primary's number, if that is a finite float."""
    try:
        found = float(shadow - primary)
    except OverflowError:
        return None
    return found if isfinite(found) else None


def distance(one: Number, other: Number) -> float:
    """Return by how much two numbers differ, be it infinity or not a number."""
    try:
        return abs(float(sub(one, other)))
    except OverflowError:
        return float("inf")
