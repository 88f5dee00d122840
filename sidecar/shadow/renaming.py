"""A JSON body that names another model, byte for byte the same elsewhere."""

from __future__ import annotations

import re
from typing import Final

import msgspec

MAX_MEMBERS: Final = 1_000  # looked at before `model`; requests have a few
# Possessive (`*+`): a body is never gone back in, and a long name takes a tenth of the time.
_KEY: Final = re.compile(
    rb'[ \t\r\n]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL
)
_NEXT: Final = re.compile(rb"[ \t\r\n]*+,")
_OPEN: Final = re.compile(rb"[ \t\r\n]*+\{")
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NAME: Final = msgspec.json.Decoder(str)


def with_model(body: bytes, model: str) -> bytes:
    """Return a JSON object with another value of its member `model`.

    What is no object, is nested too deep to be read, has no such member, or says it twice, is
    returned as it is.
    """
    try:
        members = _MEMBERS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last: nested too deep
        return body
    if "model" not in members:
        return body
    found = _span(body, members)
    if found is None:
        return body
    start, end = found
    value = msgspec.json.encode(model)
    renamed = b"".join((body[:start], value, body[end:]))
    is_last = memoryview(_MEMBERS.decode(renamed)["model"]) == value
    return renamed if is_last else body


def _span(body: bytes, members: dict[str, msgspec.Raw]) -> tuple[int, int] | None:
    """Return where the value of `model` stands.

    Values are passed over by their length, which the decoder knows, so that a long one costs no
    time. Of a member that is there twice it tells the last value alone: then this is lost.
    """
    opening = _OPEN.match(body)
    at = opening.end() if opening is not None else 0
    for _ in range(min(len(members), MAX_MEMBERS)):
        key = _KEY.match(body, at)
        if key is None:
            return None
        name = _NAME.decode(key[1])
        value = memoryview(members[name]) if name in members else memoryview(b"")
        start, end = key.end(), key.end() + len(value)
        if body[start:end] != value or not value:
            return None
        if name == "model":
            return start, end
        comma = _NEXT.match(body, end)
        if comma is None:
            return None
        at = comma.end()
    return None
