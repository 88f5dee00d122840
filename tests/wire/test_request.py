"""Heads of requests: what is read, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import event, given

from sidecar.errors import Code
from sidecar.wire.fields import name_of, value_of
from sidecar.wire.framing import CHUNKED
from sidecar.wire.head import HeadError
from sidecar.wire.request import is_request_id, judge_beginning, read_request
from tests.wire import llhttp, plain
from tests.wire.heads import request_heads


@given(request_heads)
def test_a_head_is_read_as_the_plain_grammar_reads_it(block: bytes) -> None:
    expected = plain.read_request(block)
    event("accepted" if expected else "refused")
    try:
        head = read_request(block, 100)
    except HeadError:
        assert expected is None
        return
    assert expected is not None
    assert (head.method, head.target) == expected.start
    assert [(name_of(line), value_of(line)) for line in head.fields] == expected.fields
    assert (plain.CHUNKED if head.framing == CHUNKED else head.framing) == expected.framing


@given(request_heads)
def test_only_a_head_that_is_refused_is_given_up_early(block: bytes) -> None:
    if plain.read_request(block) is not None:
        for end in range(len(block) + 1):
            judge_beginning(block[:end])


@given(request_heads)
def test_llhttp_frames_what_is_accepted_alike_or_refuses_it(block: bytes) -> None:
    try:
        head = read_request(block, 100)
    except HeadError:
        return
    if not 0 <= head.framing <= 1000 and head.framing != CHUNKED:
        return
    coded = b"5\r\nabcde\r\n0\r\n\r\n" if head.framing == CHUNKED else b"x" * head.framing
    body = b"abcde" if head.framing == CHUNKED else coded
    follower = b"GET /follower HTTP/1.1\r\nHost: b\r\n\r\n"
    bodies = llhttp.read_requests(block + b"\r\n" + coded + follower)
    event("refused" if bodies is None else "read")
    assert bodies is None or bodies[:1] == [body], bodies


@pytest.mark.parametrize("target", [b"/", b"*", b"a:443", b"http://a/"])
def test_connect_is_refused_whatever_its_target(target: bytes) -> None:
    with pytest.raises(HeadError) as refused:
        read_request(b"CONNECT %b HTTP/1.1\r\nHost: a\r\n" % target, 100)
    assert refused.value.code == Code.NOT_IMPLEMENTED


@pytest.mark.parametrize(
    "part",
    [b"\n", b"\nG", b"GET / HTTP/1.1\n", b"G\rE", b"G\x00", b"GET /\r\n", b"GET / HTTP/2.0\r\nX-A"],
)
def test_what_can_never_become_a_head_is_not_waited_for(part: bytes) -> None:
    with pytest.raises(HeadError):
        judge_beginning(part)


@pytest.mark.parametrize("fit", [b"a", b"~!", b"x" * 128, b'{"a":1}', b"00-abc-01"])
def test_a_request_id_of_visible_ascii_is_kept(fit: bytes) -> None:
    assert is_request_id(fit)


@pytest.mark.parametrize(
    "unfit", [b"", b" ", b"a b", b"a\t", b"a\r\nX-Evil: 1", b"\x00", b"\x7f", b"\xff", b"x" * 129]
)
def test_any_other_request_id_is_not(unfit: bytes) -> None:
    assert not is_request_id(unfit)
