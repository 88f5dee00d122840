"""Where plain values do not fit a struct: every place at once, each with its path.

msgspec decodes fast but stops at the first misfit and does not name keys of mappings; this walks
the types again, for documents that it refused, and makes what it can of what does fit.
"""

from __future__ import annotations

from difflib import get_close_matches
from enum import Enum
from functools import cache, lru_cache
from heapq import nsmallest
from itertools import islice, pairwise
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple, Union, get_args, get_origin

import msgspec

from sidecar.model.policy import Health, Name, Policy, Rule, Shadow, Split, Version
from sidecar.policy import words
from sidecar.policy.problem import MAX_PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sidecar.model.identity import JSON
    from sidecar.policy.problem import Finding, Path
    from sidecar.policy.steps import Steps

FEW = 64  # members of a collection: fewer are taken in one go
MANY = 1_000  # members of collections in one: the same
PORTION = 5_000  # plain values that are taken in one go; lists that are bounded are so by fewer
MAX_KNOWN = 500  # words that are looked at, roughly
MAX_COMPARED = 6  # of those; each comparison costs tens of microseconds
MAX_WRONG_CHARS = 128
NAME_RULE = "letters, digits, `.`, `_`, `-`; at most 64, the first a letter or digit"


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """Return `; did you mean "v2"?`, or nothing when no known word is close."""
    if len(wrong) > MAX_WRONG_CHARS:
        return ""
    pairs = _pairs(wrong)
    nearest = nsmallest(
        MAX_COMPARED, islice(known, MAX_KNOWN), key=lambda word: len(pairs ^ _pairs(word))
    )
    close = get_close_matches(wrong, nearest, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


@lru_cache(maxsize=2 * MAX_KNOWN)
def _pairs(word: str) -> frozenset[str]:
    """Return the pairs of neighbours in a word, its ends included: near words share most."""
    padded = f" {word} "
    return frozenset(map("".join, pairwise(padded)))


class Shaped(NamedTuple):
    """What plain values make, and `misfits`: where they are not shaped like a policy.

    With any, `made` lacks what is at the paths of `holes`, or has something of no meaning there,
    so that parts keep their numbers. It is None where nothing is left to judge, or where there are
    more misfits than are told.
    """

    made: Policy | None
    misfits: list[Finding]
    holes: list[Path]


def shaping(value: JSON) -> Steps[Shaped]:
    """Make a policy of plain values, as far as they are shaped like one."""
    shaper = _Shaper()
    try:
        made = yield from shaper.shape(value, Policy, ())
    except _EnoughError:
        made = None
    return Shaped(made if isinstance(made, Policy) else None, shaper.misfits, shaper.holes)


class _EnoughError(ValueError):
    """There are more misfits than will be told."""


_NOTHING: Final = object()
"""What is made of a value that does not fit."""

_STAND_INS: Final[dict[object, dict[str, object]]] = {
    Policy: {"model": "x", "versions": {}},
    Version: {"endpoints": ("http://127.0.0.1:1",)},
    Rule: {"id": "x"},
    Split: {"arms": {}},
    Shadow: {"version": "x"},
    Health: {"path": "/"},
}
"""What stands for a field that a struct cannot do without; nobody judges it."""


class _Shaper:
    """Makes what it can of plain values, and notes what does not fit."""

    def __init__(self) -> None:
        self.misfits: list[Finding] = []
        self.holes: list[Path] = []

    def shape(self, value: JSON, expected: object, path: Path) -> Steps[object]:
        """Return what `expected` makes of a value, of one that does not fit what is left of it."""
        if _is_long(value) and _is_coarse(value, branch := _branch(value, expected)):
            return (yield from self._inside(value, branch, path))
        try:
            return (yield from _converting(value, expected))
        except msgspec.ValidationError as error:
            before = len(self.misfits)
            made = yield from self._inside(value, _branch(value, expected), path)
            if len(self.misfits) == before:
                self._note(path, _reason(str(error), value, expected))
                return _NOTHING
            return made

    def _inside(self, value: JSON, expected: object, path: Path) -> Steps[object]:
        """Shape what is in a collection of the right kind; nothing is, if `value` is none."""
        if isinstance(value, list) and get_origin(expected) is tuple:
            return (yield from self._items(value, expected, path))
        if isinstance(value, dict) and get_origin(expected) is dict:
            return (yield from self._entries(value, expected, path))
        if isinstance(value, dict) and _is_struct(expected):
            return (yield from self._members(value, expected, path))
        return _NOTHING

    def _items(self, value: list[JSON], expected: object, path: Path) -> Steps[object]:
        of_item = get_args(expected)[0]
        items: list[object] = []
        is_whole = True
        for n, item in enumerate(value):
            made = yield from self.shape(item, of_item, (*path, n))
            items.append(_stand_in(of_item) if made is _NOTHING else made)
            is_whole = is_whole and items[-1] is not _NOTHING
            yield
        return tuple(items) if is_whole else _NOTHING

    def _entries(self, value: dict[str, JSON], expected: object, path: Path) -> Steps[object]:
        of_key, of_item = get_args(expected)
        entries: dict[str, object] = {}
        for key, item in value.items():
            named = yield from self.shape(key, of_key, (*path, key))
            made = yield from self.shape(item, of_item, (*path, key))
            if named is not _NOTHING and made is not _NOTHING:
                entries[key] = made
            yield
        return entries

    def _members(self, value: dict[str, JSON], expected: object, path: Path) -> Steps[object]:
        fields, members = _fields(expected), dict(_STAND_INS.get(expected, {}))
        for key, item in value.items():
            if key in fields:
                made = yield from self.shape(item, fields[key].type, (*path, key))
                if made is not _NOTHING:
                    members[fields[key].name] = made
            else:
                reason = f'unknown field "{key[:80]}"' + suggestion(key, fields)
                self._note((*path, key), reason)
            yield
        for name, field in fields.items():
            if field.required and name not in value:
                self._note(path, f'the field "{name}" is missing', hole=(*path, name))
        required = (field.name for field in fields.values() if field.required)
        return _built(expected, members) if members.keys() >= set(required) else _NOTHING

    def _note(self, path: Path, reason: str, hole: Path | None = None) -> None:
        self.misfits.append((path, reason))
        self.holes.append(path if hole is None else hole)
        if len(self.misfits) > MAX_PROBLEMS:
            raise _EnoughError


def _converting(value: JSON, expected: object) -> Steps[object]:
    """Make `expected` of a value, a portion of a long list of plain values at a time.

    Raises:
        msgspec.ValidationError: it does not fit.
    """
    listed = _branch(value, expected)
    if not isinstance(value, list) or len(value) <= PORTION or get_origin(listed) is not tuple:
        return msgspec.convert(value, expected)
    if get_origin(expected) is Annotated:
        return msgspec.convert(value[: PORTION + 1], expected)  # too long, but not to be looked at
    items: list[object] = []
    for start in range(0, len(value), PORTION):
        items += msgspec.convert(value[start : start + PORTION], listed)
        yield
    return tuple(items)


def _stand_in(expected: object) -> object:
    """Return what keeps the place of an item that does not fit, if anything can."""
    if get_origin(expected) is dict:
        return {}
    members = _STAND_INS.get(expected)
    return _NOTHING if members is None else _built(expected, members)


def _built(struct: object, members: Mapping[str, object]) -> object:
    return struct(**members) if isinstance(struct, type) else _NOTHING


def _is_long(value: JSON) -> bool:
    """Return whether a collection, or one in it, or all of them have too much for one go."""
    left, inner = MANY, [value]
    while inner:
        one = inner.pop()
        if not isinstance(one, (list, dict)):
            continue
        left -= len(one)
        if len(one) > FEW or left < 0:
            return True
        inner += one.values() if isinstance(one, dict) else one
    return False


def _is_coarse(value: JSON, expected: object) -> bool:
    """Return whether a long value is one to take apart: of texts a hundred thousand are quick."""
    if isinstance(value, list) and get_origin(expected) is tuple:
        item = get_args(expected)[0]
        return get_origin(item) is dict or _is_struct(item)
    return isinstance(value, dict) and (get_origin(expected) is dict or _is_struct(expected))


@cache
def _fields(struct: object) -> dict[str, msgspec.structs.FieldInfo]:
    """Return a struct's fields by the names that documents use; finding them out is slow."""
    if not isinstance(struct, type):
        return {}
    return {field.encode_name: field for field in msgspec.structs.fields(struct)}


def _branch(value: JSON, expected: object) -> object:
    """Return the alternative of `expected` that a value of this kind was meant for."""
    if get_origin(expected) is Annotated:
        return _branch(value, get_args(expected)[0])
    if get_origin(expected) not in {Union, UnionType}:
        return expected
    alternatives = [_branch(value, one) for one in get_args(expected)]
    if isinstance(value, list):
        return next((one for one in alternatives if get_origin(one) is tuple), None)
    if isinstance(value, dict):
        return next(
            (one for one in alternatives if get_origin(one) is dict or _is_struct(one)), None
        )
    return None


def _is_struct(expected: object) -> bool:
    return isinstance(expected, type) and issubclass(expected, msgspec.Struct)


def _reason(message: str, value: JSON, expected: object) -> str:
    if isinstance(expected, type) and issubclass(expected, Enum):
        known = [str(one.value) for one in expected]
        if not isinstance(value, str):
            return words.one_of(known, value)
        return f'"{value[:80]}" is none of {", ".join(known)}' + suggestion(value.lower(), known)
    text = words.plain(message.split(" - at ", maxsplit=1)[0], value)
    is_name = expected == Name or Name in get_args(expected)
    if is_name and isinstance(value, str):
        return f'"{value[:80]}" is not a name: {NAME_RULE}'
    if "text is expected" in text and isinstance(value, (int, float)):
        text += "; put it in quotes to make it text"
    return text
