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
    from sidecar.policy.problem import Finding, Findings, Path
    from sidecar.policy.steps import Steps

    _Fields = dict[str, msgspec.structs.FieldInfo]

FEW = 64  # members of a collection: fewer are taken in one go
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


class MisfitsError(ValueError):
    """Plain values are not shaped like a policy; `findings` has every place, or enough of them."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("not shaped like a policy")
        self.findings = findings


def shaping(value: JSON) -> Steps[Policy]:
    """Make a policy of plain values.

    Raises:
        MisfitsError: it is not shaped like one.
    """
    findings: list[Finding] = []
    made = yield from _shape(value, Policy, (), findings)
    if findings or not isinstance(made, Policy):
        raise MisfitsError(findings)
    return made


def _shape(value: JSON, expected: object, path: Path, findings: list[Finding]) -> Steps[object]:
    """Return what `expected` makes of a value, or note in `findings` why it makes nothing of it."""
    if len(findings) > MAX_PROBLEMS:  # no more than will be told
        raise MisfitsError(findings)
    branch = _branch(value, expected) if _is_long(value) else None
    if isinstance(value, list) and get_origin(branch) is tuple and _is_coarse(branch):
        return (yield from _shape_items(value, branch, path, findings))
    if isinstance(value, dict) and get_origin(branch) is dict:
        return (yield from _shape_entries(value, branch, path, findings))
    if isinstance(value, dict) and isinstance(branch, type) and _is_struct(branch):
        return (yield from _shape_members(value, branch, path, findings))
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError:
        yield from _noting(_walk(value, expected, path), findings)
        return None


def _shape_items(
    value: list[JSON], expected: object, path: Path, findings: list[Finding]
) -> Steps[object]:
    items: list[object] = []
    for n, item in enumerate(value):
        items.append((yield from _shape(item, get_args(expected)[0], (*path, n), findings)))
        yield
    return tuple(items)


def _shape_entries(
    value: dict[str, JSON], expected: object, path: Path, findings: list[Finding]
) -> Steps[object]:
    entries: dict[str, object] = {}
    of_key, of_item = get_args(expected)
    for key, item in value.items():
        yield from _noting(_walk(key, of_key, (*path, key)), findings)
        entries[key] = yield from _shape(item, of_item, (*path, key), findings)
        yield
    return entries


def _shape_members(
    value: dict[str, JSON], expected: type, path: Path, findings: list[Finding]
) -> Steps[object]:
    fields, members = _fields(expected), dict[str, object]()
    for key, item in value.items():
        if key in fields:
            field = fields[key]
            members[field.name] = yield from _shape(item, field.type, (*path, key), findings)
        else:
            yield from _noting(iter((_unknown(key, fields, path),)), findings)
        yield
    yield from _noting(_missing(value, fields, path), findings)
    return None if findings else expected(**members)


def _noting(found: Findings, findings: list[Finding]) -> Steps[None]:
    """Note what was found, no more than will be told."""
    for one in found:
        if one is None:
            yield
        elif len(findings) <= MAX_PROBLEMS:
            findings.append(one)
        if len(findings) > MAX_PROBLEMS:
            return


def _walk(value: JSON, expected: object, path: Path) -> Findings:
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        is_inside = False
        for one in _inside(value, _branch(value, expected), path):
            is_inside = is_inside or one is not None
            yield one
        if not is_inside:
            yield path, _reason(str(error), value, expected)


def _inside(value: JSON, expected: object, path: Path) -> Findings:
    """Yield what is wrong below a collection of the right kind; nothing if `value` is."""
    origin, arguments = get_origin(expected), get_args(expected)
    if isinstance(value, list) and origin is tuple:
        for n, item in enumerate(value):
            yield from _walk(item, arguments[0], (*path, n))
            yield None
    elif isinstance(value, dict) and origin is dict:
        for key, item in value.items():
            yield from _walk(key, arguments[0], (*path, key))
            yield from _walk(item, arguments[1], (*path, key))
            yield None
    elif isinstance(value, dict) and isinstance(expected, type):
        yield from _members(value, expected, path)


def _members(value: dict[str, JSON], expected: type, path: Path) -> Findings:
    if not issubclass(expected, msgspec.Struct):
        return
    fields = _fields(expected)
    for key, item in value.items():
        if key in fields:
            yield from _walk(item, fields[key].type, (*path, key))
        else:
            yield _unknown(key, fields, path)
        yield None
    yield from _missing(value, fields, path)


def _unknown(key: str, fields: Iterable[str], path: Path) -> Finding:
    return (*path, key), f'unknown field "{key[:80]}"' + suggestion(key, fields)


def _missing(value: dict[str, JSON], fields: _Fields, path: Path) -> Iterator[Finding]:
    for name, field in fields.items():
        if field.required and name not in value:
            yield path, f'the field "{name}" is missing'


def _is_long(value: JSON, levels: int = 4) -> bool:
    """Return whether a collection, or one in it, has more members than are taken in one go."""
    if not isinstance(value, (list, dict)):
        return False
    if len(value) > FEW:
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and any(_is_long(one, levels - 1) for one in inner)


def _is_coarse(expected: object) -> bool:
    """Return whether a list is one of collections: of texts a hundred thousand are quick."""
    item = get_args(expected)[0]
    return get_origin(item) is dict or _is_struct(item)


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
