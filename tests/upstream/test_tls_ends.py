"""How an answer by TLS ends, on uvloop: whole, however slowly it is taken, or cut."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import uvloop

from sidecar.model.upstream import UpstreamTls
from sidecar.upstream.contract import ResponseSink
from sidecar.upstream.dial import Dialer
from sidecar.upstream.pool import PoolSettings, Upstreams
from tests.support.certificates import write_certificate
from tests.support.messages import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from sidecar.upstream.connection import UpstreamConnection
    from sidecar.upstream.contract import Response

TAIL = bytes(100_000)  # less than uvloop reads ahead by default, 256 KiB
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
WITH_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(TAIL)


class Taker(ResponseSink):
    """Takes an answer; counts its body and notes how it ended."""

    def __init__(self) -> None:
        self.has_head = asyncio.Event()
        self.has_ended = asyncio.Event()
        self.body_bytes = 0
        self.lost = ""

    def on_interim_head(self, response: Response, out: list[bytes]) -> None: ...

    def on_response_head(self, response: Response, out: list[bytes]) -> None:
        self.has_head.set()

    def on_upgrade(self, response: Response, out: list[bytes]) -> ResponseSink | None:
        return None

    def on_response_data(self, data: bytes, body_bytes: int) -> None:
        self.body_bytes += body_bytes

    def on_response_end(self) -> None:
        self.has_ended.set()

    def on_response_lost(self, reason: str, *, is_unanswered: bool) -> None:
        self.lost = reason
        self.has_ended.set()

    def on_upstream_full(self) -> None: ...

    def on_upstream_drained(self) -> None: ...


class Endpoint:
    """A TLS server that does one thing after another, and knows when it is done."""

    def __init__(self, folder: Path) -> None:
        cert_file, key_file = write_certificate(folder)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert_file, key_file)
        self._listening = socket.create_server(("127.0.0.1", 0))
        tls = UpstreamTls(ca_file=str(cert_file))
        self._upstreams = Upstreams(PoolSettings(PATIENCE_S, dialer=Dialer(tls=tls)), lambda: 1.0)
        self.peer: ssl.SSLSocket

    async def asked(self, taker: Taker) -> UpstreamConnection:
        """Have a connection on which `taker` waits for an answer."""
        made: asyncio.Future[UpstreamConnection] = asyncio.get_running_loop().create_future()
        pool = self._upstreams.group([f"https://localhost:{self._listening.getsockname()[1]}"])
        pool.pick().connect(
            made.set_result, lambda reason: made.set_exception(ConnectionError(reason))
        )
        self.peer = await asyncio.to_thread(self._accept)
        connection = await made
        connection.start(taker, b"GET")
        connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.is_sent = True
        await asyncio.to_thread(self.peer.recv, 1024)
        return connection

    def say(self, data: bytes) -> None:
        self.peer.sendall(data)

    def close_well(self) -> None:
        """Send close_notify, then a FIN."""
        self.peer.setblocking(False)  # noqa: FBT003 -- the name is Python's
        with pytest.raises(ssl.SSLWantReadError):  # the other side's is not here yet
            self.peer.unwrap()
        self.cut()

    def cut(self) -> None:
        """Send a FIN alone, as anybody on the way can."""
        socket.socket.shutdown(self.peer, socket.SHUT_WR)

    def close(self) -> None:
        self._upstreams.close()
        self.peer.close()
        self._listening.close()

    def _accept(self) -> ssl.SSLSocket:
        accepted, _ = self._listening.accept()
        return self._context.wrap_socket(accepted, server_side=True)


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(tmp_path)


def on_uvloop(endpoint: Endpoint, story: Coroutine[object, object, None]) -> None:
    async def told() -> None:
        async with asyncio.timeout(PATIENCE_S):
            try:
                await story
            finally:
                endpoint.close()

    uvloop.run(told())


@pytest.mark.parametrize("head", [UNTIL_CLOSE, WITH_LENGTH], ids=["until close", "with length"])
def test_what_came_before_the_close_is_taken_by_who_was_slow(
    endpoint: Endpoint, head: bytes
) -> None:
    async def story() -> None:
        taker = Taker()
        connection = await endpoint.asked(taker)
        endpoint.say(head)
        await taker.has_head.wait()
        connection.pause()
        endpoint.say(TAIL)
        endpoint.close_well()
        for _ in range(100):  # turns of the loop, in which the end may be seen, and must wait
            await asyncio.sleep(0)
        connection.resume()
        await taker.has_ended.wait()

        assert (taker.body_bytes, taker.lost) == (len(TAIL), "")

    on_uvloop(endpoint, story())


def test_an_answer_of_known_length_needs_no_farewell(endpoint: Endpoint) -> None:
    async def story() -> None:
        taker = Taker()
        await endpoint.asked(taker)
        endpoint.say(WITH_LENGTH + TAIL)
        endpoint.cut()
        await taker.has_ended.wait()

        assert (taker.body_bytes, taker.lost) == (len(TAIL), "")

    on_uvloop(endpoint, story())
