"""What is too large, too many or too slow is refused by name, and nothing else is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Limits, Timeouts
from tests.support.messages import Feed
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import eventually, never, scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.model.identity import JSON

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
SOON = Timeouts(head_s=0.2, body_idle_s=0.2, first_byte_s=0.2)
SMALL = Limits(head_bytes=1024, headers=10, body_bytes=100)


def head_of(size: int) -> bytes:
    """A head of so many bytes."""
    start, end = b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: ", b"\r\n\r\n"
    return start + b"x" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize("how", Feed)
async def test_a_head_within_its_size_is_served(log: Path, how: Feed) -> None:
    async with chain(log, limits=SMALL) as (proxy, _):
        assert (await proxy.ask(head_of(1024), how)).status == 200


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize(
    "request_",
    [
        head_of(1100),
        head_of(100_000),
        b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTE: " + b"t" * 1500 + b"\r\n\r\n",
    ],
    ids=["little over", "far over", "target", "a field that is not passed on"],
)
async def test_a_head_over_its_size_is_refused(log: Path, request_: bytes, how: Feed) -> None:
    if how is Feed.BYTE_BY_BYTE:
        request_ = request_[:3000]
    async with chain(log, limits=SMALL) as (proxy, upstream), proxy.client() as client:
        answer = await client.ask(request_, how)

        assert (answer.status, answer.code) == (431, "head-too-large")
        assert answer.get(b"Connection") == b"close"
        assert upstream.received == []


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize(("fields", "status"), [(9, 200), (10, 431), (50, 431)])
async def test_fields_are_counted(log: Path, fields: int, status: int, how: Feed) -> None:
    lines = b"".join(b"A: %d\r\n" % n for n in range(fields))
    async with chain(log, limits=SMALL) as (proxy, _):
        answer = await proxy.ask(b"GET / HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n", how)

        assert answer.status == status


async def test_trailers_without_end_are_cut_off(log: Path) -> None:
    async with chain(log, limits=SMALL) as (proxy, _), proxy.client() as client:
        await client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Endless: "
        )
        for _ in range(64):
            await client.send(b"x" * 1024)
        answer = await client.answer()

        assert answer.code in {"head-too-large", "malformed-request"}


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize(
    ("framed", "status"),
    [
        (b"Content-Length: 100\r\n\r\n" + bytes(100), 200),
        (b"Content-Length: 101\r\n\r\n" + bytes(101), 413),
        (b"Transfer-Encoding: chunked\r\n\r\n64\r\n" + bytes(100) + b"\r\n0\r\n\r\n", 200),
        (b"Transfer-Encoding: chunked\r\n\r\n65\r\n" + bytes(101) + b"\r\n0\r\n\r\n", 413),
        (b"Transfer-Encoding: chunked\r\n\r\n" + b"A\r\n0123456789\r\n" * 11 + b"0\r\n\r\n", 413),
    ],
    ids=["length within", "length over", "chunks within", "chunk over", "chunks over"],
)
async def test_bodies_are_measured(log: Path, framed: bytes, status: int, how: Feed) -> None:
    async with chain(log, limits=SMALL) as (proxy, upstream):
        answer = await proxy.ask(b"POST / HTTP/1.1\r\nHost: h\r\n" + framed, how)

        assert answer.status == status
        if status == 413:
            assert answer.code == "body-too-large"
            assert upstream.received == []  # none that is whole


async def test_a_length_over_the_limit_is_refused_before_its_body_comes(log: Path) -> None:
    async with chain(log, limits=SMALL) as (proxy, upstream), proxy.client() as client:
        answer = await client.ask(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n"
        )

        assert answer.code == "body-too-large"
        assert answer.get(b"Connection") == b"close"
        assert upstream.connections == 0


async def test_a_client_that_goes_on_sending_hears_why_it_was_refused(log: Path) -> None:
    async with chain(log, limits=SMALL) as (proxy, _), proxy.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90000000\r\n\r\n")
        for _ in range(20):
            await client.send(bytes(64 * 1024))
        answer = await client.answer()

        assert answer.code == "body-too-large"
        assert answer.get(b"Connection") == b"close"


async def test_connections_over_the_limit_are_told_so(log: Path) -> None:
    async with (
        chain(log, limits=Limits(connections=2)) as (proxy, _),
        proxy.client() as first,
        proxy.client() as second,
    ):
        await first.ask(GET)
        await second.ask(GET)
        async with proxy.client() as third:
            answer = await third.answer()
            rest = await third.rest()

        assert (answer.status, answer.code) == (503, "overloaded")
        assert answer.get(b"Retry-After") == b"1"
        assert rest == b""
        assert (await first.ask(GET)).status == 200
        assert proxy.counted("rmv_limits_hit_total", limit="connections") == 1


async def test_a_connection_that_was_turned_away_takes_no_place(log: Path) -> None:
    async with chain(log, limits=Limits(connections=1)) as (proxy, upstream):
        async with proxy.client() as first, proxy.client() as refused:
            await first.ask(GET)
            assert (await refused.answer()).code == "overloaded"
            first.close()
            await first.writer.wait_closed()
            # `refused` is still open at this end.
            async with proxy.client() as next_one:
                assert (await next_one.ask(GET)).status == 200

        assert len(upstream.received) == 2


async def test_a_slow_head_is_refused(log: Path) -> None:
    async with chain(log, timeouts=SOON) as (proxy, _), proxy.client() as client:
        await client.send(GET[:10])
        answer = await client.answer()

        assert (answer.status, answer.code) == (408, "request-timeout")
        assert answer.get(b"Connection") == b"close"
        assert await client.rest() == b""
        assert proxy.counted("rmv_timeouts_total", phase="head") == 1


async def test_a_head_that_trickles_is_refused_all_the_same(log: Path) -> None:
    async with chain(log, timeouts=SOON) as (proxy, _), proxy.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nX-A: ")
        trickle = asyncio.ensure_future(_trickle(client.writer))
        answer = await client.answer()
        trickle.cancel()

        assert answer.code == "request-timeout"


async def test_a_slow_body_is_refused(log: Path) -> None:
    async with chain(log, timeouts=SOON) as (proxy, upstream), proxy.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf")
        answer = await client.answer()

        assert (answer.status, answer.code) == (408, "request-timeout")
        assert answer.get(b"Connection") == b"close"
        await eventually(lambda: upstream.lost == 1)
        assert upstream.received == []


async def test_an_upstream_that_does_not_answer_is_given_up(log: Path) -> None:
    async with chain(log, never, timeouts=SOON) as (proxy, _), proxy.client() as client:
        answer = await client.ask(GET)

        assert (answer.status, answer.code) == (504, "upstream-timeout")
        assert answer.get(b"Connection") is None  # the client's is sound
        assert (await client.ask(GET)).status == 504
        assert proxy.counted("rmv_timeouts_total", phase="first-byte", version="v1") == 2


async def test_a_queued_request_to_an_upstream_that_does_not_answer_is_given_up(log: Path) -> None:
    async with chain(log, never, timeouts=SOON) as (proxy, _), proxy.client() as client:
        await client.send(GET + GET)

        assert (await client.answer()).code == "upstream-timeout"
        assert (await client.answer()).code == "upstream-timeout"


async def _trickle(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.02)


async def test_a_version_bounds_the_wait_for_its_first_byte_itself(log: Path) -> None:
    async with scripted_upstream(never) as upstream:
        hasty: JSON = {"endpoints": [upstream.url], "timeouts": {"first_byte_s": 0.1}}

        async with proxy(policy({"v1": hasty}), log) as running:
            answer = await running.ask(GET)

    assert (answer.status, answer.code) == (504, "upstream-timeout")
