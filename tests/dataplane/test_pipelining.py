"""Pipelined requests are answered in order, whatever becomes of each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Limits, Timeouts
from tests.support.clock import HandClock
from tests.support.messages import Feed
from tests.support.proxy import chain

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.upstream import Received

REFUSED = b"GET /refused HTTP/1.1\r\nHost: h\r\nX-Model-Version: v9\r\n\r\n"


def get(n: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n


async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
    """Answer with the target and the body."""
    body = request.target + request.body
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


@pytest.mark.parametrize("how", Feed)
async def test_answers_come_in_the_order_of_the_requests(log: Path, how: Feed) -> None:
    async with chain(log, echo) as (proxy, _), proxy.client() as client:
        await client.send(b"".join(get(n) for n in range(20)), how)
        bodies = [(await client.answer()).body for _ in range(20)]

    assert bodies == [b"/%d" % n for n in range(20)]


async def test_a_burst_larger_than_the_head_limit_is_served(log: Path) -> None:
    number = 3_000  # some 90 KiB: reads end in the middle of heads
    async with chain(log, echo) as (proxy, _), proxy.client() as client:
        burst = b"".join(get(n) for n in range(number))
        await client.send(burst[:-9])
        bodies = [(await client.answer()).body for _ in range(number - 1)]
        await client.send(burst[-9:])
        bodies.append((await client.answer()).body)

    assert bodies == [b"/%d" % n for n in range(number)]


async def test_a_head_that_begins_behind_a_large_body_is_not_too_large(log: Path) -> None:
    post = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 40000\r\n\r\n" + bytes(40_000)
    async with chain(log, echo) as (proxy, _), proxy.client() as client:
        await client.send(post + b"GET /b HT")
        first = await client.answer()
        await client.send(b"TP/1.1\r\nHost: h\r\n\r\n")
        second = await client.answer()

    assert len(first.body) == 40_002
    assert (second.status, second.body) == (200, b"/b")


@pytest.mark.parametrize("how", Feed)
async def test_a_refused_request_is_answered_in_its_turn(log: Path, how: Feed) -> None:
    async with chain(log, echo) as (proxy, _), proxy.client() as client:
        await client.send(get(1) + REFUSED + get(2) + REFUSED + REFUSED + get(3), how)
        answers = [await client.answer() for _ in range(6)]

    assert [one.status for one in answers] == [200, 404, 200, 404, 404, 200]
    assert [answers[n].body for n in (0, 2, 5)] == [b"/1", b"/2", b"/3"]


async def test_a_long_row_of_refused_requests_is_answered(log: Path) -> None:
    number = 2_000
    async with chain(log, echo) as (proxy, _), proxy.client() as client:
        await client.send(REFUSED * number + get(1))
        answers = [await client.answer() for _ in range(number + 1)]

    assert {one.status for one in answers[:-1]} == {404}
    assert answers[-1].body == b"/1"


@pytest.mark.parametrize("how", Feed)
async def test_bodies_between_pipelined_requests_go_to_their_own(log: Path, how: Feed) -> None:
    by_length = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nGET /"
    chunked = (
        b"POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    )
    async with chain(log, echo) as (proxy, _), proxy.client() as client:
        await client.send((by_length + chunked + get(1)) * 2, how)
        bodies = [(await client.answer()).body for _ in range(6)]

    assert bodies == [b"/aGET /", b"/babcdefg", b"/1"] * 2


async def test_a_body_that_spans_reads_behind_another_request_arrives_whole(log: Path) -> None:
    is_open = asyncio.Event()
    body = bytes(range(256)) * 8_000  # 2 MB: more than is held for a request that waits

    async def wait(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target == b"/1":
            await is_open.wait()
        await echo(request, writer)

    async with chain(log, wait) as (proxy, upstream), proxy.client() as client:
        sending = asyncio.ensure_future(
            client.send(
                get(1) + b"POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
                + body + get(3)
            )
        )  # fmt: skip
        await upstream.until(1)
        is_open.set()
        bodies = [(await client.answer()).body for _ in range(3)]
        await sending

    assert bodies == [b"/1", b"/2" + body, b"/3"]


async def test_a_malformed_request_behind_a_good_one_waits_for_its_answer(log: Path) -> None:
    is_open = asyncio.Event()

    async def wait(request: Received, writer: asyncio.StreamWriter) -> None:
        await is_open.wait()
        await echo(request, writer)

    async with chain(log, wait) as (proxy, upstream), proxy.client() as client:
        await client.send(get(1) + b"GET / HTTP/1.1\r\nHost h\r\n\r\n")
        await upstream.until(1)
        is_open.set()
        good, bad = await client.answer(), await client.answer()

        assert good.body == b"/1"
        assert (bad.code, bad.get(b"Connection")) == ("malformed-request", b"close")
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 100\r\n\r\n" + bytes(100),
        b"Transfer-Encoding: chunked\r\n\r\n64\r\n" + bytes(100) + b"\r\n0\r\n\r\n",
    ],
    ids=["by length", "chunked"],
)
async def test_a_body_over_the_limit_behind_another_request_waits_for_its_turn(
    log: Path, body: bytes
) -> None:
    is_open = asyncio.Event()

    async def wait(request: Received, writer: asyncio.StreamWriter) -> None:
        await is_open.wait()
        await echo(request, writer)

    async with (
        chain(log, wait, limits=Limits(body_bytes=50)) as (proxy, upstream),
        proxy.client() as client,
    ):
        await client.send(get(1) + b"POST /2 HTTP/1.1\r\nHost: h\r\n" + body)
        await upstream.until(1)
        is_open.set()
        good, bad = await client.answer(), await client.answer()

        assert (good.status, good.body) == (200, b"/1")
        assert (bad.status, bad.code) == (413, "body-too-large")
        assert [one.target for one in upstream.received] == [b"/1"]


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 100\r\n\r\n" + bytes(100),
        b"Transfer-Encoding: chunked\r\n\r\n64\r\n" + bytes(100) + b"\r\n0\r\n\r\n",
    ],
    ids=["by length", "chunked"],
)
async def test_what_follows_a_body_over_the_limit_is_served_if_the_connection_goes_on(
    log: Path, body: bytes
) -> None:
    async with (
        chain(log, echo, limits=Limits(body_bytes=50)) as (proxy, upstream),
        proxy.client() as client,
    ):
        await client.send(b"POST /1 HTTP/1.1\r\nHost: h\r\n" + body + get(2) + get(3))
        refused = await client.answer()

        assert refused.code == "body-too-large"
        if refused.get(b"Connection") == b"close":
            assert await client.rest() == b""
            assert upstream.received == []
        else:
            assert [(await client.answer()).body for _ in range(2)] == [b"/2", b"/3"]


async def test_a_waiting_request_has_the_whole_of_its_time(log: Path) -> None:
    pieces: asyncio.Queue[bytes] = asyncio.Queue()
    clock = HandClock()

    async def take_turns(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target == b"/1":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
            for _ in range(3):
                writer.write(await pieces.get())
        else:
            await pieces.get()
            await echo(request, writer)

    timeouts = Timeouts(first_byte_s=1.0, body_idle_s=1.0)
    async with (
        chain(log, take_turns, timeouts=timeouts, clock=clock) as (proxy, upstream),
        proxy.client() as client,
    ):
        await client.send(get(1) + get(2))
        await client.head()
        for _ in range(3):  # alive all the time, and longer than either timeout in all
            clock.advance(0.8)
            pieces.put_nowait(b"x")
            assert await client.exactly(1) == b"x"
        await upstream.until(2)
        clock.advance(0.8)
        await proxy.swept()
        pieces.put_nowait(b"")

        assert (await client.answer()).body == b"/2"


async def test_a_head_begun_behind_a_request_must_arrive_in_time_too(log: Path) -> None:
    async with (
        chain(log, echo, timeouts=Timeouts(head_s=0.2)) as (proxy, _),
        proxy.client() as client,
    ):
        await client.send(get(1) + b"GET / HT")
        await client.answer()
        late = await client.answer()

        assert late.code == "request-timeout"


async def test_a_request_that_waited_whole_has_the_time_of_the_first_byte(log: Path) -> None:
    async def answer_first(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target == b"/1":
            await echo(request, writer)

    timeouts = Timeouts(first_byte_s=0.2, body_idle_s=600.0)
    async with chain(log, answer_first, timeouts=timeouts) as (proxy, _), proxy.client() as client:
        await client.send(get(1) + get(2))
        first, second = await client.answer(), await client.answer()

    assert first.status == 200
    assert (second.status, second.code) == (504, "upstream-timeout")
