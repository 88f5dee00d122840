"""When two texts are the same, and how much of them is."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar
from unicodedata import normalize

from sidecar.model.comparison import Text
from sidecar.model.shadow import Uncompared
from sidecar.shadow.body import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from sidecar.shadow.findings import Findings
    from sidecar.shadow.rules import Rules

S = TypeVar("S", str, list[str])

MAX_UNITS = 2000  # of a text whose edits are counted at once: a few milliseconds
MAX_WINDOWS = 16
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
    return " ".join(normalize("NFKC", normalize("NFKC", text).casefold()).split())


def edit_ratio(one: str, other: str) -> float:
    """Return 1 less the share of a text that has to be edited to get the other; 1 if both are "".

    Edits are those of Levenshtein: of characters, if there are at most 2,000 that do not begin or
    end both texts alike. Of longer texts whole words are counted; more than 2,000 of them in as
    many equal parts as it takes, in which words that moved from one part to the next count as
    edits: the ratio told is never higher than that of the whole.

    Raises:
        UnreadableError: there are more than 32,000 words.
    """
    if one == other:
        return 1.0
    left, right = _trimmed(one, other)
    longest = max(len(left), len(right))
    if longest <= MAX_UNITS:
        return 1.0 - edits(left, right) / max(len(one), len(other))
    return _ratio_of_words(one.split(), other.split())


def _ratio_of_words(ones: list[str], others: list[str]) -> float:
    longest = max(len(ones), len(others))
    left, right = _trimmed(ones, others)
    windows = -(-max(len(left), len(right)) // MAX_UNITS)
    if windows > MAX_WINDOWS:
        raise UnreadableError(Uncompared.SIZE)
    counted = sum(
        edits(_part(left, index, windows), _part(right, index, windows)) for index in range(windows)
    )
    return 1.0 - counted / longest if longest else 1.0


def _trimmed(one: S, other: S) -> tuple[S, S]:
    """Return what is left without the longest common beginning and end, which take no edits."""
    least = min(len(one), len(other))
    start = next((at for at in range(least) if one[at] != other[at]), least)
    one, other, least = one[start:], other[start:], least - start
    end = next((at for at in range(least) if one[-1 - at] != other[-1 - at]), least)
    return one[: len(one) - end], other[: len(other) - end]


def _part(words: list[str], index: int, parts: int) -> list[str]:
    return words[len(words) * index // parts : len(words) * (index + 1) // parts]


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
