"""Bodies that come in large reads arrive byte for byte, whoever else sends at the same time."""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Timeouts
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import eventually, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.upstream import Received

CLIENTS = 12
SIZES = (16 * 1024 - 1, 64 * 1024, 131_072, 600_000)  # around what is handed on uncopied
RANDOM = random.Random(7)  # noqa: S311 -- bytes that differ, no secrets


async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
    """Answer with the body in one write, and let others run first."""
    await asyncio.sleep(0.01)
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body) + request.body
    )


def whole(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes) -> bytes:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def bodies() -> Iterator[bytes]:
    for size in SIZES:
        yield RANDOM.randbytes(size)


@pytest.mark.parametrize("spelled", [whole, chunked])
async def test_large_bodies_of_many_clients_do_not_mix(
    log: Path, spelled: Callable[[bytes], bytes]
) -> None:
    async with chain(log, echo) as (proxy, _):

        async def exchange() -> None:
            async with proxy.client() as client:
                for body in bodies():
                    assert (await client.ask(spelled(body))).body == body

        await asyncio.gather(*(exchange() for _ in range(CLIENTS)))


@pytest.mark.parametrize("size", [600_000, 800_000, 2_000_000, 5_000_001])
async def test_what_follows_a_long_body_is_the_next_request(log: Path, size: int) -> None:
    async with chain(log, echo) as (proxy, _), proxy.client() as client:
        body = RANDOM.randbytes(size)
        await client.send(whole(body) + whole(b"next") + whole(body))
        assert (await client.answer()).body == body
        assert (await client.answer()).body == b"next"
        assert (await client.answer()).body == body


async def test_long_bodies_to_upstreams_that_take_them_at_times_do_not_mix(log: Path) -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split()[0])
        taken = hashlib.sha256()
        while size:
            await asyncio.sleep(0.002)
            data = await reader.read(100_000)
            taken.update(data)
            size -= len(data)
        answer = taken.hexdigest().encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))

    async with scripted_upstream(conversation=slowly) as upstream:
        document = policy({"v1": upstream.url})
        async with proxy(document, log) as running:
            sent = [RANDOM.randbytes(6_000_000) for _ in range(4)]
            answers = await asyncio.gather(*(running.ask(whole(body)) for body in sent))
            assert [answer.body.decode() for answer in answers] == [
                hashlib.sha256(body).hexdigest() for body in sent
            ]


async def test_a_client_that_leaves_within_a_long_body_takes_its_request_along(log: Path) -> None:
    async with chain(log, echo) as (proxy, upstream):
        async with proxy.client() as client:
            await client.send(whole(bytes(4_000_000))[:-1])
            await eventually(lambda: upstream.connections == 1)
        await eventually(lambda: [one["code"] for one in proxy.records()] == ["client-gone"])
        assert not upstream.received


async def test_a_long_body_that_stops_is_given_up_in_time(log: Path) -> None:
    timeouts = Timeouts(body_idle_s=0.3)
    async with chain(log, echo, timeouts=timeouts) as (proxy, _), proxy.client() as client:
        await client.send(whole(bytes(4_000_000))[:-1])
        assert (await client.answer()).status == 408


async def test_what_is_left_of_a_long_body_after_an_early_answer_is_dropped(log: Path) -> None:
    early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(60_000)
        writer.write(early)
        await reader.read()

    async with scripted_upstream(conversation=refuse) as upstream:
        document = policy({"v1": upstream.url})
        async with proxy(document, log) as running, running.client() as client:
            await client.send(whole(bytes(3_000_000)))
            answer = await client.answer()
            assert (answer.status, answer.body) == (413, b"much")


async def test_what_follows_a_large_body_in_the_same_read_is_the_next_request(log: Path) -> None:
    async with chain(log, echo) as (proxy, _), proxy.client() as client:
        sent = list(bodies())
        await client.send(b"".join(map(whole, sent)) + whole(b"last"))
        for body in [*sent, b"last"]:
            assert (await client.answer()).body == body


async def test_a_malformed_head_before_a_large_body_is_refused(log: Path) -> None:
    async with chain(log, echo) as (proxy, upstream), proxy.client() as client:
        await client.send(whole(bytes(100_000)).replace(b"Host: h", b"Host : h"))
        assert (await client.answer()).status == 400
        assert not upstream.received


async def test_an_answer_longer_than_it_says_is_none(log: Path) -> None:
    async def more(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + bytes(60_000))

    async with chain(log, more) as (proxy, _):
        assert (await proxy.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")).status == 502
