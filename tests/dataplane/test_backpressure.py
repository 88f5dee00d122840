"""Whoever does not read stops whoever sends to it; both go on when it reads again."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.dataplane.connection import LINGER_S
from sidecar.model.limits import Timeouts
from sidecar.model.tls import TlsSettings
from sidecar.runtime.tls import ServerTls
from tests.support.certificates import write_certificate
from tests.support.clock import HandClock
from tests.support.messages import PATIENCE_S
from tests.support.proxy import Client, chain, policy, proxy
from tests.support.upstream import ANSWER, eventually, receive, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.proxy import Proxy
    from tests.support.upstream import Received

PIECE = bytes(64 * 1024)
TOTAL = 64 * 1024 * 1024
HELD_BY_TLS = 400 * 1024  # a read, and what may wait besides; not counted what TCP holds
SMALL = bytes(8 * 1024)
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
# What the kernel's buffers of two connections take, and the sidecar's; far below TOTAL.
HELD_AT_MOST = 32 * 1024 * 1024
SOON = Timeouts(body_idle_s=0.3, idle_s=0.3)


async def stalled(count: Callable[[], int]) -> int:
    """Wait until a count grows no more; return it."""
    async with asyncio.timeout(PATIENCE_S):
        seen = -1
        while seen != count() or not seen:
            seen = count()
            await asyncio.sleep(0.2)
    return seen


async def test_a_client_that_does_not_read_stops_the_upstream(log: Path) -> None:
    sent = 0

    async def pour(_request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        while sent < TOTAL:
            writer.write(PIECE)
            await writer.drain()
            sent += len(PIECE)

    async with chain(log, pour) as (proxy, _), proxy.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        held = await stalled(lambda: sent)
        answer = await client.answer()

    assert held < HELD_AT_MOST
    assert len(answer.body) == TOTAL


async def test_an_upstream_that_does_not_read_stops_the_client(log: Path) -> None:
    is_reading = asyncio.Event()
    taken = 0

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        await is_reading.wait()
        while taken < TOTAL:
            taken += len(await reader.read(1024 * 1024))
        writer.write(ANSWER)
        await receive(reader)

    async with (
        scripted_upstream(conversation=wait) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        sent = 0

        async def pour() -> None:
            nonlocal sent
            head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % TOTAL
            client.writer.write(head)
            while sent < TOTAL:
                client.writer.write(PIECE)
                await client.writer.drain()
                sent += len(PIECE)

        pouring = asyncio.ensure_future(pour())
        held = await stalled(lambda: sent)
        is_reading.set()
        answer = await client.answer()
        await pouring

    assert held < HELD_AT_MOST
    assert answer.status == 200
    assert taken == TOTAL


async def test_a_client_that_reads_no_answers_is_not_served_without_end(log: Path) -> None:
    body = bytes(200 * 1024)  # whole in one read: nothing is under way when the client is full
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    number = TOTAL // len(body)

    async with chain(log, response) as (proxy, upstream), proxy.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * number)
        held = await stalled(lambda: len(upstream.received)) * len(body)
        answers = [await client.answer() for _ in range(number)]

    assert held < HELD_AT_MOST
    assert {len(one.body) for one in answers} == {len(body)}


async def test_a_client_that_stops_reading_is_cut_off_in_time(log: Path) -> None:
    async def pour(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        for _ in range(TOTAL // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()

    async with chain(log, pour, timeouts=SOON) as (proxy, upstream), proxy.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        records = await proxy.recorded()

        assert (records[0]["status"], records[0]["code"]) == (200, "client-gone")
        await eventually(lambda: upstream.lost == 1)
        assert await client.reset()


async def test_a_client_that_does_not_read_whole_answers_is_cut_off_in_time(log: Path) -> None:
    body = bytes(200 * 1024)
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async with chain(log, response, timeouts=SOON) as (proxy, _), proxy.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * (TOTAL // len(body)))
        await eventually(lambda: proxy.metrics.gauges.get("rmv_connections") == 1)
        await eventually(lambda: proxy.metrics.gauges["rmv_connections"] == 0)


def by_tls(folder: Path) -> tuple[ServerTls, ssl.SSLContext]:
    cert_file, key_file = write_certificate(folder)
    tls = ServerTls(TlsSettings(str(cert_file), str(key_file)))
    return tls, ssl.create_default_context(cafile=str(cert_file))


@asynccontextmanager
async def overfull(
    log: Path, clock: HandClock, requests: bytes, folder: Path | None = None
) -> AsyncIterator[tuple[Client, Proxy, int]]:
    """Yield when the sidecar has all of an answer, and the kernel has no room for its end.

    Also its size; the client has not read any of it. By TLS where there is a `folder` for a
    certificate.
    """
    size = 0

    async def overfill(_request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal size
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        (held,) = getattr(running.listener, "_clients")  # noqa: B009 -- what no client can see
        while not held.transport.get_write_buffer_size():
            size += len(SMALL)
            writer.write(SMALL)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    tls, trusted = (None, None) if folder is None else by_tls(folder)
    async with chain(log, overfill, clock=clock, tls=tls) as (running, _):
        client = Client(*await asyncio.open_connection("localhost", running.port, ssl=trusted))
        await client.send(requests)
        await running.recorded()
        yield client, running, size
        client.close()


async def test_an_answer_is_whole_for_who_takes_it_late_by_tls(log: Path, tmp_path: Path) -> None:
    async with overfull(log, HandClock(), GET, tmp_path) as (client, _, size):
        await asyncio.sleep(LINGER_S + 0.5)  # by the loop's clock: what it may do by itself
        await client.head()
        assert len(await client.rest()) == size


async def test_little_of_an_answer_waits_in_the_sidecar_for_who_does_not_read_by_tls(
    log: Path, tmp_path: Path
) -> None:
    sent = 0

    async def pour(_request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        while sent < TOTAL:
            writer.write(PIECE)
            await writer.drain()
            sent += len(PIECE)

    tls, trusted = by_tls(tmp_path)
    async with chain(log, pour, tls=tls) as (running, _):
        client = Client(*await asyncio.open_connection("localhost", running.port, ssl=trusted))
        await client.send(GET)
        await stalled(lambda: sent)
        (held,) = getattr(running.listener, "_clients")  # noqa: B009 -- as above
        assert held.transport.get_write_buffer_size() < HELD_BY_TLS
        client.writer.transport.abort()


async def test_little_of_a_body_waits_in_the_sidecar_for_an_endpoint_that_does_not_read_by_tls(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, _ = by_tls(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "localhost.pem"))  # what it believes
    ends = asyncio.Event()
    sent = 0

    async def take_none(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ends.wait()
        writer.transport.abort()

    server = await asyncio.start_server(take_none, "127.0.0.1", 0, ssl=tls.context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, proxy(policy({"v1": url}), log) as running, running.client() as client:

        async def pour() -> None:
            nonlocal sent
            client.writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % TOTAL)
            while sent < TOTAL:
                client.writer.write(PIECE)
                await client.writer.drain()
                sent += len(PIECE)

        pouring = asyncio.ensure_future(pour())
        await stalled(lambda: sent)
        (held,) = getattr(running.listener, "_clients")  # noqa: B009 -- as above
        exchange = getattr(held, "_current")  # noqa: B009 -- as above
        assert exchange.upstream.transport.get_write_buffer_size() < HELD_BY_TLS
        pouring.cancel()
        client.writer.transport.abort()
        ends.set()


@pytest.mark.parametrize("number", [1, 2], ids=["alone", "with a request after it"])
async def test_an_answer_is_whole_for_who_takes_it_in_time(log: Path, number: int) -> None:
    clock = HandClock()
    async with overfull(log, clock, GET * number) as (client, proxy, size):
        for _ in range(3):
            clock.advance(LINGER_S + 1)
            await proxy.swept()
        await client.head()
        assert len(await client.rest()) == size


@pytest.mark.parametrize("number", [1, 2], ids=["alone", "with a request after it"])
async def test_an_answer_that_is_not_taken_in_time_does_not_end_as_if_whole(
    log: Path, number: int
) -> None:
    clock = HandClock()
    async with overfull(log, clock, GET * number) as (client, proxy, _):
        clock.advance(Timeouts().body_idle_s + 1)
        await proxy.swept()
        assert await client.reset()


async def test_an_upstream_that_stops_reading_is_given_up_in_time(log: Path) -> None:
    async def stop(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.Event().wait()

    async with (
        scripted_upstream(conversation=stop) as upstream,
        proxy(policy({"v1": upstream.url}), log, timeouts=SOON) as running,
        running.client() as client,
    ):
        client.writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        client.writer.write(bytes(TOTAL))
        answer = await client.answer()

        assert (answer.status, answer.code) == (504, "upstream-timeout")
        assert answer.get(b"Connection") == b"close"
