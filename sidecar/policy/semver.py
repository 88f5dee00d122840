"""Versions by SemVer 2.0.0, and ranges of them: `>=2.1 <3`, `^1.4`, `~1.4.2`, `1.2.x || 2`.

A range is alternatives parted by `||`; an alternative is comparators parted by blanks, all of which
must hold. A prerelease is in an alternative only if a comparator of it names a prerelease of the
same three numbers, as npm has it: `>=2.0.0-rc.1` lets 2.0.0-rc.2 in, and `<3` no 3.0.0-rc.1.
"""

from __future__ import annotations

import re
from operator import eq, ge, gt, le, lt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Identifier = tuple[int, int, str]
    Numbers = tuple[int, int, int]
    Key = tuple[Numbers, bool, tuple[Identifier, ...]]
    Bound = tuple[Callable[[Key, Key], bool], Key]
    Alternative = tuple[tuple[Bound, ...], frozenset[Numbers]]

MAX_CHARS = 256  # npm's limit; a longer text is no version, and its numbers cost to read

_NUMBER = r"0|[1-9][0-9]*"
_PART = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"  # section 9: no number with a leading 0
_PRERELEASE = rf"(?:-(?P<pre>{_PART}(?:\.{_PART})*))?"
_BUILD = r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
_VERSION = re.compile(
    rf"v?(?P<a>{_NUMBER})(?:\.(?P<b>{_NUMBER})(?:\.(?P<c>{_NUMBER}){_PRERELEASE}{_BUILD})?)?"
)
_WILD = r"[xX*]"
_COMPARATOR = re.compile(
    rf"(?P<op>\^|~|>=|<=|>|<|=)?\s*v?(?P<a>{_NUMBER}|{_WILD})"
    rf"(?:\.(?P<b>{_NUMBER}|{_WILD})(?:\.(?P<c>{_NUMBER}|{_WILD}){_PRERELEASE}{_BUILD})?)?"
)
_OPERATOR_BLANKS = re.compile(r"(\^|~|>=|<=|>|<|=)\s+")
_ALL = 3  # numbers of a whole version
_COMPARE = {">=": ge, "<=": le, ">": gt, "<": lt, "=": eq}
# By operator: the comparison, and whether with the first version above the numbers given.
_COMPARE_PARTIAL = {">=": (ge, False), "<": (lt, False), ">": (ge, True), "<=": (lt, True)}


def key(text: str) -> Key | None:
    """Return what orders versions by precedence (section 11); None for a text that is none.

    A leading `v` does not count, and numbers left out (`2.1`) are 0.
    """
    found = _VERSION.fullmatch(text) if len(text) <= MAX_CHARS else None
    if found is None:
        return None
    numbers = int(found["a"]), int(found["b"] or 0), int(found["c"] or 0)
    return _key(numbers, found["pre"])


def within(text: str) -> Callable[[str], bool]:
    """Return the test that a text is a version in the range `text`.

    Raises:
        ValueError: `text` is no range.
    """
    if len(text) > MAX_CHARS:
        msg = f"a range has at most {MAX_CHARS} characters"
        raise ValueError(msg)
    alternatives = tuple(_alternative(part) for part in text.split("||"))

    def holds(value: str) -> bool:
        found = key(value)
        return found is not None and any(_is_in(found, one) for one in alternatives)

    return holds


def _is_in(version: Key, alternative: Alternative) -> bool:
    bounds, prereleases_of = alternative
    numbers, is_release, _ = version
    if not is_release and numbers not in prereleases_of:
        return False
    return all(compare(version, bound) for compare, bound in bounds)


def _key(numbers: Numbers, prerelease: str | None) -> Key:
    if prerelease is None:
        return numbers, True, ()
    return numbers, False, tuple(map(_identifier, prerelease.split(".")))


def _identifier(text: str) -> Identifier:
    # Section 11.4: numbers by value, and before texts.
    return (0, int(text), "") if text.isdecimal() else (1, 0, text)


def _before(numbers: Numbers) -> Key:
    """Return what precedes every version of these numbers, prereleases too."""
    return numbers, False, ()


def _alternative(text: str) -> Alternative:
    bounds: list[Bound] = []
    prereleases_of: set[Numbers] = set()
    comparators = _OPERATOR_BLANKS.sub(r"\1", text).split()
    if not comparators:
        msg = "a range has a version on either side of ||; * is any"
        raise ValueError(msg)
    for comparator in comparators:
        found = _COMPARATOR.fullmatch(comparator)
        if found is None:
            msg = f'"{comparator}" is no range such as ">=2.1 <3", "^1.4" or "1.2.x"'
            raise ValueError(msg)
        given = _given(found)
        if len(given) == _ALL and found["pre"] is not None:
            prereleases_of.add(_three(given))
        bounds += _bounds(found["op"] or "=", given, found["pre"])
    return tuple(bounds), frozenset(prereleases_of)


def _given(found: re.Match[str]) -> list[int]:
    """Return the numbers of a comparator before the first that is left out or wild."""
    given: list[int] = []
    for part in found.group("a", "b", "c"):
        if part is None or not part.isdecimal():
            break
        given.append(int(part))
    return given


def _bounds(operator: str, given: list[int], prerelease: str | None) -> list[Bound]:
    if not given:
        if operator in {"<", ">"}:
            msg = f'no version is "{operator}" any version'
            raise ValueError(msg)
        return []
    if len(given) == _ALL:
        low = _key(_three(given), prerelease)
        if operator in _COMPARE:
            return [(_COMPARE[operator], low)]
    else:
        # Of `2.1` the bounds are those of 2.1.0 and of what comes before 2.2.0.
        low = _before(_three(given)) if operator == "<" else (_three(given), True, ())
        if operator in _COMPARE_PARTIAL:
            compare, is_above = _COMPARE_PARTIAL[operator]
            return [(compare, _before(_above(given)) if is_above else low)]
    match operator:
        case "^":  # may change what follows the first number that is not 0
            last = next((n for n, part in enumerate(given) if part), len(given) - 1)
        case "~":
            last = 1
        case _:
            last = len(given)
    return [(ge, low), (lt, _before(_above(given[: last + 1])))]


def _three(given: list[int]) -> Numbers:
    major, minor, patch = (*given, 0, 0, 0)[:3]
    return major, minor, patch


def _above(given: list[int]) -> Numbers:
    """Return the first numbers after all that begin with the given ones."""
    return _three([*given[:-1], given[-1] + 1])
