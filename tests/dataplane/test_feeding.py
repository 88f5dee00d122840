"""However messages are cut into reads, what arrives is what the plain grammar reads in them."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.proxy import chain
from tests.wire import whole

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.messages import Answer
    from tests.support.upstream import Received

CONTROLS = bytes((*range(32), 127))
TOKENS = st.text("abcXYZ09-_", min_size=1, max_size=8).map(lambda name: b"X-" + name.encode())
VALUES = st.binary(max_size=12).map(lambda value: value.translate(None, CONTROLS).strip())
FIELDS = st.lists(
    st.tuples(TOKENS, VALUES)
    | st.sampled_from(
        [
            (b"Connection", b"X-a, keep-alive"),
            (b"Keep-Alive", b"1"),
            (b"X-Forwarded-For", b"6.6.6.6"),
            (b"Cookie", b"a=b"),
        ]
    ),
    max_size=6,
)
BODIES = st.none() | st.binary(max_size=40) | st.lists(st.binary(min_size=1, max_size=9))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A well-formed request."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT"]))
    target = b"/" + draw(st.text("ab/%2e?&=.;", max_size=10)).encode()
    lines = b"".join(b"%b: %b\r\n" % field for field in draw(FIELDS))
    body = draw(BODIES)
    if isinstance(body, list):
        lines += b"Transfer-Encoding: chunked\r\n"
        sent = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in body) + b"0\r\n\r\n"
    elif body is not None:
        lines += b"Content-Length: %d\r\n" % len(body)
        sent = body
    else:
        sent = b""
    start = method + b" " + target + b" HTTP/1.1\r\nHost: h\r\nX-Request-Id: same\r\n"
    return start + lines + b"\r\n" + sent


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """A well-formed response to GET that does not last until its connection ends."""
    interim = draw(st.lists(st.sampled_from([100, 102, 103]), max_size=2))
    before = b"".join(b"HTTP/1.1 %d Soon\r\nX-A: 1\r\n\r\n" % one for one in interim)
    status = draw(st.sampled_from([200, 204, 304, 404, 500]))
    lines = b"".join(b"%b: %b\r\n" % field for field in draw(FIELDS))
    if status in {204, 304}:
        return before + b"HTTP/1.1 %d \r\n" % status + lines + b"\r\n"
    body = draw(BODIES)
    if isinstance(body, list):
        trailers = draw(st.sampled_from([b"", b"X-Sum: 1\r\n", b"X-Other: 1\r\nx-sum:\r\n"]))
        lines += b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n"
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in body)
        sent = chunks + b"0\r\n" + trailers + b"\r\n"
    else:
        sent = body or b""
        lines += b"Content-Length: %d\r\n" % len(sent)
    return before + b"HTTP/1.1 %d OK\r\n" % status + lines + b"\r\n" + sent


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[a:b] for a, b in pairwise(places)]


CUTS = st.lists(st.integers(0, 600), max_size=8)
bounded = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@bounded
@given(messages=st.lists(requests(), min_size=1, max_size=3), cuts=CUTS)
def test_the_upstream_sees_what_was_sent_however_requests_are_cut(
    log: Path, messages: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(messages)

    seen, answers = uvloop.run(send(log, pieces_of(data, cuts), len(messages)))

    assert whole.read_requests(b"".join(as_sent(*one) for one in seen)) == whole.read_requests(data)
    assert len(seen) == len(messages)
    assert {answer.status for answer in answers} == {200}


def as_sent(head: bytes, body: bytes) -> bytes:
    """Spell a request again, with its body in one chunk where it had chunks."""
    if b"chunked" not in head:
        return head + b"\r\n\r\n" + body
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return head + b"\r\n\r\n" + chunk + b"0\r\n\r\n"


@bounded
@given(response=responses(), cuts=CUTS)
def test_the_client_sees_what_was_sent_however_a_response_is_cut(
    log: Path, response: bytes, cuts: list[int]
) -> None:
    meant = whole.read_response(response, b"GET")
    assert meant is not None

    seen = whole.read_response(uvloop.run(fetch(log, pieces_of(response, cuts))), b"GET")

    assert seen is not None
    assert (seen.head.start, seen.head.fields) == (meant.head.start, meant.head.fields)
    assert [one.start for one in seen.interim] == [one.start for one in meant.interim]
    assert (seen.body, seen.trailers) == (meant.body, meant.passable_trailers())


async def fetch(log: Path, pieces: list[bytes]) -> bytes:
    """Return all that a client gets of a response that comes in pieces."""

    async def answer(_request: Received, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            for _ in range(3):
                await asyncio.sleep(0)

    async with chain(log, answer) as (proxy, _), proxy.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        return await client.rest()


async def send(
    log: Path, pieces: list[bytes], number: int
) -> tuple[list[tuple[bytes, bytes]], list[Answer]]:
    """Send pieces, each read by itself; return what the upstream and the client saw."""
    async with chain(log) as (proxy, upstream), proxy.client() as client:
        for piece in pieces:
            client.writer.write(piece)
            for _ in range(3):
                await asyncio.sleep(0)
        answers = [await client.answer() for _ in range(number)]
        return [(one.head, one.body) for one in upstream.received], answers
