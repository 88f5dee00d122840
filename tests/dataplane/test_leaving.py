"""A peer that has closed is noticed: before a request is lost on it, and while it is not read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sidecar.dataplane.listener import SWEEP_S
from sidecar.model.limits import Timeouts
from tests.support.certificates import write_certificate
from tests.support.messages import PATIENCE_S
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import (
    ANSWER,
    eventually,
    never,
    receive,
    reset,
    scripted_upstream,
)

if TYPE_CHECKING:
    from pathlib import Path

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"
SOON_S = 10.0  # it takes a tenth of one, and no timeout would come to its aid in this time


class Plain:
    """A bare socket on the loop: what it sends is sent at once, and so is its FIN."""

    def __init__(self, bare: socket.socket) -> None:
        self.bare = bare
        bare.setblocking(False)  # noqa: FBT003 -- the name is Python's

    async def until(self, end: bytes) -> bytes:
        """Read until what came ends so."""
        seen = b""
        async with asyncio.timeout(PATIENCE_S):
            while not seen.endswith(end):
                data = await asyncio.get_running_loop().sock_recv(self.bare, 65_536)
                assert data, seen
                seen += data
        return seen


async def accepted(listening: socket.socket) -> Plain:
    async with asyncio.timeout(PATIENCE_S):
        taken, _ = await asyncio.get_running_loop().sock_accept(listening)
    return Plain(taken)


async def test_a_post_that_meets_a_connection_just_closed_is_sent_on_another(log: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)  # noqa: FBT003 -- the name is Python's
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    async with proxy(policy({"v1": url}), log) as running:
        with (
            closing(listening),
            closing(socket.create_connection(("127.0.0.1", running.port))) as own,
        ):
            client = Plain(own)
            own.sendall(GET)
            first = await accepted(listening)
            await first.until(b"\r\n\r\n")
            first.bare.sendall(ANSWER)
            await client.until(b"ok")

            own.sendall(POST)  # both are with the kernel before the sidecar hears of either
            first.bare.close()
            second = await accepted(listening)
            assert (await second.until(b"ab")).startswith(b"POST / ")
            second.bare.sendall(ANSWER)

            assert (await client.until(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
            second.bare.close()


async def test_a_post_that_meets_a_connection_by_tls_just_closed_is_sent_on_another(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert_file))  # whom the system trusts
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)

    def serve() -> ssl.SSLSocket:
        """Answer one request on a new connection, in a thread of its own."""
        bare, _ = listening.accept()
        bare.settimeout(PATIENCE_S)
        peer = context.wrap_socket(bare, server_side=True)
        seen = b""
        while not seen.endswith(b"\r\n\r\nab" if seen.startswith(b"POST") else b"\r\n\r\n"):
            seen += peer.recv(65_536)
        asked.append(seen)
        peer.sendall(ANSWER)
        return peer

    asked: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(PATIENCE_S)
    url = f"https://127.0.0.1:{listening.getsockname()[1]}"
    async with proxy(policy({"v1": url}), log) as running:
        with (
            closing(listening),
            closing(socket.create_connection(("127.0.0.1", running.port))) as own,
        ):
            client = Plain(own)
            own.sendall(GET)
            first = await asyncio.to_thread(serve)
            await client.until(b"ok")

            own.sendall(POST)  # both are with the kernel before the sidecar hears of either
            first.setblocking(False)  # noqa: FBT003 -- the name is Python's
            with pytest.raises(ssl.SSLWantReadError):  # the other side's end is not here yet
                first.unwrap()
            socket.socket.close(first)
            second = await asyncio.to_thread(serve)

            assert (await client.until(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
            assert [one[:4] for one in asked] == [b"GET ", b"POST"]
            second.close()


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("behind", [GET, GET[:9]], ids=["a request", "a part of one"])
async def test_a_client_that_leaves_while_it_is_not_read_is_noticed_soon(
    log: Path, behind: bytes, end: str
) -> None:
    is_asked, is_gone = asyncio.Event(), asyncio.Event()

    async def listen(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await receive(reader)
        is_asked.set()
        assert await reader.read() == b""
        is_gone.set()

    async with (
        scripted_upstream(conversation=listen) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        await client.send(GET + behind)
        await is_asked.wait()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        client.close() if end == "close" else reset(client.writer)
        await eventually(is_gone.is_set)

        assert loop.time() - began_s < SOON_S
        assert (await running.recorded())[0]["code"] == "client-gone"


async def test_a_client_that_leaves_while_its_upstream_takes_no_more_is_noticed_soon(
    log: Path,
) -> None:
    async def stop(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.Event().wait()

    async with (
        scripted_upstream(conversation=stop) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        loop, sent = asyncio.get_running_loop(), 0
        client.writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            while True:
                client.writer.write(bytes(256 * 1024))
                async with asyncio.timeout(0.3):
                    await client.writer.drain()
                sent += 256 * 1024
        assert sent
        began_s = loop.time()
        reset(client.writer)

        assert (await running.recorded())[0]["code"] == "client-gone"
        assert loop.time() - began_s < SOON_S


async def test_a_client_that_leaves_while_its_connection_opens_has_asked_nothing(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert_file))  # whom the system trusts
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)

    def shake_hands(bare: socket.socket) -> ssl.SSLSocket:
        bare.settimeout(PATIENCE_S)
        return context.wrap_socket(bare, server_side=True)

    def answer(peer: ssl.SSLSocket) -> bytes:
        seen = peer.recv(65_536)
        peer.sendall(ANSWER)
        return seen

    patience = Timeouts(connect_s=PATIENCE_S, drain_idle_s=0.05)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        listening.settimeout(PATIENCE_S)
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        async with proxy(policy({"v1": url}), log, timeouts=patience) as running:
            async with running.client() as client:
                await client.send(b"GET /first HTTP/1.1\r\nHost: h\r\n\r\n")
                bare, _ = await asyncio.to_thread(listening.accept)
            assert (await running.recorded())[0]["code"] == "client-gone"

            with closing(await asyncio.to_thread(shake_hands, bare)) as peer:
                pool = running.listener.plane.upstreams.group([url]).pick()
                await eventually(lambda: pool.outstanding == 0)
                asking = asyncio.ensure_future(running.ask(GET))
                assert (await asyncio.to_thread(answer, peer)).startswith(b"GET / ")
                assert (await asking).status == 200


def test_clients_are_looked_at_often_enough_to_notice_within_a_second() -> None:
    """A slow machine would fail a test that measures it."""
    assert SWEEP_S <= 0.5


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_noticed(log: Path) -> None:
    async with chain(log, never) as (running, upstream), running.client() as client:
        await client.send(POST[:-1])
        await eventually(lambda: upstream.connections == 1)
        client.close()
        await eventually(lambda: upstream.lost == 1)

        assert (await running.recorded())[0]["code"] == "client-gone"
        assert upstream.received == []
