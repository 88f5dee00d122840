"""Strict decoding of the two spellings a token is made of: base64url and JSON objects.

Both have lenient readers everywhere; a token that two readers understand differently is an attack.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

# What only plain base64 has, padding included, becomes a letter of no alphabet.
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")
_PADDING = (b"", b"!", b"==", b"=")  # by length modulo 4; no encoding is 1 byte over


def decode_base64url(text: bytes) -> bytes:
    """Decode base64url as RFC 7515 section 2 has it: no padding, no line breaks, no other bytes.

    Non-zero bits after the last byte are refused too (RFC 4648 section 3.5), so every value has
    one spelling. Raises ValueError.
    """
    padded = text.translate(_FROM_URL) + _PADDING[len(text) & 3]
    data = binascii.a2b_base64(padded, strict_mode=True)
    # Writing it again is cheaper and surer than looking at the last letter.
    if binascii.b2a_base64(data, newline=False) != padded:
        raise ValueError("not canonical base64url")
    return data


def encode_base64url(data: bytes) -> bytes:
    """Encode `data` as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decode_object(raw: bytes) -> dict[str, JSON]:
    """Decode one JSON object in UTF-8 in which no object, at any depth, repeats a member name.

    Raises ValueError, for NaN, infinities and lone surrogates too.
    """
    # Two readers: msgspec is strict about numbers and Unicode but takes the last of two members
    # of a name, which only the standard library lets one see.
    value = decode_any_object(raw)
    try:
        _REPEATS.decode(raw.decode())
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
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


def _refuse_repeats(pairs: list[tuple[str, JSON]]) -> None:
    if len(pairs) > 1 and len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a member name is repeated")


_VALUES = msgspec.json.Decoder()
_REPEATS = json.JSONDecoder(object_pairs_hook=_refuse_repeats)
