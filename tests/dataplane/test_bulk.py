"""Bodies that come in large reads arrive byte for byte, whoever else sends at the same time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from tests.support.proxy import chain

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
