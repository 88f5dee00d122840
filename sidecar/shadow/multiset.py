"""Which items of two arrays have no like in the other, whatever their order."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from sidecar.shadow.findings import TooMuchError
from sidecar.shadow.pointer import Nodes, below, below_item, is_ignored, is_unordered
from sidecar.shadow.tolerance import Number, Tolerance

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

MAX_DEPTH = 100
MAX_COMPARED = 10_000  # numbers of items, each with each: a few milliseconds

Signature = tuple[str, tuple[Number, ...]]
"""What an item is but for the values of its numbers, and these, in the order of the first."""


Entry = tuple[tuple[Number, ...], int]
"""The numbers of an item, and its index."""


class Matcher:
    """Pairs the items of arrays, with one allowance of time for all arrays of two answers."""

    __slots__ = ("_spare", "_tolerance")

    def __init__(self, tolerance: Tolerance) -> None:
        self._tolerance = tolerance
        self._spare = MAX_COMPARED

    def unmatched(
        self, primary: list[JSON], shadow: list[JSON], nodes: Nodes
    ) -> tuple[list[JSON], list[JSON]]:
        """Return the items of either side that are left when like items have been paired.

        `nodes` are said of an item. Without a tolerance this is the difference of two multisets.
        With one, as many items are paired as can be: exactly for items of one number; for items of
        several, until `MAX_COMPARED` of them have been compared. Past that, and for unordered
        arrays within items, items are paired in the order of their numbers, which may leave some
        that had a partner, and never pairs what differs.

        Raises:
            TooMuchError: an item is nested too deeply.
        """
        mine = [_signature(item, nodes, 0) for item in primary]
        theirs = [_signature(item, nodes, 0) for item in shadow]
        if self._tolerance.is_exact:
            return _left_over(primary, mine, theirs), _left_over(shadow, theirs, mine)
        ours, others = _by_shape(mine), _by_shape(theirs)
        lone_primary: list[int] = []
        lone_shadow: list[int] = []
        for shape in dict.fromkeys([*ours, *others]):
            left, right = self._pair(ours.get(shape, []), others.get(shape, []))
            lone_primary += left
            lone_shadow += right
        return (
            [primary[index] for index in sorted(lone_primary)],
            [shadow[index] for index in sorted(lone_shadow)],
        )

    def _pair(self, primary: list[Entry], shadow: list[Entry]) -> tuple[list[int], list[int]]:
        """Return the indices of what is left of items that differ in nothing but numbers."""
        width = len((primary or shadow)[0][0])
        effort = len(primary) * len(shadow) * width
        if width > 1 and effort <= self._spare:
            self._spare -= effort
            return _pair_best(primary, shadow, self._tolerance)
        return _pair_in_order(sorted(primary), sorted(shadow), self._tolerance)


def _signature(value: JSON, nodes: Nodes, depth: int) -> Signature:
    if depth > MAX_DEPTH:
        raise TooMuchError
    if is_ignored(nodes):
        return "", ()
    if isinstance(value, dict):
        return _of_object(value, nodes, depth)
    if isinstance(value, list):
        return _of_array(value, nodes, depth)
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return json.dumps(value), ()
    if value != value:  # not a number, which equals itself here  # noqa: PLR0124
        return "NaN", ()
    return "#", (value,)


def _of_object(value: dict[str, JSON], nodes: Nodes, depth: int) -> Signature:
    parts = []
    numbers: list[Number] = []
    for name in sorted(value):
        inner = below(nodes, name) if nodes else nodes
        if is_ignored(inner):
            continue
        shape, found = _signature(value[name], inner, depth + 1)
        parts.append(f"{json.dumps(name)}:{shape}")
        numbers += found
    return "{" + ",".join(parts) + "}", tuple(numbers)


def _of_array(value: list[JSON], nodes: Nodes, depth: int) -> Signature:
    items = [
        _signature(item, below_item(nodes, index, item) if nodes else nodes, depth + 1)
        for index, item in enumerate(value)
    ]
    if is_unordered(nodes):
        items.sort()
    numbers = tuple([number for _, found in items for number in found])
    return "[" + ",".join([shape for shape, _ in items]) + "]", numbers


def _left_over(items: list[JSON], own: list[Signature], others: list[Signature]) -> list[JSON]:
    spare = Counter(others)
    left = []
    for item, signature in zip(items, own, strict=True):
        if spare[signature]:
            spare[signature] -= 1
        else:
            left.append(item)
    return left


def _by_shape(signatures: list[Signature]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = defaultdict(list)
    for index, (shape, numbers) in enumerate(signatures):
        found[shape].append((numbers, index))
    return found


def _pair_in_order(
    primary: list[Entry], shadow: list[Entry], tolerance: Tolerance
) -> tuple[list[int], list[int]]:
    """Pair by rank, which pairs as many as can be where an item has one number.

    The numbers that are like a number form an interval, whose ends grow with it.
    """
    left: list[int] = []
    right: list[int] = []
    i = j = 0
    while i < len(primary) and j < len(shadow):
        if _are_like(primary[i][0], shadow[j][0], tolerance):
            i, j = i + 1, j + 1
        elif primary[i][0] < shadow[j][0]:
            left.append(primary[i][1])
            i += 1
        else:
            right.append(shadow[j][1])
            j += 1
    left += [index for _, index in primary[i:]]
    right += [index for _, index in shadow[j:]]
    return left, right


def _pair_best(
    primary: list[Entry], shadow: list[Entry], tolerance: Tolerance
) -> tuple[list[int], list[int]]:
    """Pair as many as can be: a maximum matching, by augmenting paths (Kuhn 1955)."""
    likes = [
        [j for j, (theirs, _) in enumerate(shadow) if _are_like(mine, theirs, tolerance)]
        for mine, _ in primary
    ]
    partner: dict[int, int] = {}  # of a shadow's item, the primary's
    lone = [index for i, (_, index) in enumerate(primary) if not _augment(i, likes, partner)]
    return lone, [index for j, (_, index) in enumerate(shadow) if j not in partner]


def _augment(start: int, likes: list[list[int]], partner: dict[int, int]) -> bool:
    """Find a partner for one more item, by moving others to theirs; a search in breadth."""
    came_from: dict[int, int] = {}  # a shadow's item: the primary's that reached it
    asking = [start]
    for i in asking:
        for j in likes[i]:
            if j in came_from:
                continue
            came_from[j] = i
            if j in partner:
                asking.append(partner[j])
                continue
            _move(j, start, came_from, partner)
            return True
    return False


def _move(free: int, start: int, came_from: dict[int, int], partner: dict[int, int]) -> None:
    held = {i: j for j, i in partner.items()}
    j = free
    while True:
        i = came_from[j]
        partner[j] = i
        if i == start:
            return
        j = held[i]


def _are_like(mine: tuple[Number, ...], theirs: tuple[Number, ...], tolerance: Tolerance) -> bool:
    return all(map(tolerance.allows, mine, theirs))
