"""Heads of responses: what is read, and what is refused."""

from __future__ import annotations

from hypothesis import assume, event, given

from sidecar.wire.fields import name_of, value_of
from sidecar.wire.framing import CHUNKED, UNTIL_CLOSE, is_bodiless
from sidecar.wire.head import HeadError, split_lines
from sidecar.wire.response import read_response
from tests.wire import llhttp, plain
from tests.wire.heads import response_heads

_FRAMINGS = {CHUNKED: plain.CHUNKED, UNTIL_CLOSE: plain.UNTIL_CLOSE}


@given(response_heads)
def test_a_head_is_read_as_the_plain_grammar_reads_it(block: bytes) -> None:
    expected = plain.read_response(block)
    event("accepted" if expected else "refused")
    try:
        head = read_response(block, hides_decisions=True)
    except HeadError:
        assert expected is None
        return
    assert expected is not None
    assert (b"%d" % head.status, head.reason) == expected.start
    assert [
        (name_of(line), value_of(line)) for line in split_lines(head.passed)[1:]
    ] == expected.fields
    assert _FRAMINGS.get(head.framing, head.framing) == expected.framing


@given(response_heads)
def test_llhttp_frames_what_is_accepted_alike_or_refuses_it(block: bytes) -> None:
    try:
        head = read_response(block, hides_decisions=True)
    except HeadError:
        return
    assume(not is_bodiless(b"GET", head.status) and head.status >= 200)
    assume(head.framing <= 1000)
    coded = b"5\r\nabcde\r\n0\r\n\r\n" if head.framing == CHUNKED else b"x" * head.framing
    bodies = llhttp.read_responses(block + b"\r\n" + coded)
    event("refused" if bodies is None else "read")
    if head.framing == UNTIL_CLOSE:
        assert not bodies
    else:
        assert bodies is None or bodies == [b"abcde" if head.framing == CHUNKED else coded]
