"""Every value has one spelling, and every object one meaning."""

from __future__ import annotations

import base64
import json
import string
from contextlib import suppress
from itertools import product
from typing import TypeAlias, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.identity.compact import decode_base64url, decode_object, encode_base64url

Written: TypeAlias = Union[bool, int, str, "list[Written]", "Pairs", None]
Members: TypeAlias = list[tuple[str, Written]]


class Pairs:
    """An object as it is written: members in turn, some of the same name."""

    def __init__(self, members: Members) -> None:
        self.members = members

    def spelled(self, *, is_ascii: bool) -> str:
        pairs = (
            f"{json.dumps(name, ensure_ascii=is_ascii)}: {spelled(value, is_ascii=is_ascii)}"
            for name, value in self.members
        )
        return f"{{{', '.join(pairs)}}}"

    def repeats(self) -> bool:
        own = [name for name, _ in self.members]
        return len(set(own)) < len(own) or any(repeats(value) for _, value in self.members)


def spelled(value: Written, *, is_ascii: bool) -> str:
    if isinstance(value, Pairs):
        return value.spelled(is_ascii=is_ascii)
    if isinstance(value, list):
        return f"[{', '.join(spelled(one, is_ascii=is_ascii) for one in value)}]"
    return json.dumps(value, ensure_ascii=is_ascii)


def repeats(value: Written) -> bool:
    if isinstance(value, Pairs):
        return value.repeats()
    return isinstance(value, list) and any(repeats(one) for one in value)


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


LETTERS = [bytes([letter]) for letter in string.ascii_letters.encode() + b"0123456789-_"]


@pytest.mark.parametrize("begun", [b"", b"TWFu"])
@pytest.mark.parametrize("letters", [1, 2, 3])
def test_of_the_spellings_of_some_bytes_only_one_is_read(begun: bytes, letters: int) -> None:
    fixed = begun + b"T" * (letters - 2)
    read = 0
    for last in product(LETTERS, repeat=min(letters, 2)):
        text = fixed + b"".join(last)
        with suppress(ValueError):
            assert encode_base64url(decode_base64url(text)) == text
            read += 1

    assert read == {1: 0, 2: 256, 3: 64 * 16}[letters]


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


@pytest.mark.parametrize("at", [0, 2, 7, 9])
def test_no_byte_but_the_letters_is_read_anywhere(at: int) -> None:
    strangers = {bytes([one]) for one in range(256)} - set(LETTERS)
    assert len(strangers) == 192

    for stranger in strangers:
        with pytest.raises(ValueError, match=r"."):
            decode_base64url(b"TWFuTWFuTQ"[:at] + stranger + b"TWFuTWFuTQ"[at + 1 :])


@pytest.mark.parametrize(
    "text", [rb"\u0054WFu", rb"TWF\u0075", rb"\/\/TW", b'TWFu"', b'"TWFu"', b'T"WF']
)
def test_what_only_a_json_string_spells_is_no_base64(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_base64url(text)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(-(2**63), 2**63)))
def test_an_object_is_read_as_the_standard_library_reads_it(value: dict[str, int]) -> None:
    assert decode_object(json.dumps(value).encode()) == value


NAMES = st.sampled_from(["", "a", "b", "a:b", "{", "\u00e9", '"', "\\", "\n"])
WRITTEN = st.recursive(
    st.integers() | st.booleans() | st.none() | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.builds(Pairs, st.lists(st.tuples(NAMES, inner))),
)


@given(st.lists(st.tuples(NAMES, WRITTEN)), st.booleans())
def test_a_member_that_is_repeated_anywhere_is_found(members: Members, is_ascii: bool) -> None:
    whole = Pairs(members)
    raw = whole.spelled(is_ascii=is_ascii).encode()
    repeats = whole.repeats()

    if repeats:
        with pytest.raises(ValueError, match="repeated"):
            decode_object(raw)
    else:
        assert decode_object(raw) == json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1, "a": 1}',
        b'{"a": "", "a": ""}',
        b'{"a": "", "a": {"b": 1}, "c": "d"}',
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
