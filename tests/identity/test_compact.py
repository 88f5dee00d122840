"""Every value has one spelling, and every object one meaning."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.identity.compact import decode_base64url, decode_object, encode_base64url


@given(st.binary(max_size=200))
def test_what_is_encoded_decodes_to_itself(data: bytes) -> None:
    text = encode_base64url(data)

    assert text == base64.urlsafe_b64encode(data).rstrip(b"=")
    assert decode_base64url(text) == data


@given(st.binary(max_size=12))
def test_no_two_texts_decode_to_the_same_bytes(text: bytes) -> None:
    try:
        data = decode_base64url(text)
    except ValueError:
        return

    assert encode_base64url(data) == text


@pytest.mark.parametrize(
    "text",
    [
        b"TQ==",  # padding
        b"TWE=",
        b"TR",  # non-zero trailing bits
        b"TWF",
        b"T",  # one letter holds no byte
        b"TWFuT",
        b"TW Fu",
        b"TWFu\n",
        b"\nTWFu",
        b"TW+u",  # plain base64
        b"TW/u",
        b"TW!u",
        b"TW\x00u",
        b"TW\xffu",
        b"=",
    ],
)
def test_any_other_spelling_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_base64url(text)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(-(2**63), 2**63)))
def test_an_object_is_read_as_the_standard_library_reads_it(value: dict[str, int]) -> None:
    assert decode_object(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": [{"b": 1, "b": 2}]}',
        b'{"a": 1, "\\u0061": 2}',
        b"[]",
        b'"text"',
        b"null",
        b"",
        b"{",
        b"{} {}",
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": "\xff"}',
        b'{"\xff": 1}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\ud800", "b": "longer than the escape"}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"{'a': 1}",
        b'{"a": 1,}',
    ],
)
def test_what_two_readers_may_take_differently_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_object(raw)
