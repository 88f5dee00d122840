"""How long client and upstream connections live, and what each carries."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Limits, Timeouts
from tests.support.clock import HandClock
from tests.support.messages import Feed
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import ANSWER, answering, eventually, receive, scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.upstream import Received

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OLD_GET = b"GET / HTTP/1.0\r\nHost: h\r\n\r\n"
OLD_KEPT = b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n"


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_requests_follow_each_other_on_one_connection(log: Path, how: Feed) -> None:
    async with chain(log) as (proxy, upstream), proxy.client() as client:
        for n in range(3):
            answer = await client.ask(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n, how)
            assert (answer.status, answer.get(b"Connection")) == (200, None)

        assert [one.target for one in upstream.received] == [b"/0", b"/1", b"/2"]


async def test_every_idle_client_is_let_go_when_its_time_is_over(log: Path) -> None:
    clock = HandClock()
    async with chain(log, clock=clock) as (proxy, _), contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(proxy.client()) for _ in range(9)]
        await eventually(lambda: proxy.counted("rmv_connections_total") == 9)
        clock.advance(76.0)
        await proxy.swept()

        assert [await client.rest() for client in clients] == [b""] * 9


@pytest.mark.parametrize("connection", [b"close", b"Close", b"x, close", b"close, x"])
async def test_a_client_that_asks_to_close_is_closed(log: Path, connection: bytes) -> None:
    async with chain(log) as (proxy, _), proxy.client() as client:
        answer = await client.ask(
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: %b\r\n\r\n" % connection
        )

        assert answer.get(b"Connection") == b"close"
        assert await client.rest() == b""


async def test_what_follows_a_request_to_close_is_not_served(log: Path) -> None:
    async with chain(log) as (proxy, upstream), proxy.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + GET)
        await client.answer()

        assert await client.rest() == b""
        assert len(upstream.received) == 1


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_http_1_0_is_answered_and_closed(log: Path, how: Feed) -> None:
    async with chain(log) as (proxy, upstream), proxy.client() as client:
        answer = await client.ask(OLD_GET, how)

        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.get(b"Connection") == b"close"
        assert await client.rest() == b""
        assert upstream.received[0].line == b"GET / HTTP/1.1"


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_http_1_0_is_kept_when_it_asks(log: Path, how: Feed) -> None:
    async with chain(log) as (proxy, _), proxy.client() as client:
        first = await client.ask(OLD_KEPT, how)
        second = await client.ask(OLD_KEPT, how)

    assert first.get(b"Connection") == b"keep-alive"
    assert (second.status, second.body) == (200, b"ok")


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize("request_", [OLD_GET, OLD_KEPT])
async def test_http_1_0_gets_no_chunks(log: Path, request_: bytes, how: Feed) -> None:
    async with chain(log, answering(CHUNKED, how)) as (proxy, _), proxy.client() as client:
        answer = await client.ask(request_, how)

        assert answer.get(b"Transfer-Encoding") is None
        assert answer.get(b"Connection") == b"close"
        assert answer.body == b"ok!"


async def test_http_1_0_without_host_is_passed_on_with_one(log: Path) -> None:
    """RFC 9112 section 3.2: an HTTP/1.1 request has a Host, whatever the client said."""
    async with chain(log) as (proxy, upstream):
        answer = await proxy.ask(b"GET / HTTP/1.0\r\n\r\n")

        assert answer.status == 200
        assert upstream.received[0].get(b"Host") == upstream.url.removeprefix("http://").encode()


async def test_a_refusal_keeps_an_http_1_0_connection_that_asked_for_it(log: Path) -> None:
    async with chain(log) as (proxy, _), proxy.client() as client:
        refused = await client.ask(OLD_KEPT[:-2] + b"X-Model-Version: v9\r\n\r\n")
        served = await client.ask(OLD_KEPT)

    assert (refused.code, refused.get(b"Connection")) == ("no-such-version", b"keep-alive")
    assert served.status == 200


async def test_one_upstream_connection_serves_one_client_after_the_other(log: Path) -> None:
    async with chain(log) as (proxy, upstream):
        for _ in range(5):
            await proxy.ask(GET)

        assert upstream.connections == 1


async def test_requests_at_the_same_time_have_a_connection_each(log: Path) -> None:
    is_open = asyncio.Event()

    async def wait(_request: Received, writer: asyncio.StreamWriter) -> None:
        await is_open.wait()
        writer.write(ANSWER)

    async with chain(log, wait) as (proxy, upstream):
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(proxy.ask(GET))
            await upstream.until(4)
            is_open.set()

        assert upstream.connections == 4
        await proxy.ask(GET)
        assert upstream.connections == 4


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\n\r\nsurplus",
    ],
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(
    log: Path, response: bytes
) -> None:
    async with chain(log, response) as (proxy, upstream), proxy.client() as client:
        for _ in range(2):
            answer = await client.ask(GET)
            assert answer.status in {200, 204}
            assert answer.body in {b"ok", b""}
            assert answer.get(b"Connection") is None  # the client's is sound

        assert upstream.connections == 2


@pytest.mark.parametrize(
    "response",
    [
        ANSWER + b"surplus",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nsurplus",
        ANSWER + ANSWER,
        ANSWER + b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nsurplus",
    ],
)
async def test_bytes_after_a_response_spoil_it(log: Path, response: bytes) -> None:
    async with chain(log, response) as (proxy, upstream), proxy.client() as client:
        for _ in range(2):
            answer = await client.ask(GET)
            assert (answer.status, answer.code) == (502, "upstream-failed")

        assert upstream.connections == 2


async def test_a_body_after_a_response_to_head_is_not_taken_for_a_response(log: Path) -> None:
    async with chain(log, ANSWER) as (proxy, upstream), proxy.client() as client:
        first = await client.ask(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        second = await client.ask(GET)

        assert (first.status, first.body) == (200, b"")
        assert (second.status, second.body) == (200, b"ok")
        assert upstream.connections == 2


async def test_bytes_on_an_idle_connection_end_it(log: Path) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def answer(_request: Received, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(ANSWER)

    async with chain(log, answer) as (proxy, upstream), proxy.client() as client:
        await client.ask(GET)
        writers[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked")
        await eventually(lambda: upstream.lost == 1)
        served = await client.ask(GET)

        assert served.body == b"ok"
        assert upstream.connections == 2


async def test_an_idle_connection_that_the_upstream_closes_is_forgotten(log: Path) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receive(reader)
        writer.write(ANSWER)
        writers.append(writer)
        assert await reader.read() == b""
        writer.close()

    async with (
        scripted_upstream(conversation=conversation) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        for _ in range(2):
            assert (await client.ask(b"POST / HTTP/1.1\r\nHost: h\r\n\r\n")).status == 200
            writers[-1].write_eof()
            await eventually(writers[-1].is_closing)

        assert upstream.connections == 2


async def test_no_more_connections_are_kept_than_may_be_idle(log: Path) -> None:
    async with chain(log, limits=Limits(idle_upstreams=0)) as (proxy, upstream):
        for _ in range(2):
            await proxy.ask(GET)

        assert upstream.connections == 2


async def test_an_upstream_connection_idle_for_too_long_is_closed(log: Path) -> None:
    timeouts = Timeouts(upstream_idle_s=0.1)
    async with chain(log, timeouts=timeouts) as (proxy, upstream):
        await proxy.ask(GET)
        await eventually(lambda: upstream.lost == 1)
        await proxy.ask(GET)

        assert upstream.connections == 2


async def test_a_client_that_is_idle_for_too_long_is_closed_without_a_word(log: Path) -> None:
    async with chain(log, timeouts=Timeouts(idle_s=0.2)) as (proxy, _), proxy.client() as client:
        await client.ask(GET)

        assert await client.rest() == b""


async def test_empty_lines_are_no_sign_of_life(log: Path) -> None:
    clock = HandClock()
    async with chain(log, clock=clock) as (proxy, _), proxy.client() as client:
        await client.ask(GET)
        clock.advance(50.0)
        await client.send(b"\r\n")
        await proxy.swept()
        clock.advance(30.0)
        await proxy.swept()

        assert await client.rest() == b""
        assert proxy.counted("rmv_timeouts_total", phase="idle") == 1


async def test_a_client_that_never_asks_is_closed_without_a_word(log: Path) -> None:
    async with chain(log, timeouts=Timeouts(idle_s=0.2)) as (proxy, _), proxy.client() as client:
        assert await client.rest() == b""
        assert proxy.records() == []


async def test_a_response_before_the_request_is_whole_is_passed_on_and_ends_the_connection(
    log: Path,
) -> None:
    early = b"HTTP/1.1 413 Too much\r\nContent-Length: 4\r\n\r\nstop"

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(early)
        await reader.read()

    async with (
        scripted_upstream(conversation=conversation) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nbeginning")
        answer = await client.answer()

        assert (answer.status, answer.body) == (413, b"stop")
        assert answer.get(b"Connection") == b"close"
        assert await client.rest() == b""
        record = (await running.recorded())[0]
        assert (record["status"], record["code"]) == (413, "")


async def test_a_request_answered_before_its_body_is_read_leaves_the_client_connection_usable(
    log: Path,
) -> None:
    body = bytes(240 * 1024)  # one read of the sidecar, more than the upstream's socket takes

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(ANSWER)
        await asyncio.Event().wait()

    async with (
        scripted_upstream(conversation=conversation) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        for _ in range(3):
            answer = await client.ask(
                b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            assert answer.body == b"ok"
            if answer.get(b"Connection") == b"close":
                return
        assert upstream.connections == 3  # what holds an unread body is not used again
