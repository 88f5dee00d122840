"""Bodies are compared as what they are, without their content coding."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.comparison import Comparison, Kept, Kind, Text
from sidecar.model.shadow import Answer, Difference, Uncompared
from sidecar.shadow.pointer import steps_of
from tests.shadow.answers import FORMS, answer, compared, planted, pointers

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

DOCUMENT = b'{"scores":[0.25,0.75]}'
OTHER = b'{"scores":[0.25,0.5]}'


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


CODED = {
    "gzip": gzip.compress(DOCUMENT),
    "x-gzip": gzip.compress(DOCUMENT[:5]) + gzip.compress(DOCUMENT[5:]),
    "deflate": zlib.compress(DOCUMENT),
    "Deflate": raw_deflate(DOCUMENT),
    "gzip, deflate": zlib.compress(gzip.compress(DOCUMENT)),
    "identity": DOCUMENT,
}


@pytest.mark.parametrize("coding", CODED)
def test_a_content_coding_makes_no_difference(coding: str) -> None:
    coded = answer(CODED[coding], content_encoding=coding)

    assert compared(coded, answer(DOCUMENT)).agrees
    assert compared(coded, answer(DOCUMENT)).uncompared is None
    assert compared(answer(OTHER), coded).fields == ("/scores/*",)


@pytest.mark.parametrize(
    ("body", "coding", "cause"),
    [
        (gzip.compress(bytes(10_000_000)), "gzip", Uncompared.SIZE),
        (gzip.compress(gzip.compress(bytes(10_000_000))), "gzip, gzip", Uncompared.SIZE),
        (gzip.compress(b"") * 10_000, "gzip", Uncompared.ENCODING),
        (DOCUMENT, "gzip, gzip, gzip", Uncompared.ENCODING),
        (DOCUMENT, "br", Uncompared.ENCODING),
        (DOCUMENT, "zstd", Uncompared.ENCODING),
        (DOCUMENT, "gzip", Uncompared.MALFORMED),
        (gzip.compress(DOCUMENT)[:-9], "gzip", Uncompared.MALFORMED),
        (b"x" * 300_000, "", Uncompared.SIZE),
    ],
    # What is compressed has the time in it, and the processes of a run have to name tests alike.
    ids=["bomb", "bomb in a bomb", "members", "too often", "br", "zstd", "plain", "cut", "large"],
)
def test_a_body_that_cannot_be_read_is_not_compared(
    body: bytes, coding: str, cause: Uncompared
) -> None:
    coded = answer(body, content_encoding=coding)

    assert compared(coded, answer(DOCUMENT)).uncompared is cause
    assert compared(answer(DOCUMENT), coded).uncompared is cause


def test_answers_with_another_status_differ_in_nothing_else() -> None:
    outcome = compared(answer(b'{"usage":{"prompt_tokens":1}}', status=503), answer(DOCUMENT))

    assert compared(answer(b"x" * 10**6, status=500), answer(b"", status=200)).kind == "status"
    assert compared(answer(b"", status=200), answer(b"x" * 10**6, status=500)).kind == "status"
    assert outcome.kind == "status"
    assert outcome.differences == (Difference("status", "value", "503", "200", -303.0),)


def test_what_a_shadow_spent_counts_though_the_client_got_an_error() -> None:
    spent = answer(b'{"usage":{"prompt_tokens":5,"completion_tokens":7}}')

    assert compared(answer(b"", status=500), spent).tokens == (5, 7)


def test_errors_are_compared_by_their_form_whatever_answers_are() -> None:
    later, never = (answer(body, "text/plain", status=429) for body in (b"later", b"never"))
    comparison = Comparison(kind=Kind.CLASSIFICATION, label="/label")

    outcome = compared(later, never, comparison)
    assert (outcome.kind, outcome.fields) == ("text", ("text",))


def test_just_the_allowed_headers_are_compared_by_name_and_all_their_values() -> None:
    mine = Answer(200, (("vary", "a"), ("vary", "b"), ("x-a", "1"), ("date", "1")), b"", 0, 0)
    theirs = Answer(200, (("vary", "a, b"), ("x-b", "2"), ("date", "2")), b"", 0, 0)
    outcome = compared(mine, theirs, Comparison(headers=("Vary", "X-A", "X-B")))

    assert outcome.kind == "empty"
    assert outcome.differences == (
        Difference("header:x-a", "missing", '"1"', ""),
        Difference("header:x-b", "extra", "", '"2"'),
    )


def test_content_types_are_the_same_in_any_case() -> None:
    mine = answer(DOCUMENT, "text/csv;charset=UTF-8")

    assert compared(mine, answer(DOCUMENT, 'Text/CSV; charset="utf-8"')).agrees
    assert compared(mine, answer(DOCUMENT, "text/csv")).fields == ("header:content-type",)
    assert compared(answer(DOCUMENT, "application/json; charset=utf-8"), answer(DOCUMENT)).agrees


@pytest.mark.parametrize(
    ("primary", "shadow", "kind"),
    [
        (answer(DOCUMENT), answer(b"<p>", "text/html"), "type"),
        (answer(DOCUMENT), answer(b"data: 1\n\n", "text/event-stream"), "type"),
        (answer(DOCUMENT), answer(b""), "length"),
        (answer(b""), answer(DOCUMENT), "length"),
        (answer(b"ab", "image/png"), answer(b"a", "image/png"), "length"),
        (answer(b"ab", "image/png"), answer(b"ac", "image/png"), "value"),
        (answer(b'{"a":1}', ""), answer(b"a", ""), "type"),
    ],
)
def test_bodies_of_two_kinds_differ_as_a_whole(primary: Answer, shadow: Answer, kind: str) -> None:
    comparison = Comparison(headers=())

    (difference,) = compared(primary, shadow, comparison).differences
    assert (difference.field, difference.kind) == ("body", kind)
    assert compared(shadow, primary, comparison).fields == ("body",)


@pytest.mark.parametrize(
    ("media", "kind"),
    [
        ("application/json", "json"),
        ("application/problem+json", "json"),
        ("", "json"),
        ("text/csv", "text"),
        ("image/svg+xml", "text"),
        ("text/event-stream", "stream"),
        ("application/x-ndjson", "stream"),
        ("application/octet-stream", "bytes"),
    ],
)
def test_a_body_is_compared_as_its_type_says(media: str, kind: str) -> None:
    assert compared(answer(DOCUMENT, media), answer(OTHER, media)).kind == kind


def test_a_charset_is_read() -> None:
    utf_8 = answer('{"a":"é"}'.encode(), "application/json")
    latin = answer('{"a":"é"}'.encode("latin-1"), "application/json;charset=latin-1")
    comparison = Comparison(headers=())

    assert compared(utf_8, latin, comparison).agrees
    assert not compared(utf_8, answer(b'{"a":"e"}'), comparison).agrees
    unknown = answer(b'{"a":1}', "application/json;charset=rot13")
    assert compared(unknown, utf_8, comparison).uncompared is Uncompared.ENCODING


def test_bytes_that_are_no_text_still_differ() -> None:
    assert not compared(answer(b"\xff", "text/plain"), answer(b"\xfe", "text/plain")).agrees


def test_masks_leave_nothing_of_what_they_cannot_be_told_in() -> None:
    comparison = Comparison(keep=Kept(mask=("/ssn",)), headers=())
    for media in ("text/plain", "application/octet-stream", "text/event-stream"):
        for one, other in ((b"data: a078\n\n", b"data: b219\n\n"), (b"a078", b"b219xx")):
            outcome = compared(answer(one, media), answer(other, media), comparison)
            assert "078" not in repr(outcome)
            assert "219" not in repr(outcome)


MEDIA = st.sampled_from(
    [
        *("application/json", "text/plain", "text/event-stream", "application/x-ndjson"),
        *("application/octet-stream", "", "application/json;charset=utf-16", "text/a;charset=\0"),
    ]
)
PIECES = st.sampled_from(
    [
        *(
            b"data: ",
            b"\n\n",
            b"\r",
            b":",
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b'"outputs":',
            b'"usage":',
        ),
        *(
            b'"choices":[{"delta":{"content":"a"}}]',
            b'"object":"chat.completion"',
            b"NaN",
            b"1e999",
        ),
        *(b'{"name":"a","datatype":"FP32","shape":[2],"data":[1,null]}', b'"\\ud800"', b"9" * 400),
        *(b"\xff", b"\xef\xbb\xbf", b"[DONE]", b"true", b"-0.5", b'"label":1'),
    ]
)
BODIES = st.binary(max_size=40) | st.lists(PIECES, max_size=20).map(b"".join)
ANSWERS = st.builds(
    lambda body, media, coding, length, status: answer(
        body, media, status, content_encoding=coding, inference_header_content_length=length
    ),
    BODIES | BODIES.map(gzip.compress),
    MEDIA,
    st.sampled_from(["", "gzip", "deflate"]),
    st.sampled_from(["", "10", "x", "0"]),
    st.sampled_from([200, 404]),
)
COMPARISONS = st.builds(
    Comparison,
    kind=st.sampled_from(Kind),
    ignore=st.sampled_from([(), ("/outputs/0",), ("/*/a", "")]),
    absolute=st.sampled_from([0.0, 1.0]),
    text=st.sampled_from(Text),
    label=st.sampled_from([None, "", "/label", "/*"]),
    probabilities=st.sampled_from([None, "", "/*"]),
    max_body_bytes=st.sampled_from([30, 10_000]),
    keep=st.builds(Kept, mask=st.sampled_from([(), ("/outputs/*/data",), ("/*",), ("",)])),
)


@given(ANSWERS, ANSWERS, COMPARISONS)
def test_no_bytes_make_comparing_fail(one: Answer, other: Answer, comparison: Comparison) -> None:
    there, back = compared(one, other, comparison), compared(other, one, comparison)

    assert len(there.fields) <= 64
    assert len(there.differences) <= 20
    if there.uncompared is back.uncompared is None:
        assert there.agrees == back.agrees
    assert compared(one, one, comparison).agrees


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2) | st.just(-1),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=1), inner, max_size=2)
    ),
    max_leaves=3,
)
BROKEN = st.sampled_from(FORMS).flatmap(
    lambda form: st.builds(
        lambda pointer, value: planted(form, steps_of(pointer), value),
        st.sampled_from(pointers(form)),
        VALUES,
    )
)


@given(BROKEN, BROKEN, MEDIA, COMPARISONS)
def test_no_broken_form_makes_comparing_fail(
    one: JSON, other: JSON, media: str, comparison: Comparison
) -> None:
    start = b"data: " if media == "text/event-stream" else b""
    mine, theirs = (
        answer(start + json.dumps(document).encode() + b"\n\n", media) for document in (one, other)
    )
    there, back = compared(mine, theirs, comparison), compared(theirs, mine, comparison)

    if there.uncompared is back.uncompared is None:
        assert there.agrees == back.agrees
    assert compared(mine, mine, comparison).agrees
    assert msgspec.json.decode(msgspec.json.encode(there)) is not None


def _output(datatype: str, raw: bytes, last: bytes) -> Answer:
    """Return an answer whose one output is binary."""
    size = {"binary_data_size": len(raw)}
    said = {"name": "a", "datatype": datatype, "shape": [1], "parameters": size}
    head = json.dumps({"outputs": [said]}).encode()
    length = str(len(head))
    return answer(head + raw[:-1] + last, "", inference_header_content_length=length)


MANY = 500_001
TOO_MUCH: dict[str, tuple[Answer, Answer]] = {
    "numbers": (answer(b"[0%b]" % (b",1" * MANY)), answer(b"[1%b]" % (b",1" * MANY))),
    "NaN": (answer(b"[NaN%b]" % (b",1" * MANY)), answer(b"[1%b]" % (b",1" * MANY))),
    "UTF-16": (
        answer(("[0" + ",1" * MANY + "]").encode("utf-16"), "application/json; charset=utf-16"),
        answer(("[1" + ",1" * MANY + "]").encode("utf-16"), "application/json; charset=utf-16"),
    ),
    "arrays": (answer(b"[0%b]" % (b",[]" * 125_000)), answer(b"[1%b]" % (b",[]" * 125_000))),
    "objects": (answer(b"[0%b]" % (b",{}" * 125_000)), answer(b"[1%b]" % (b",{}" * 125_000))),
    "text": (answer(bytes(2**20 + 1), "text/plain"), answer(bytes(2**20) + b"x", "text/plain")),
    "lines": (
        answer(b"\n" * MANY, "text/event-stream"),
        answer(b"\r" * MANY, "text/event-stream"),
    ),
    "documents": (answer(b"\n" * MANY, "application/jsonl"), answer(b"1", "application/jsonl")),
    "an event": (
        answer(b'data: {"object":"chat.completion.chunk","choices":[]}\n\n', "text/event-stream"),
        answer(b"data: [0%b]\n\n" % (b",1" * MANY), "text/event-stream"),
    ),
    "bytes": (_output("INT8", bytes(MANY), b"\0"), _output("INT8", bytes(MANY), b"\1")),
    "halves": (
        _output("BF16", bytes(2 * MANY), b"\0"),
        _output("BF16", bytes(2 * MANY), b"\1"),
    ),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_what_would_hold_the_interpreter_for_long_is_not_read(kind: str) -> None:
    large = Comparison(max_body_bytes=16 * 1024 * 1024)

    for primary, shadow in (TOO_MUCH[kind], TOO_MUCH[kind][::-1]):
        assert compared(primary, shadow, large).uncompared is Uncompared.SIZE


@pytest.mark.parametrize("item", [b"1", b"[]", b"{}", b'""', b"NaN"])
def test_whatever_answer_is_within_the_usual_bound_is_read(item: bytes) -> None:
    number = (Comparison().max_body_bytes - 4) // (len(item) + 1)
    items = (item + b",") * number

    assert compared(b"[%b0]" % items, b"[%b1]" % items).fields == ("/*",)
