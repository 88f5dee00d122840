"""However the bytes of requests are cut into reads, the upstream sees the same."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.proxy import chain

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.messages import Answer

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


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    messages=st.lists(requests(), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 600), max_size=8),
)
def test_the_upstream_sees_the_same_however_requests_are_cut(
    log: Path, messages: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(messages)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in pairwise(places)]

    whole = uvloop.run(send(log, [data], len(messages)))
    cut = uvloop.run(send(log, pieces, len(messages)))

    assert cut == whole
    assert len(whole[0]) == len(messages)
    assert {answer.status for answer in whole[1]} == {200}


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
