"""Strict decoding of the two spellings a token is made of: base64url and JSON objects.

Both have lenient readers everywhere; a token that two readers understand differently is an attack.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# What only plain base64 or a JSON string has, padding too, becomes a letter of no alphabet.
_OTHERS: Final = bytes([one for one in range(256) if one not in _LETTERS])
_FROM_URL: Final = bytes.maketrans(b"-_" + _OTHERS, b"+/" + b"!" * len(_OTHERS))
# By length modulo 4; no encoding is 1 letter over. Of two letters over, the last one's low 4 bits
# are after the last byte, of three its low 2.
_END: Final = (b'"', b'!"', b'=="', b'="')
_LAST: Final = (_LETTERS, b"", _LETTERS[::16], _LETTERS[::4])


def decode_base64url(text: bytes) -> bytes:
    """Decode base64url as RFC 7515 section 2 has it: no padding, no line breaks, no other bytes.

    Non-zero bits after the last byte are refused too (RFC 4648 section 3.5), so every value has
    one spelling. Raises ValueError.
    """
    over = len(text) & 3
    if over and text[-1] not in _LAST[over]:
        raise ValueError("not canonical base64url")
    # As a JSON string: msgspec takes half as long as binascii.
    return _BYTES.decode(b'"' + text.translate(_FROM_URL) + _END[over])


def encode_base64url(data: bytes) -> bytes:
    """Encode `data` as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decode_object(raw: bytes) -> dict[str, JSON]:
    """Decode one JSON object in UTF-8 in which no object, at any depth, repeats a member name.

    Raises ValueError, for NaN, infinities and lone surrogates too.
    """
    value = decode_any_object(raw)
    # msgspec is strict about numbers and Unicode but takes the last of two members of a name.
    # Without a backslash each quote begins or ends a string; with a member a string is lost.
    if _BACKSLASH in raw or raw.count(b'"') != 2 * _strings(value):
        _look_for_repeats(raw)
    return value


def decode_any_object(raw: bytes) -> dict[str, JSON]:
    """Decode as `decode_object` does, but for repeated members, the last of which counts.

    In a fraction of the time: for what is not believed yet.
    """
    try:
        value: JSON = _VALUES.decode(raw)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 -- of the input, not of the caller
    return value


def _strings(whole: dict[str, JSON]) -> int:
    """Return how many strings a value was written with: names of members, and values."""
    found = 0
    pending: list[dict[str, JSON] | list[JSON]] = [whole]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            found += len(value)
        for one in value.values() if isinstance(value, dict) else value:
            if isinstance(one, str):
                found += 1
            elif isinstance(one, (dict, list)):
                pending.append(one)
    return found


def _look_for_repeats(raw: bytes) -> None:
    """Read it again, by the standard library: it alone shows every member. Raises ValueError."""
    try:
        _REPEATS.decode(raw.decode())
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def _refuse_repeats(pairs: list[tuple[str, JSON]]) -> None:
    if len(pairs) > 1 and len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a member name is repeated")


_BACKSLASH: Final = 0x5C  # a number: CPython 3.11 looks for bytes by way of an exception
_BYTES: Final = msgspec.json.Decoder(bytes)
_VALUES: Final = msgspec.json.Decoder()
_REPEATS: Final = json.JSONDecoder(object_pairs_hook=_refuse_repeats)
