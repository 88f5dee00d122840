"""When two texts are the same, and how much of them is."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar
from unicodedata import normalize

from sidecar.model.comparison import Text
from sidecar.model.shadow import Uncompared
from sidecar.shadow.body import UnreadableError
from sidecar.shadow.findings import mismatch

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from sidecar.shadow.findings import Findings
    from sidecar.shadow.rules import Rules

S = TypeVar("S", str, list[str])

MAX_UNITS = 2000  # of a text whose edits are counted at once: a few milliseconds
MAX_WINDOWS = 16
MAX_WORD_CHARS = 20  # on average, where spaces set words apart; not all scripts have them
MAX_MARKS = 30  # in a row; Unicode Standard Annex 15, section 13: no language has as many
_JOINER = "\u034f"  # combining grapheme joiner: no mark moves past it
_MARKS = re.compile(
    rf"(?:[^\w\s\x00-\x7f]|[\uff9e\uff9f]){{{MAX_MARKS + 1},}}"
)  # or symbols, to which it does no harm
FIELD = "text"


def compare(
    primary: str, shadow: str, rules: Rules, findings: Findings, *, is_masked: bool
) -> None:
    """Note whether two texts are the same as the policy says; `edit_ratio` measures nearness.

    Raises:
        FullError: no further field can be noted.
        UnreadableError: they are too long for their edits to be counted.
    """
    if not _are_same(primary, shadow, rules, findings):
        findings.note_values(FIELD, primary, shadow, is_masked=is_masked)


def _are_same(primary: str, shadow: str, rules: Rules, findings: Findings) -> bool:
    if rules.text is Text.RATIO:
        ratio = edit_ratio(primary, shadow)
        least = findings.measures.get("edit_ratio", 1.0)  # of several texts
        findings.measures["edit_ratio"] = min(least, ratio)
        return ratio >= rules.text_ratio
    if primary == shadow:
        return True
    return rules.text is Text.NORMALISED and normalised(primary) == normalised(shadow)


def normalised(text: str) -> str:
    """Return a text without what sets apart its case, white space and compatible characters.

    Unicode Standard Annex 15, form KC, of the case-folded text: that of a form alone may change
    once more when it is folded.
    """
    if not text.isascii():
        text = normalize("NFKC", _MARKS.sub(_divide, text))
    text = text.casefold()
    if not text.isascii():
        text = normalize("NFKC", text)
    return " ".join(text.split())


def _divide(marks: re.Match[str]) -> str:
    """Divide a run of combining marks, which it takes quadratic time to put in order.

    Unicode Standard Annex 15, section 13: the stream-safe text process.
    """
    run = marks.group()
    parts = [run[at : at + MAX_MARKS] for at in range(0, len(run), MAX_MARKS)]
    return _JOINER.join(parts)


def edit_ratio(one: str, other: str) -> float:
    """Return 1 less the share of a text that has to be edited to get the other; 1 if both are "".

    Edits are those of Levenshtein: of characters, if there are at most 2,000 that do not begin or
    end both texts alike. Of longer texts whole words are counted, if they have words. More than
    2,000 of either are cut into as many equal parts as it takes, and what moved from one part to
    the next counts as edits: the ratio told is never higher than that of the whole.

    Raises:
        UnreadableError: there are more than 32,000 words, or characters.
    """
    if one == other:
        return 1.0
    left, right = _trimmed(one, other)
    if max(len(left), len(right)) > MAX_UNITS:
        ones, others = one.split(), other.split()
        if (len(ones) + len(others)) * MAX_WORD_CHARS >= len(one) + len(other):
            return _ratio(*_trimmed(ones, others), max(len(ones), len(others)))
    return _ratio(left, right, max(len(one), len(other)))


def _ratio(left: S, right: S, longest: int) -> float:
    windows = -(-max(len(left), len(right)) // MAX_UNITS)
    if windows > MAX_WINDOWS:
        raise UnreadableError(Uncompared.SIZE)
    counted = sum(
        edits(_part(left, index, windows), _part(right, index, windows)) for index in range(windows)
    )
    return 1.0 - counted / longest


def _trimmed(one: S, other: S) -> tuple[S, S]:
    """Return what is left without the longest common beginning and end, which take no edits."""
    start = mismatch(one, other)
    one, other = one[start:], other[start:]
    end = mismatch(one[::-1], other[::-1])
    return one[: len(one) - end], other[: len(other) - end]


def _part(units: S, index: int, parts: int) -> S:
    return units[len(units) * index // parts : len(units) * (index + 1) // parts]


def edits(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Return the Levenshtein distance of two sequences.

    A column of the table is the bits of two integers, so that it takes a dozen operations on
    integers of `len(one)` bits for each of `other` (Myers 1999, as simplified by Hyyrö 2001).
    """
    if not one or not other:
        return len(one) or len(other)
    places: defaultdict[Hashable, int] = defaultdict(int)
    for index, unit in enumerate(one):
        places[unit] |= 1 << index
    every = (1 << len(one)) - 1
    last = 1 << (len(one) - 1)
    grows, shrinks, distance = every, 0, len(one)
    for unit in other:
        same = places.get(unit, 0)
        diagonal = (((same & grows) + grows) ^ grows) | same | shrinks
        up = shrinks | (every & ~(diagonal | grows))
        down = grows & diagonal
        if up & last:
            distance += 1
        if down & last:
            distance -= 1
        up = (up << 1 | 1) & every
        down = (down << 1) & every
        grows = down | (every & ~(diagonal | up))
        shrinks = up & diagonal
    return distance
