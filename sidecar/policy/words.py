"""What msgspec says of values that do not fit, in the words of those who write documents."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import json

if TYPE_CHECKING:
    from collections.abc import Iterable

_MESSAGE = re.compile(
    r"Expected `(?P<kinds>[^`]*)`"
    r"(?: (?:of length )?(?P<bound>>=|<=|>|<) (?P<limit>\S+)| matching regex '(?P<regex>.*)')?"
    r"(?:, got `.*`)?"
)
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "array": "a list",
    "object": "a mapping",
}
_SPELLED = {
    r"^(/[^/]*)*$": "a JSON pointer (/outputs/scores)",
    r"^[A-Z]{3}$": "text of three capital letters (USD)",
}
"""What texts have to be like, for who does not read regular expressions."""
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_MAX_SHOWN = 80  # characters of a value


def plain(message: str, value: object) -> str:
    """Say a `ValidationError` without its path of `value`: `a list is expected, not text "v1"`.

    A message of another form is returned as it is, but for its quotes and capital.
    """
    found = _MESSAGE.fullmatch(message)
    if found is None:
        text = message.replace("`", "")
        return text[:1].lower() + text[1:]
    wanted = _either(found["kinds"].split(" | "))
    if found["bound"]:
        limit = found["limit"].removesuffix(".0")
        bound = f"{_BOUNDS[found['bound']]} {limit}"
        if "array" in found["kinds"]:
            items = "item" if limit == "1" else "items"
            return f"{wanted} of {bound} {items} is expected, not of {_length(value)}"
        wanted += f" of {bound}{' characters' if found['kinds'] == 'str' else ''}"
    if found["regex"]:
        wanted = _SPELLED.get(found["regex"], f"{wanted} like {found['regex']}")
    return f"{wanted} is expected, {_shown(value)}"


def one_of(allowed: Iterable[str], value: object) -> str:
    """Say that a value is none of the words that are allowed: `"a" or "b" is expected`."""
    *others, last = (f'"{word}"' for word in allowed)
    wanted = f"{', '.join(others)} or {last}" if others else last
    return f"{wanted} is expected, {_shown(value)}"


def _either(kinds: Iterable[str]) -> str:
    """Join kinds by `or`. Null, which leaving a field out says better, is left out."""
    given = [kind for kind in kinds if kind != "null"]
    if "float" in given and "int" in given:
        given.remove("int")
    *names, last = (_KINDS.get(kind, kind) for kind in given)
    return f"{', '.join(names)} or {last}" if names else last


def _length(value: object) -> str:
    return str(len(value)) if isinstance(value, (list, tuple)) else "that length"


def _shown(value: object) -> str:
    if value is None:
        return "but nothing is given"
    if isinstance(value, str):
        return f"not text {json.encode(value[:_MAX_SHOWN]).decode()}"
    if isinstance(value, bool):
        return f"not {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"not the number {value}"
    return "not a list" if isinstance(value, (list, tuple)) else "not a mapping"
