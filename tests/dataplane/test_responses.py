"""What a client sees of a response: as the upstream sent it, but for what a proxy must change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Timeouts
from tests.support.clock import HandClock
from tests.support.messages import Feed, feed
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import ANSWER, answering, receive, scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.messages import Answer
    from tests.support.upstream import Received

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"
EXPECTING = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
ADDED = {b"X-Model-Version", b"X-Model-Decision", b"X-Request-Id"}


async def fetch(log: Path, response: bytes, how: Feed = Feed.WHOLE, request: bytes = GET) -> Answer:
    """Return what a client sees of a response of the upstream."""
    async with chain(log, answering(response, how)) as (proxy, _):
        return await proxy.ask(request)


def end_to_end(answer: Answer) -> list[tuple[bytes, bytes]]:
    """What the sidecar did not add itself."""
    return [(name, value) for name, value in answer.fields if name not in ADDED]


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize(
    "line",
    [
        b"200 OK",
        b"201 Created",
        b"207 Multi  Status",
        b"299 ",
        b"302 Found",
        b"404 Not Found",
        b"418 I'm a teapot",
        b"429 Trop de requ\xc3\xaates",
        b"500 Internal Server Error",
        b"599 \tOdd",
    ],
)
async def test_status_and_reason_arrive_as_sent(log: Path, line: bytes, how: Feed) -> None:
    answer = await fetch(log, b"HTTP/1.1 " + line + b"\r\nContent-Length: 2\r\n\r\nok", how)

    assert answer.line == b"HTTP/1.1 " + line
    assert answer.body == b"ok"


async def test_a_status_line_may_end_after_its_code(log: Path) -> None:
    answer = await fetch(log, b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok")

    assert answer.line == b"HTTP/1.1 200 "


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_header_lines_keep_order_case_repeats_and_bytes(log: Path, how: Feed) -> None:
    answer = await fetch(
        log,
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\ncontent-LENGTH: 2\r\nset-cookie: b=2\r\n"
        b"X-Empty:\r\nX-Bytes: \xff\x80\r\nSet-Cookie: a=1\r\nServer: s\r\n\r\nok",
        how,
    )

    assert end_to_end(answer) == [
        (b"Set-Cookie", b"a=1"),
        (b"content-LENGTH", b"2"),
        (b"set-cookie", b"b=2"),
        (b"X-Empty", b""),
        (b"X-Bytes", b"\xff\x80"),
        (b"Set-Cookie", b"a=1"),
        (b"Server", b"s"),
    ]


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_hop_by_hop_fields_end_at_the_sidecar(log: Path, how: Feed) -> None:
    answer = await fetch(
        log,
        b"HTTP/1.1 200 OK\r\nX-Named: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n"
        b"Connection: x-named, content-length\r\nProxy-Connection: x\r\nX-Kept: 1\r\n\r\nok",
        how,
    )

    assert end_to_end(answer) == [(b"Content-Length", b"2"), (b"X-Kept", b"1")]


async def test_the_upstream_cannot_say_what_the_sidecar_says(log: Path) -> None:
    answer = await fetch(
        log,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-model-version: evil\r\n"
        b"X-Model-Decision: evil\r\nX-REQUEST-ID: evil\r\n\r\nok",
        request=b"GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\n\r\n",
    )

    assert answer.get(b"X-Model-Version") == b"v1"
    assert answer.get(b"X-Model-Decision") == b"DEFAULT"
    assert answer.get(b"X-Request-Id") == b"mine"


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize("size", [0, 1, 100])
async def test_a_small_body_by_length_arrives_exactly(log: Path, size: int, how: Feed) -> None:
    body = bytes(range(256))[:size]

    answer = await fetch(log, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body, how)

    assert answer.body == body
    assert answer.get(b"Content-Length") == b"%d" % size


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize(
    ("chunks", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"1\r\nx\r\n0\r\n\r\n", b"x"),
        (b"5;a=b\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Trailer: t\r\n\r\n", b"hello0123456789"),
        (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    ],
)
async def test_a_small_chunked_body_arrives_exactly(
    log: Path, chunks: bytes, body: bytes, how: Feed
) -> None:
    answer = await fetch(
        log, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, how
    )

    assert answer.body == body
    assert answer.get(b"Transfer-Encoding") == b"chunked"
    assert answer.get(b"Content-Length") is None


@pytest.mark.parametrize("size", [64 * 1024, 1024 * 1024 + 3, 5_000_000])
@pytest.mark.parametrize("framing", ["by length", "chunked", "until close"])
async def test_a_large_body_arrives_exactly(log: Path, size: int, framing: str) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    head, sent = b"", body
    if framing == "by length":
        head = b"Content-Length: %d\r\n" % size
    elif framing == "chunked":
        pieces = [body[at : at + 70_001] for at in range(0, size, 70_001)]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        head = b"Transfer-Encoding: chunked\r\n"
    response = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + sent

    async with chain(log, answering(response, closes=framing == "until close")) as (proxy, _):
        answer = await proxy.ask(GET)

    assert answer.body == body


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_a_body_until_close_arrives_whole_and_ends_the_connection(
    log: Path, how: Feed
) -> None:
    response = b"HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nthe body"

    async with chain(log, answering(response, how, closes=True)) as (proxy, _):
        answer = await proxy.ask(GET)  # reads to the end: no length, no chunks

        assert answer.body == b"the body"
        assert answer.get(b"Connection") == b"close"
        assert answer.get(b"Transfer-Encoding") is None
        assert (await proxy.recorded())[0]["code"] == ""


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (GET, b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"),
        (GET, b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n"),
        (GET, b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
        (HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
        (HEAD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (HEAD, b"HTTP/1.1 200 OK\r\n\r\n"),
        (HEAD, b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n"),
    ],
)
async def test_a_response_without_a_body_is_followed_by_the_next(
    log: Path, request_: bytes, response: bytes, how: Feed
) -> None:
    async with chain(log, answering(response, how)) as (proxy, upstream), proxy.client() as client:
        await client.send(request_)
        first = await client.answer(b"HEAD")
        upstream.script = ANSWER
        second = await client.ask(GET)

    assert first.line == response.split(b"\r\n")[0]
    assert first.get(b"Content-Length") == {500: b"500", 5: b"5", 9: b"9"}.get(
        int(first.get(b"Content-Length") or b"0")
    )
    assert (second.status, second.body) == (200, b"ok")


async def test_head_is_told_of_the_chunks_that_get_would_have(log: Path) -> None:
    """RFC 9110 section 9.3.2."""
    async with (
        chain(log, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") as (proxy, _),
        proxy.client() as client,
    ):
        await client.send(HEAD)
        answer = await client.answer(b"HEAD")

    assert answer.get(b"Transfer-Encoding") == b"chunked"
    assert answer.get(b"Content-Length") is None


async def test_a_204_is_not_said_to_be_chunked(log: Path) -> None:
    """RFC 9112 section 6.1."""
    answer = await fetch(log, b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n")

    assert answer.get(b"Transfer-Encoding") is None


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_interim_responses_are_passed_on(log: Path, how: Feed) -> None:
    response = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n" + ANSWER
    )

    async with chain(log, answering(response, how)) as (proxy, _), proxy.client() as client:
        await client.send(GET)

        assert await client.head() == b"HTTP/1.1 100 Continue"
        assert await client.head() == b"HTTP/1.1 102 Processing"
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>"
        assert await client.head() == hints
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.get(b"Link") is None
        assert (await proxy.recorded())[0]["status"] == 200


async def test_an_answer_has_its_time_anew_after_an_interim_response(log: Path) -> None:
    clock, is_there = HandClock(), asyncio.Event()

    async def work(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        await is_there.wait()
        writer.write(ANSWER)

    timeouts = Timeouts(first_byte_s=60.0, body_idle_s=5.0)
    async with (
        chain(log, work, timeouts=timeouts, clock=clock) as (proxy, _),
        proxy.client() as client,
    ):
        await client.send(GET)
        await client.head()
        clock.advance(59.0)  # far more than between two pieces of a body
        await proxy.swept()
        is_there.set()
        assert (await client.answer()).status == 200

        is_there.clear()
        await client.send(GET)
        await client.head()
        clock.advance(61.0)
        late = await client.answer()

        assert (late.status, late.code) == (504, "upstream-timeout")
        assert proxy.counted("rmv_timeouts_total", phase="first-byte", version="v1") == 1


async def test_http_1_0_is_told_no_interim_response(log: Path) -> None:
    response = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ANSWER

    answer = await fetch(log, response, request=b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")

    assert answer.status == 200


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_continue_and_the_body_that_waited_for_it_travel_end_to_end(
    log: Path, how: Feed
) -> None:
    async def expecting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nExpect: 100-continue\r\n" in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(4)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body)
        await receive(reader)

    async with (
        scripted_upstream(conversation=expecting) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        await client.send(EXPECTING, how)
        assert await client.head() == b"HTTP/1.1 100 Continue"
        await client.send(b"body", how)
        answer = await client.answer()

    assert (answer.status, answer.body) == (200, b"body")


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_an_expectation_that_fails_is_answered_without_the_body(log: Path, how: Feed) -> None:
    async def failing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        failed = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno"
        await feed(writer, failed, how, b"")
        await reader.read()

    async with (
        scripted_upstream(conversation=failing) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        await client.send(EXPECTING, how)
        answer = await client.answer()

        assert (answer.line, answer.body) == (b"HTTP/1.1 417 Expectation Failed", b"no")
        assert answer.get(b"Connection") == b"close"  # the body may come, or not
        assert await client.rest() == b""


EVENTS = {
    "chunked": (b"Transfer-Encoding: chunked\r\n", b"9\r\ndata: %d\n\n\r\n", b"0\r\n\r\n"),
    "by length": (b"Content-Length: 18\r\n", b"data: %d\n\n", b""),
    "until close": (b"", b"data: %d\n\n", b""),
}


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize(("framing", "event", "end"), EVENTS.values(), ids=EVENTS.keys())
async def test_an_event_arrives_before_the_response_ends(
    log: Path, framing: bytes, event: bytes, end: bytes, how: Feed
) -> None:
    is_seen = asyncio.Event()

    async def stream(_request: Received, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + framing + b"\r\n"
        await feed(writer, head + event % 1, how, b"")
        await is_seen.wait()
        await feed(writer, event % 2 + end, how, b"")
        writer.close()

    async with chain(log, stream) as (proxy, _), proxy.client() as client:
        await client.send(GET)
        await client.head()
        await client.until(b"1")
        is_seen.set()
        await client.until(b"2")


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_a_long_poll_is_answered_as_soon_as_there_is_an_answer(log: Path, how: Feed) -> None:
    clock, is_there = HandClock(), asyncio.Event()

    async def poll(_request: Received, writer: asyncio.StreamWriter) -> None:
        await is_there.wait()
        await feed(writer, ANSWER, how, b"")

    async with (
        chain(log, poll, timeouts=Timeouts(first_byte_s=60.0), clock=clock) as (proxy, upstream),
        proxy.client() as client,
    ):
        await client.send(GET)
        await upstream.until(1)
        clock.advance(59.0)
        await proxy.swept()
        is_there.set()

        assert (await client.answer()).body == b"ok"
