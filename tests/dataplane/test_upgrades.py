"""Upgraded connections: bytes both ways once an upstream agrees, and nothing undecided before."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Timeouts
from sidecar.model.tls import TlsSettings
from sidecar.runtime.tls import ServerTls
from tests.support.certificates import write_certificate
from tests.support.clock import HandClock
from tests.support.messages import PATIENCE_S, Feed, feed
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import ANSWER, answering, eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.support.upstream import Received

ASK = b"GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n"
AGREED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\nX-A: 1\r\n\r\n"
)
_open: list[asyncio.StreamWriter] = []


def agreeing(how: Feed = Feed.WHOLE) -> Callable[[Received, asyncio.StreamWriter], Awaitable[None]]:
    """Return a script that agrees, greets, and leaves the connection to the test."""

    async def agree(request: Received, writer: asyncio.StreamWriter) -> None:
        assert request.get(b"Connection") == b"Upgrade"
        assert request.get(b"Upgrade") == b"echo/1"
        _open.append(writer)
        await feed(writer, AGREED + b"\x00greeting", how, b"")

    return agree


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_bytes_pass_both_ways_once_the_upstream_agrees(log: Path, how: Feed) -> None:
    async with chain(log, agreeing(how)) as (running, _), running.client() as client:
        await client.send(ASK, how)
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"Upgrade: echo/1" in head
        assert b"X-Model-Version: v1" in head
        assert await client.exactly(9) == b"\x00greeting"
        _open[-1].write(b"\r\n\r\nGET")
        assert await client.exactly(7) == b"\r\n\r\nGET"
        client.close()
        record = (await running.recorded())[0]

    assert (record["status"], record["code"]) == (101, "")
    assert record["response_bytes"] == len(b"\x00greeting\r\n\r\nGET")


async def test_what_a_client_sends_early_reaches_the_tunnel(log: Path) -> None:
    async def agree(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(AGREED)

    async with chain(log, agree) as (running, upstream), running.client() as client:
        await client.send(ASK + b"GET /not-a-request HTTP/1.1\r\nHost: h\r\n\r\n")
        await client.head()

        # The scripted upstream goes on reading requests: that is what the tunnel is given.
        await upstream.until(2)
        assert upstream.received[1].head == b"GET /not-a-request HTTP/1.1\r\nHost: h"


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize("status", [b"403 Forbidden", b"426 Upgrade Required", b"200 OK"])
async def test_an_upstream_that_does_not_agree_is_passed_through(
    log: Path, status: bytes, how: Feed
) -> None:
    refusal = ANSWER.replace(b"200 OK", status)
    async with chain(log, answering(refusal, how)) as (running, _), running.client() as client:
        refused = await client.ask(ASK, how)
        again = await client.ask(ASK)  # the connection goes on

    assert refused.line == again.line == b"HTTP/1.1 " + status


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", ASK.replace(b"echo/1", b"echo/2")]
)
async def test_a_switch_that_was_not_asked_for_is_a_502(log: Path, request_: bytes) -> None:
    async with chain(log, AGREED) as (running, _):
        answer = await running.ask(request_)

    assert (answer.status, answer.code) == (502, "upstream-failed")


async def test_a_tunnel_ends_with_its_client(log: Path) -> None:
    async with chain(log, agreeing()) as (running, upstream):
        async with running.client() as client:
            await client.send(ASK)
            await client.head()
        await eventually(lambda: upstream.lost == 1)


async def test_a_tunnel_in_which_nobody_speaks_ends(log: Path) -> None:
    timeouts = Timeouts(tunnel_idle_s=10.0)
    clock = HandClock()
    async with (
        chain(log, agreeing(), timeouts=timeouts, clock=clock) as (running, upstream),
        running.client() as client,
    ):
        await client.send(ASK)
        await client.until(b"greeting")
        for _ in range(2):  # each byte gives it its whole time again
            clock.advance(9.0)
            _open[-1].write(b"x")
            assert await client.exactly(1) == b"x"
        clock.advance(11.0)

        assert await client.reset()
        await eventually(lambda: upstream.lost == 1)
        assert running.counted("rmv_timeouts_total", phase="tunnel", version="v1") == 1


async def test_a_tunnel_by_tls_whose_upstream_leaves_ends_without_a_complaint(
    log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(AGREED + b"bye")
        writer.close()

    cert_file, key_file = write_certificate(tmp_path)
    tls = ServerTls(TlsSettings(str(cert_file), str(key_file)))
    async with chain(log, leave, tls=tls) as (running, _):
        trusting = ssl.create_default_context(cafile=str(cert_file))
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=trusting)
            writer.write(ASK)
            assert (await reader.read()).endswith(b"bye")
            writer.close()
            await writer.wait_closed()
        assert (await running.recorded())[0]["code"] == ""

    assert not caplog.records


async def test_a_tunnel_to_an_upstream_by_tls_that_leaves_ends_without_a_complaint(
    log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(AGREED + b"bye")
        writer.close()

    cert_file, key_file = write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert_file))  # whom the system trusts
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    async with await asyncio.start_server(leave, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with proxy(policy({"v1": url}), log) as running, running.client() as client:
            await client.send(ASK)
            await client.head()
            assert await client.rest() == b"bye"
            assert (await running.recorded())[0]["code"] == ""

    assert not caplog.records
