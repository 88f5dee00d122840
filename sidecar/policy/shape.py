"""Where plain values do not fit a struct: every place at once, each with its path.

msgspec decodes fast but stops at the first misfit and does not name keys of mappings; this walks
the types again, for documents that it refused.
"""

from __future__ import annotations

from difflib import get_close_matches
from enum import Enum
from functools import cache, lru_cache
from heapq import nsmallest
from itertools import islice, pairwise
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Union, get_args, get_origin

import msgspec

from sidecar.model.policy import Name, Policy
from sidecar.policy import words
from sidecar.policy.problem import MAX_PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecar.model.identity import JSON
    from sidecar.policy.problem import Finding, Path

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


def misfits(value: JSON) -> Iterator[Finding]:
    """Yield path and reason of every place where a document is not shaped like a policy."""
    return _walk(value, Policy, ())


def _walk(value: JSON, expected: object, path: Path) -> Iterator[Finding]:
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        # No more than will be told: a large document may be wrong in every line.
        inside = list(islice(_inside(value, _branch(value, expected), path), MAX_PROBLEMS + 1))
        yield from inside or [(path, _reason(str(error), value, expected))]


def _inside(value: JSON, expected: object, path: Path) -> Iterator[Finding]:
    """Yield what is wrong below a collection of the right kind; nothing if `value` is."""
    origin, arguments = get_origin(expected), get_args(expected)
    if isinstance(value, list) and origin is tuple:
        for n, item in enumerate(value):
            yield from _walk(item, arguments[0], (*path, n))
    elif isinstance(value, dict) and origin is dict:
        for key, item in value.items():
            yield from _walk(key, arguments[0], (*path, key))
            yield from _walk(item, arguments[1], (*path, key))
    elif isinstance(value, dict) and isinstance(expected, type):
        yield from _members(value, expected, path)


def _members(value: dict[str, JSON], expected: type, path: Path) -> Iterator[Finding]:
    if not issubclass(expected, msgspec.Struct):
        return
    fields = _fields(expected)
    for key, item in value.items():
        if key in fields:
            yield from _walk(item, fields[key].type, (*path, key))
        else:
            yield (*path, key), f'unknown field "{key[:80]}"' + suggestion(key, fields)
    for name, field in fields.items():
        if field.required and name not in value:
            yield path, f'the field "{name}" is missing'


@cache
def _fields(struct: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """Return a struct's fields by the names that documents use; finding them out is slow."""
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
    if isinstance(expected, type) and issubclass(expected, Enum) and isinstance(value, str):
        known = [str(one.value) for one in expected]
        return f'"{value[:80]}" is none of {", ".join(known)}' + suggestion(value, known)
    text = words.plain(message.split(" - at ", maxsplit=1)[0], value)
    is_name = expected == Name or Name in get_args(expected)
    if is_name and isinstance(value, str):
        return f'"{value[:80]}" is not a name: {NAME_RULE}'
    if "text is expected" in text and isinstance(value, (int, float)):
        text += "; put it in quotes to make it text"
    return text
