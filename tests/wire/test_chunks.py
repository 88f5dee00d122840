"""The chunked coding: what is decoded, however it comes in, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from sidecar.wire.chunks import MAX_TRAILERS, ChunkedBody
from sidecar.wire.head import HeadError
from tests.wire import llhttp, plain
from tests.wire.heads import mutated

_EXTENSIONS = st.sampled_from((b"", b"", b";a", b" ;a=b", b'\t; a="c;d"', b";", b";\xe9=1"))
_TRAILERS = st.lists(st.sampled_from((b"X-A: 1\r\n", b"x:\r\n", b"Y:\t\xe9 \r\n")), max_size=3)
_AFTER = b"GET /next HTTP/1.1\r\n"


@st.composite
def _chunks(draw: st.DrawFn) -> bytes:
    coded = b""
    for data in draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4)):
        size = draw(st.sampled_from((b"%x", b"%X", b"000%x"))) % len(data)
        coded += size + draw(_EXTENSIONS) + b"\r\n" + data + b"\r\n"
    last = draw(st.sampled_from((b"0", b"000"))) + draw(_EXTENSIONS)
    return coded + last + b"\r\n" + b"".join(draw(_TRAILERS)) + b"\r\n"


def _decode(pieces: list[bytes]) -> tuple[ChunkedBody, bytes, int, bool]:
    """Return the decoder, what it decoded, how many bytes it took, and whether it refused."""
    chunks, out, taken = ChunkedBody(1024), list[bytes](), 0
    for piece in pieces:
        try:
            taken += chunks.feed(piece, 0, out)
        except HeadError:
            return chunks, b"".join(out), taken, True
        if chunks.is_done:
            break
    return chunks, b"".join(out), taken, False


@st.composite
def _cut(draw: st.DrawFn, size: int) -> list[int]:
    return [0, *sorted(draw(st.sets(st.integers(1, max(size - 1, 1)), max_size=8))), size]


def _ways(coded: bytes, data: st.DataObject) -> list[list[bytes]]:
    cuts = data.draw(_cut(len(coded)))
    return [
        [coded],
        [coded[at : at + 1] for at in range(len(coded))],
        [coded[a:b] for a, b in pairwise(cuts)],
    ]


@given(_chunks(), st.data())
def test_a_body_decodes_to_the_same_bytes_however_it_is_cut(
    coded: bytes, data: st.DataObject
) -> None:
    expected = plain.decode(coded)
    assert expected is not None
    for pieces in _ways(coded + _AFTER, data):
        chunks, body, taken, is_refused = _decode(pieces)
        assert not is_refused
        assert chunks.is_done
        assert (body, taken) == (expected[0], len(coded)) == expected
        assert b"".join(chunks.trailers) == b"" or coded.endswith(
            b"".join(chunks.trailers) + b"\r\n"
        )


@given(mutated(_chunks(), 4), st.data())
def test_a_mutated_body_never_decodes_beyond_the_plain_grammar(
    coded: bytes, data: st.DataObject
) -> None:
    expected, most = plain.decode(coded), plain.decoded_so_far(coded)
    event("whole" if expected else "not whole")
    for pieces in _ways(coded, data):
        chunks, body, taken, is_refused = _decode(pieces)
        assert most.startswith(body)
        assert chunks.is_done == (expected is not None)
        if not is_refused:
            assert body == most
        if expected is not None:
            assert (body, taken, is_refused) == (*expected, False)


@given(mutated(_chunks(), 4))
def test_llhttp_decodes_what_is_accepted_alike_or_refuses_it(coded: bytes) -> None:
    chunks, body, taken, _ = _decode([coded])
    if not chunks.is_done:
        return
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    bodies = llhttp.read_requests(head + coded[:taken])
    event("refused" if bodies is None else "read")
    assert bodies is None or bodies == [body]


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused_but_never_fail(data: bytes) -> None:
    _decode([data])


def test_there_are_no_more_trailers_than_are_read_in_no_time() -> None:
    last, trailer, end = b"0\r\n", b"A:\r\n", b"\r\n"
    chunks = ChunkedBody(64 * 1024)
    chunks.feed(last + trailer * MAX_TRAILERS + end, 0, [])
    assert (chunks.is_done, len(chunks.trailers)) == (True, MAX_TRAILERS)

    chunks = ChunkedBody(64 * 1024)
    with pytest.raises(HeadError, match="over 256 trailers"):
        chunks.feed(last + trailer * (MAX_TRAILERS + 1), 0, [])
