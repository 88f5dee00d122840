"""What arrives is what was sent: methods, targets, bytes past ASCII, trailers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.messages import Feed
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import answering, scripted_upstream

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.proxy import Client, Proxy

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


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize(
    "target",
    [b"//", b"/%2e%2e/", b"/a%2Fb", b"/%zz", b"/?", b"/a?", b"/../a", b"/a;b=c?d=e?f", b"/\xc3\xa9",
     b"http://h/x?y", b"http://h", b"http://h?q", b"HTTP://H/"],
)  # fmt: skip
async def test_a_target_arrives_byte_for_byte(log: Path, target: bytes, how: Feed) -> None:
    async with chain(log) as (running, upstream), running.client() as client:
        answer = await client.ask(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n", how)

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
        self.body = await reader.readuntil(b"0\r\n")
        while not self.body.endswith(b"\r\n\r\n"):
            self.body += await reader.readuntil(b"\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read()


@asynccontextmanager
async def behind_raw(log: Path) -> AsyncIterator[tuple[Raw, Proxy, Client]]:
    """Yield an upstream that keeps raw bytes, and a client of the proxy before it."""
    raw = Raw()
    async with (
        scripted_upstream(conversation=raw) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        yield raw, running, client


def chunked(announced: bytes, trailers: bytes) -> bytes:
    """Return a request with a chunked body and trailers."""
    head = b"POST / HTTP/1.1\r\n" + HOST + announced + CHUNKED
    return head + b"\r\n3\r\nabc\r\n0\r\n" + trailers + b"\r\n"


@pytest.mark.parametrize("how", Feed)
async def test_announced_request_trailers_pass_and_decide_nothing(log: Path, how: Feed) -> None:
    async with behind_raw(log) as (raw, running, client):
        answer = await client.ask(chunked(ANNOUNCED, TRAILERS), how)

        assert answer.status == 204
        assert raw.body.endswith(b"0\r\n" + PASSED + b"\r\n")
        assert (await running.recorded())[0]["tenant"] == ""


FORBIDDEN = (
    b"Accept Authorization Cache-Control Connection Content-Encoding Content-Length Content-Range"
    b" Content-Type Expect Host If-Match Keep-Alive Max-Forwards Proxy-Authorization Set-Cookie TE"
    b" Trailer Transfer-Encoding Upgrade Vary WWW-Authenticate X-Model-Version X-Model-Decision"
    b" X-Request-Id x_request_id Content_Length"
).split()
NEVER = b"".join(name + b": v9\r\n" for name in FORBIDDEN)


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize(
    "announced",
    [b"", b"Trailer: " + b", ".join(FORBIDDEN) + b"\r\n", b"Trailer: *\r\n"],
    ids=["unannounced", "forbidden", "all"],
)
async def test_request_trailers_that_are_unannounced_or_forbidden_are_left_out(
    log: Path, announced: bytes, how: Feed
) -> None:
    trailers = NEVER if b"," in announced else b"X-Sum: 1\r\n" + NEVER
    async with behind_raw(log) as (raw, _, client):
        answer = await client.ask(chunked(announced, trailers), how)

        assert answer.status == 204
        assert raw.body.endswith(b"\r\n0\r\n\r\n")
        assert answer.get(b"X-Model-Decision") == b"DEFAULT"


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize(
    "announced", [b"", b"Trailer: " + b", ".join(FORBIDDEN) + b"\r\n"], ids=["not", "forbidden"]
)
async def test_response_trailers_that_are_unannounced_or_forbidden_are_left_out(
    log: Path, announced: bytes, how: Feed
) -> None:
    trailers = b"X-Sum: 1\r\n" * (not announced) + NEVER
    response = b"HTTP/1.1 200 OK\r\n" + announced + CHUNKED + b"\r\n0\r\n" + trailers + b"\r\n"
    async with chain(log, answering(response, how)) as (running, _), running.client() as client:
        await client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await client.head()

        assert await client.until(b"0\r\n") == b"0\r\n"
        assert await client.until(b"\r\n") == b"\r\n"


async def test_trailers_do_not_pass_to_http10(log: Path) -> None:
    response = b"HTTP/1.1 200 OK\r\n" + ANNOUNCED + CHUNKED + b"\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"
    async with chain(log, answering(response)) as (running, _):
        answer = await running.ask(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n")

    assert answer.body == b"a"
    assert answer.get(b"Trailer") is None


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_announced_response_trailers_pass(log: Path, how: Feed) -> None:
    response = b"HTTP/1.1 200 OK\r\n" + ANNOUNCED + CHUNKED
    response += b"\r\n1\r\na\r\n0\r\n" + TRAILERS + b"\r\n"
    async with chain(log, answering(response, how)) as (running, _), running.client() as client:
        await client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        head = await client.head()

        assert ANNOUNCED.rstrip() in head
        assert await client.until(b"0\r\n") == b"1\r\na\r\n0\r\n"
        assert (
            await client.until(b"\r\n\r\n") == b"X-Sum: 1\r\nX-Tenant: evil\r\nx-sum: \xff\r\n\r\n"
        )


DERIVED = [b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"X-Request-Id",
           b"X-Model-Version"]  # fmt: skip
ADDED = [b"X-Model-Version", b"X-Model-Decision", b"X-Request-Id"]


@pytest.mark.parametrize(
    ("request_", "own"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", [b"Host"]),
        (b"GET / HTTP/1.0\r\n" + HOST + b"\r\n", [b"Host"]),
        (b"GET / HTTP/1.0\r\n\r\n", [b"Host"]),
        (b"POST / HTTP/1.1\r\n" + HOST + b"\r\n", [b"Host"]),
        (
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\na",
            [b"Host", b"Content-Length"],
        ),
        (
            b"POST / HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n",
            [b"Host", b"Transfer-Encoding"],
        ),
    ],
)
async def test_no_header_is_invented(log: Path, request_: bytes, own: list[bytes]) -> None:
    async with chain(log) as (running, upstream), running.client() as client:
        answer = await client.ask(request_)

        assert [name for name, _ in upstream.received[0].fields] == own + DERIVED
        said = [name for name, _ in answer.fields if name != b"Connection"]
        assert said == [b"Content-Length", *ADDED]
