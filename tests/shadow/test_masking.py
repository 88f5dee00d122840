"""Nothing that a mask points at is in a body that is kept."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.shadow.masking import mask
from sidecar.shadow.pointer import compile_masks

JSON_FIELDS = {"content-type": "application/json; charset=utf-8"}
BOUND = 100_000


def masked(body: bytes, *pointers: str, fields: dict[str, str] | None = None) -> bytes:
    return mask(body, JSON_FIELDS if fields is None else fields, compile_masks(pointers), BOUND)


@pytest.mark.parametrize(
    ("pointers", "kept"),
    [
        (("/a",), {"a": "***", "b": [{"c": 2, "d": 3}, {"c": 4}], "": None}),
        (("/b/*/c",), {"a": 1, "b": [{"c": "***", "d": 3}, {"c": "***"}], "": None}),
        (("/b/0", "/"), {"a": 1, "b": ["***", {"c": 4}], "": "***"}),
        (("/*",), {"a": "***", "b": "***", "": "***"}),
        (("/b", "/b/0/c"), {"a": 1, "b": "***", "": None}),
        (("/none",), {"a": 1, "b": [{"c": 2, "d": 3}, {"c": 4}], "": None}),
        (("",), "***"),
        (("/b/x/d",), {"a": 1, "b": [{"c": 2, "d": 3}, {"c": 4}], "": None}),
    ],
)
def test_what_pointers_mean_is_replaced(pointers: tuple[str, ...], kept: object) -> None:
    body = b'{"a":1,"b":[{"c":2,"d":3},{"c":4}],"":null}'

    assert json.loads(masked(body, *pointers)) == kept


def test_an_item_of_an_array_is_meant_by_its_name() -> None:
    body = b'{"inputs":[{"name":"age","data":[41]},{"name":"sex","data":[0]}]}'

    assert masked(body, "/inputs/age/data") == body.replace(b"[41]", b'"***"')
    assert masked(body, "/inputs/1") == body.replace(b'{"name":"sex","data":[0]}', b'"***"')


def test_without_masks_a_body_is_kept_as_it_is() -> None:
    assert masked(b"\xff {") == b"\xff {"


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (b"secret", "text/plain"),
        (b'{"a":"secret"', "application/json"),
        (b'{"a":"secret"}', "application/octet-stream"),
        (b'data: {"a":"secret"}\n\n', "text/event-stream"),
        (b"[" * 5000 + b'"secret"' + b"]" * 5000, "application/json"),
        (b'{"a":"secret"}', ""),
    ],
)
def test_of_what_is_no_json_nothing_is_kept(body: bytes, media: str) -> None:
    assert masked(body, "/a", fields={"content-type": media}) == b""


def test_a_content_coding_is_undone_first() -> None:
    coded = {**JSON_FIELDS, "content-encoding": "gzip"}

    assert masked(gzip.compress(b'{"a":1,"b":2}'), "/a", fields=coded) == b'{"a":"***","b":2}'
    assert masked(gzip.compress(bytes(BOUND + 1)), "/a", fields=coded) == b""
    assert masked(b"{}", "/a", fields={**JSON_FIELDS, "content-encoding": "br"}) == b""


def test_a_member_that_is_given_twice_is_kept_once() -> None:
    assert masked(b'{"a":"secret","a":"secret"}', "/a") == b'{"a":"***"}'


@given(st.binary(max_size=60), st.sampled_from(["", "/*", "/a", "/a/*/b"]))
def test_no_bytes_make_masking_fail(body: bytes, pointer: str) -> None:
    kept = masked(body, pointer)

    assert kept == b"" or isinstance(json.loads(kept), object)
