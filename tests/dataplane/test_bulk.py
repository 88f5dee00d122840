"""Bodies that come in large reads arrive byte for byte, whoever else sends at the same time."""

from __future__ import annotations

import asyncio
import hashlib
import random
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Limits, Timeouts
from tests.support.messages import PATIENCE_S
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import eventually, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.support.proxy import Client, Proxy
    from tests.support.upstream import Conversation, Received, ScriptedUpstream

    Passing = tuple[Proxy, Client, ScriptedUpstream]

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


async def test_chunks_that_begin_in_a_read_with_the_end_of_a_long_body_are_decoded(
    log: Path,
) -> None:
    async with chain(log, echo) as (proxy, _), proxy.client() as client:
        body, then = RANDOM.randbytes(3_000_000), RANDOM.randbytes(400_000)
        begun, rest = chunked(then)[:100], chunked(then)[100:]
        await client.send(whole(body) + begun)
        assert (await client.answer()).body == body
        await client.send(rest + whole(b"next"))
        assert (await client.answer()).body == then
        assert (await client.answer()).body == b"next"


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


LONG = 9_000_000
HEAD = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % LONG


@asynccontextmanager
async def passing(
    log: Path, serve: Conversation, timeouts: Timeouts | None = None
) -> AsyncIterator[Passing]:
    """Begin a long body; yield once the upstream has some of it."""
    async with scripted_upstream(conversation=serve) as upstream:
        document = policy({"v1": upstream.url})
        async with proxy(document, log, timeouts=timeouts) as running, running.client() as client:
            await client.send(HEAD + bytes(LONG // 2))
            await eventually(lambda: upstream.connections == 1)
            yield running, client, upstream


async def take_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests with the size of their bodies."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        size = left = int(head.lower().partition(b"content-length:")[2].split()[0])
        while left:
            left -= len(await reader.readexactly(min(left, 50_000)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%08d" % size)


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(PATIENCE_S)


async def test_long_bodies_and_others_follow_each_other_on_one_connection(log: Path) -> None:
    async with passing(log, take_all) as (running, client, upstream):
        await client.send(bytes(LONG - LONG // 2) + whole(b"next") + HEAD + bytes(LONG))
        answers = [(await client.answer()).body for _ in range(3)]
        assert answers == [b"%08d" % size for size in (LONG, 4, LONG)]
        assert upstream.connections == 1
        sizes = [one["request_bytes"] for one in await running.recorded(3)]
        assert sizes == [LONG, 4, LONG]


async def test_a_client_that_leaves_while_its_body_passes_takes_its_request_along(
    log: Path,
) -> None:
    async with passing(log, take_all) as (running, client, upstream):
        client.writer.transport.abort()
        assert (await running.recorded())[0]["code"] == "client-gone"
        await eventually(lambda: upstream.lost == 1)


async def test_an_upstream_that_leaves_while_a_body_passes_has_failed(log: Path) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(LONG // 4)
        writer.transport.abort()

    async with scripted_upstream(conversation=leave) as upstream:
        document = policy({"v1": upstream.url})
        async with proxy(document, log) as running, running.client() as client:
            client.writer.write(HEAD + bytes(LONG))
            assert (await client.answer()).status == 502


async def test_an_answer_that_comes_while_a_body_passes_reaches_the_client(log: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(LONG // 3)
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch")
        await reader.read()

    async with passing(log, refuse) as (_, client, _):
        answer = await client.answer()
        assert (answer.status, answer.body) == (413, b"much")


async def test_a_body_that_stops_while_it_passes_is_given_up_in_time(log: Path) -> None:
    async with passing(log, take_all, timeouts=Timeouts(body_idle_s=0.3)) as (_, client, _):
        assert (await client.answer()).status == 408


async def test_an_upstream_that_takes_no_more_of_a_body_is_late(log: Path) -> None:
    timeouts = Timeouts(body_idle_s=0.5)
    async with scripted_upstream(conversation=hang) as upstream:
        document = policy({"v1": upstream.url})
        async with proxy(document, log, timeouts=timeouts) as running, running.client() as client:
            client.writer.write(HEAD + bytes(LONG))
            assert (await client.answer()).status == 504


async def test_a_drain_ends_a_body_that_passes(log: Path) -> None:
    timeouts = Timeouts(drain_s=0.2)
    async with passing(log, take_all, timeouts=timeouts) as (running, client, _):
        await running.listener.drain()
        assert (await client.answer()).status == 503


async def test_a_long_body_that_is_mirrored_reaches_both(log: Path) -> None:
    async with scripted_upstream() as first, scripted_upstream() as second:
        document = policy(
            {"v1": first.url, "v2": second.url}, shadows=[{"version": "v2", "methods": ["POST"]}]
        )
        body = RANDOM.randbytes(3_000_000)
        async with proxy(document, log, limits=Limits(mirror_body_bytes=4_000_000)) as running:
            assert (await running.ask(whole(body))).status == 200
            assert (await first.until(1))[0].body == body
            assert (await second.until(1))[0].body == body


@pytest.mark.parametrize("framing", ["until close", "chunked"])
async def test_an_answer_without_a_length_after_a_large_one_is_whole(
    log: Path, framing: str
) -> None:
    body = RANDOM.randbytes(300_000)

    async def serve(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target == b"/first":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        elif framing == "chunked":
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        else:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body)
            writer.close()

    async with chain(log, serve) as (proxy, upstream):
        for target in (b"/first", b"/second"):
            request = b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % target
            assert (await proxy.ask(request)).body == body
        assert upstream.connections == 1


async def test_large_answers_of_many_do_not_mix_while_others_do_not_read(log: Path) -> None:
    async def large(request: Received, writer: asyncio.StreamWriter) -> None:
        size = int(request.target[1:])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(request.target[:2] * (size // 2))

    async with chain(log, large) as (proxy, upstream), AsyncExitStack() as stack:
        for _ in range(8):  # more than there are buffers that may be kept
            client = await stack.enter_async_context(proxy.client())
            await client.send(b"GET /90000000 HTTP/1.1\r\nHost: h\r\n\r\n")
        await eventually(lambda: upstream.connections == 8)
        for size in (b"200000", b"340000", b"510000"):
            answer = await proxy.ask(b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % size)
            assert answer.body == (b"/" + size[:1]) * (int(size) // 2)


async def test_an_answer_that_is_cut_with_the_body_is_no_whole_one(log: Path) -> None:
    """Without a length its end is that of the connection, which here is a reset."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(LONG // 3)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nbegun")
        await asyncio.sleep(0.1)
        writer.transport.abort()  # with unread bytes: a reset

    async with scripted_upstream(conversation=cut) as upstream:
        document = policy({"v1": upstream.url})
        async with proxy(document, log) as running, running.client() as client:
            client.writer.write(HEAD + bytes(LONG))
            assert (await client.head()).startswith(b"HTTP/1.1 200")
            assert await client.reset()
