"""What a client sees when an upstream fails: a problem, or a cut; never a clean end of a part."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Timeouts
from tests.support.messages import MALFORMED_CHUNKS, Feed, feed
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import (
    ANSWER,
    answering,
    eventually,
    never,
    receive,
    reset,
    scripted_upstream,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.upstream import Received

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"
LENGTH_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PARTS = {
    "by length": LENGTH_HEAD + b"part",
    "chunked, in a chunk": CHUNKED_HEAD + b"a\r\npart",
    "chunked, between chunks": CHUNKED_HEAD + b"4\r\npart\r\n",
    "chunked, before the last line": CHUNKED_HEAD + b"4\r\npart\r\n0\r\n",
}


@pytest.fixture
def dead_url() -> Iterator[str]:
    """An address that refuses connections for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def deaf_url() -> Iterator[str]:
    """An address that neither accepts nor refuses: its backlog is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)  # noqa: FBT003 -- the standard library's
            one.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}"
        for one in waiting:
            one.close()


@pytest.mark.parametrize("request_", [GET, POST])
async def test_a_refused_connection_is_a_502(log: Path, dead_url: str, request_: bytes) -> None:
    async with proxy(policy({"v1": dead_url}), log) as running, running.client() as client:
        answer = await client.ask(request_)

        assert (answer.status, answer.code) == (502, "upstream-failed")
        assert answer.get(b"Connection") is None  # the client's is sound
        assert (await client.ask(request_)).status == 502
        record = (await running.recorded(2))[0]
        assert (record["endpoint"], record["first_byte_s"]) == (dead_url, -1.0)
        assert running.counted("rmv_retries_total") == 0  # there is no other endpoint


@pytest.mark.parametrize("request_", [GET, POST])
async def test_a_second_endpoint_is_tried_when_the_first_refuses(
    log: Path, dead_url: str, request_: bytes
) -> None:
    async with scripted_upstream() as upstream:
        document = policy({"v1": {"endpoints": [dead_url, upstream.url]}})
        async with proxy(document, log) as running:
            answers = [await running.ask(request_) for _ in range(60)]

            assert [one.status for one in answers] == [200] * 60
            told = {"cause": "connect", "model": "m", "version": "v1"}
            retries = running.counted("rmv_retries_total", **told)
            assert retries == 5  # after so many it is ejected


async def test_a_connection_that_does_not_come_about_is_given_up(log: Path, deaf_url: str) -> None:
    async with proxy(policy({"v1": deaf_url}), log, timeouts=Timeouts(connect_s=0.2)) as running:
        answer = await running.ask(GET)

        assert (answer.status, answer.code) == (502, "upstream-failed")
        assert "0.2 s" in str(answer.problem["detail"])


@pytest.mark.parametrize("request_", [GET, POST])
@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_fresh_connection_lost_before_the_head_is_a_502_and_no_retry(
    log: Path, request_: bytes, begins: bytes, end: str
) -> None:
    async def fail(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(begins)
        await writer.drain()
        writer.close() if end == "close" else reset(writer)

    async with chain(log, fail) as (running, upstream):
        answer = await running.ask(request_)

        assert (answer.status, answer.code) == (502, "upstream-failed")
        assert len(upstream.received) == 1


class FailsWhenReused:
    """Answers the first request of the first connection; its second is lost by `end`."""

    def __init__(self, end: str, begins: bytes = b"") -> None:
        self.end = end
        self.begins = begins

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        if request.connection > 1 or request.target == b"/first":
            writer.write(ANSWER)
            return
        writer.write(self.begins)
        await writer.drain()
        writer.close() if self.end == "close" else reset(writer)


FIRST = b"GET /first HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE"])
async def test_a_safe_request_on_a_reused_connection_is_sent_once_more(
    log: Path, method: bytes, end: str
) -> None:
    async with chain(log, FailsWhenReused(end)) as (running, upstream), running.client() as client:
        await client.ask(FIRST)
        answer = await client.ask(method + b" / HTTP/1.1\r\nHost: h\r\n\r\n")

        assert answer.status == 200
        assert [one.connection for one in upstream.received] == [1, 1, 2]
        assert upstream.received[1].head == upstream.received[2].head
        assert running.counted("rmv_retries_total", cause="reset") == 1


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_body_is_sent_once_more_with_its_request(log: Path, end: str) -> None:
    async with chain(log, FailsWhenReused(end)) as (running, upstream), running.client() as client:
        await client.ask(FIRST)
        answer = await client.ask(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")

        assert answer.status == 200
        assert [one.body for one in upstream.received] == [b"", b"abc", b"abc"]


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
async def test_what_may_have_had_an_effect_is_never_sent_twice(
    log: Path, method: bytes, end: str
) -> None:
    async with chain(log, FailsWhenReused(end)) as (running, upstream), running.client() as client:
        await client.ask(FIRST)
        answer = await client.ask(method + b" / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")

        assert (answer.status, answer.code) == (502, "upstream-failed")
        assert len(upstream.received) == 2


async def test_a_request_is_sent_twice_at_most(log: Path) -> None:
    async def fail(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target == b"/first":
            writer.write(ANSWER)
        else:
            writer.close()

    async with chain(log, fail) as (running, upstream), running.client() as client:
        await client.ask(FIRST)
        answer = await client.ask(GET)

        assert answer.code == "upstream-failed"
        assert len(upstream.received) == 3


async def test_a_request_is_sent_twice_at_most_however_many_connections_are_idle(log: Path) -> None:
    is_busy = asyncio.Event()

    async def fail(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target != b"/first":
            writer.close()
            return
        await is_busy.wait()
        writer.write(ANSWER)

    async with chain(log, fail) as (running, upstream), running.client() as client:
        warming = [asyncio.ensure_future(running.ask(FIRST)) for _ in range(4)]
        await upstream.until(4)
        is_busy.set()
        await asyncio.gather(*warming)
        answer = await client.ask(GET)

        assert answer.code == "upstream-failed"
        assert len(upstream.received) == 4 + 2
        assert running.counted("rmv_retries_total", cause="reset", version="v1") == 1


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
async def test_a_response_lost_half_way_is_never_ended_cleanly(
    log: Path, part: bytes, end: str, how: Feed
) -> None:
    is_seen = asyncio.Event()

    async def fail(_request: Received, writer: asyncio.StreamWriter) -> None:
        await answering(part, how)(_request, writer)
        await is_seen.wait()
        writer.close() if end == "close" else reset(writer)

    async with chain(log, fail) as (running, _), running.client() as client:
        await client.send(GET)
        await client.head()
        await client.until(b"t")  # of `part`, which may come in chunks of its own
        is_seen.set()

        assert await client.reset()
        record = (await running.recorded())[0]
        assert (record["status"], record["code"]) == (200, "upstream-failed")


async def test_a_reset_in_a_body_until_close_is_not_its_end(log: Path) -> None:
    is_seen = asyncio.Event()

    async def fail(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\npart")
        await is_seen.wait()
        reset(writer)

    async with chain(log, fail) as (running, _), running.client() as client:
        await client.send(GET)
        await client.until(b"part")
        is_seen.set()

        assert await client.reset()
        assert (await running.recorded())[0]["code"] == "upstream-failed"


async def test_a_response_lost_while_the_request_still_comes_cuts_the_client_off(
    log: Path,
) -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(LENGTH_HEAD + b"part")
        await reader.readexactly(4)
        reset(writer)

    async with (
        scripted_upstream(conversation=conversation) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n")
        await client.until(b"part")
        await client.send(b"more")

        assert await client.reset()
        assert (await running.recorded())[0]["code"] == "upstream-failed"


MALFORMED = {
    "no HTTP": b"hello\r\n\r\n",
    "another version": b"HTTP/3.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked"
    b"\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks and length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2"
    b"\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "a length of no digits": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
    "an empty length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nX-A: \x00\r\nContent-Length: 2\r\n\r\nok",
    "a bare CR": b"HTTP/1.1 200 OK\r\nX-A: 1\r2\r\nContent-Length: 2\r\n\r\nok",
    "a bare LF": b"HTTP/1.1 200 OK\r\nX-A: 1\nX-B: 2\r\nContent-Length: 2\r\n\r\nok",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "no colon": b"HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 2\r\n\r\nok",
    "the same length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "a length with a gap": b"HTTP/1.1 200 OK\r\nContent-Length: 2 2\r\n\r\nok",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "a length past 64 bits": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
    "identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
    "HTTP/1.0 with chunks": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "NUL in a name": b"HTTP/1.1 200 OK\r\nX\0A: 1\r\nContent-Length: 2\r\n\r\nok",
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok",
    "a bare CR in the reason": b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok",
    "a bare LF after the status line": b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
    "a bare LF at the end": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
    "a bare CR at the end of a line": b"HTTP/1.1 200 OK\r\nX-A: 1\r\r\nContent-Length: 2\r\n\r\nok",
    "a control character": b"HTTP/1.1 200 OK\r\nX-A: \x01\r\nContent-Length: 2\r\n\r\nok",
    "DEL": b"HTTP/1.1 200 OK\r\nX-A: \x7f\r\nContent-Length: 2\r\n\r\nok",
    "space in a name": b"HTTP/1.1 200 OK\r\nX A: 1\r\nContent-Length: 2\r\n\r\nok",
    "no name": b"HTTP/1.1 200 OK\r\n: 1\r\nContent-Length: 2\r\n\r\nok",
    "a line before the status line": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a malformed interim head": b"HTTP/1.1 103 Early\r\nX A: 1\r\n\r\n" + ANSWER,
    "HTTP/2": b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64",
    "switched protocols unasked": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\n\r\nframes",
    "101 without an upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
}


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize("response", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_head_is_a_502(log: Path, response: bytes, how: Feed) -> None:
    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        await answering(response if request.connection == 1 else ANSWER, how)(request, writer)

    soon = Timeouts(first_byte_s=3, body_idle_s=3)  # a hang is told apart by its code
    async with chain(log, answer, timeouts=soon) as (running, _), running.client() as client:
        bad = await client.ask(GET)
        good = await client.ask(GET)

        assert (bad.status, bad.code) == (502, "upstream-failed"), bad.body
        assert (good.status, good.body) == (200, b"ok")


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize("chunks", MALFORMED_CHUNKS.values(), ids=MALFORMED_CHUNKS.keys())
async def test_malformed_chunks_cut_the_client_off(log: Path, chunks: bytes, how: Feed) -> None:
    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.connection > 1:
            writer.write(ANSWER)
            return
        writer.write(CHUNKED_HEAD)
        await begun.wait()
        await feed(writer, chunks, how, b"")

    begun = asyncio.Event()
    async with chain(log, answer) as (running, _), running.client() as client:
        await client.send(GET)
        await client.head()
        begun.set()

        assert await client.reset()
        assert (await running.recorded())[0]["code"] == "upstream-failed"
        assert (await running.ask(GET)).body == b"ok"  # on another connection


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_a_502_says_nothing_that_the_upstream_said(log: Path, how: Feed) -> None:
    lines = b"X-A: evil\r\nX evil: 1\r\nContent-Length: evil\r\n"
    response = b"HTTP/1.1 200 evil\r\n" + lines + b"\r\nevil"
    async with chain(log, answering(response, how)) as (running, _), running.client() as client:
        answer = await client.ask(GET)

        assert (answer.status, answer.code) == (502, "upstream-failed")
        assert b"evil" not in b"".join((answer.line, answer.body, *sum(answer.fields, ())))


async def test_an_upstream_that_leaves_after_an_interim_response_is_a_502(log: Path) -> None:
    response = b"HTTP/1.1 100 Continue\r\n\r\n"
    async with (
        chain(log, answering(response, closes=True)) as (running, _),
        running.client() as client,
    ):
        await client.send(GET)
        assert await client.head() == b"HTTP/1.1 100 Continue"
        answer = await client.answer()

        assert (answer.status, answer.code) == (502, "upstream-failed")


@pytest.mark.parametrize("part", [*PARTS.values(), b"HTTP/1.1 200 OK\r\n\r\npart"])
async def test_a_response_that_stops_half_way_is_cut_off_in_time(log: Path, part: bytes) -> None:
    async def stop(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(part)
        await never(_request, writer)

    async with (
        chain(log, stop, timeouts=Timeouts(body_idle_s=0.2)) as (running, upstream),
        running.client() as client,
    ):
        await client.send(GET)
        await client.until(b"part")

        assert await client.reset()
        record = (await running.recorded())[0]
        assert (record["status"], record["code"]) == (200, "upstream-timeout")
        assert running.counted("rmv_timeouts_total", phase="body", version="v1") == 1
        assert upstream.connections == 1


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("begins", [b"", LENGTH_HEAD + b"part"], ids=["head", "body"])
async def test_a_client_that_leaves_takes_its_upstream_connection_along(
    log: Path, begins: bytes, end: str
) -> None:
    is_asked, is_gone = asyncio.Event(), asyncio.Event()

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receive(reader)
        writer.write(begins)
        is_asked.set()
        await reader.read()
        is_gone.set()

    async with (
        scripted_upstream(conversation=conversation) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
    ):
        async with running.client() as client:
            await client.send(GET)
            await is_asked.wait()
            if begins:
                await client.until(b"part")
            client.close() if end == "close" else reset(client.writer)

            await eventually(is_gone.is_set)
        record = (await running.recorded())[0]
        assert record["code"] == "client-gone"
        assert record["status"] == (200 if begins else 499)


async def test_a_client_that_leaves_before_there_is_a_connection_is_recorded(
    log: Path, deaf_url: str
) -> None:
    async with proxy(policy({"v1": deaf_url}), log) as running:
        async with running.client() as client:
            await client.send(GET)
            await eventually(lambda: running.counted("rmv_connections_total") == 1)

        assert (await running.recorded())[0]["code"] == "client-gone"
