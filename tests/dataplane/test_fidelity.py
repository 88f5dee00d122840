"""What arrives is what was sent: methods, targets, bytes past ASCII, trailers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.messages import Feed
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import answering, scripted_upstream

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from tests.support.upstream import Received

HOST = b"Host: h\r\n"


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize(
    "method", [b"BREW", b"get", b"PROPFIND", b"M-SEARCH", b"X", b"!#$%&'*+-.^_`|~"]
)
async def test_any_method_arrives_as_sent(log: Path, method: bytes, how: Feed) -> None:
    async with chain(log) as (running, upstream), running.client() as client:
        answer = await client.ask(method + b" / HTTP/1.1\r\n" + HOST + b"\r\n", how)

        assert answer.status == 200
        assert upstream.received[0].method == method


@pytest.mark.parametrize(
    "target",
    [b"//", b"/%2e%2e/", b"/a%2Fb", b"/%zz", b"/?", b"/a?", b"/../a", b"/a;b=c?d=e?f", b"/\xc3\xa9",
     b"http://h/x?y", b"http://h", b"http://h?q", b"HTTP://H/"],
)  # fmt: skip
async def test_a_target_arrives_byte_for_byte(log: Path, target: bytes) -> None:
    async with chain(log) as (running, upstream), running.client() as client:
        answer = await client.ask(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")

        assert answer.status == 200
        assert upstream.received[0].target == target


async def test_a_target_with_an_authority_gives_http10_its_host(log: Path) -> None:
    async with chain(log) as (running, upstream):
        await running.ask(b"GET http://h:80/x HTTP/1.0\r\n\r\n")

        assert upstream.received[0].get(b"Host") == b"h:80"


TRAILERS = b"X-Sum: 1\r\nX-Other: 2\r\nContent-Length: 9\r\nX-Tenant: evil\r\nx-sum: \xff\r\n"
PASSED = b"X-Sum: 1\r\nx-sum: \xff\r\n"
ANNOUNCED = b"Trailer: X-Sum, Content-Length, X-Tenant\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


class Raw:
    """An upstream that keeps a chunked request's bytes up to the end of its trailers."""

    def __init__(self) -> None:
        self.body = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.body = await reader.readuntil(b"0\r\n") + await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read()


@pytest.mark.parametrize("how", Feed)
async def test_announced_request_trailers_pass_and_decide_nothing(log: Path, how: Feed) -> None:
    raw = Raw()
    request = b"POST / HTTP/1.1\r\n" + HOST + ANNOUNCED + CHUNKED
    request += b"\r\n3\r\nabc\r\n0\r\n" + TRAILERS + b"\r\n"
    async with (
        scripted_upstream(conversation=raw) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        answer = await client.ask(request, how)

        assert answer.status == 204
        assert raw.body.endswith(b"0\r\n" + PASSED + b"\r\n")
        assert (await running.recorded())[0]["tenant"] == ""


async def test_trailers_that_nobody_announced_are_left_out(log: Path) -> None:
    response = b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n0\r\nX-Sum: 1\r\n\r\n"
    async with chain(log, answering(response)) as (running, _), running.client() as client:
        await client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await client.head()

        assert await client.exactly(5) == b"0\r\n\r\n"


async def test_announced_response_trailers_pass(log: Path) -> None:
    async def answer(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + ANNOUNCED + CHUNKED)
        writer.write(b"\r\n1\r\na\r\n0\r\n" + TRAILERS + b"\r\n")

    async with chain(log, answer) as (running, _), running.client() as client:
        await client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        head = await client.head()

        assert ANNOUNCED.rstrip() in head
        assert await client.until(b"0\r\n") == b"1\r\na\r\n0\r\n"
        assert (
            await client.until(b"\r\n\r\n") == b"X-Sum: 1\r\nX-Tenant: evil\r\nx-sum: \xff\r\n\r\n"
        )
