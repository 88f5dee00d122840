"""What an endpoint sent by TLS before it closed is taken whole, on uvloop, however slowly."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, cast

import pytest
import uvloop

from sidecar.model.upstream import UpstreamTls
from sidecar.upstream.dial import Dialer
from sidecar.upstream.endpoint import parse_endpoint
from tests.support.certificates import write_certificate
from tests.support.messages import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.runtime.transport import Transport

TAIL = bytes(100_000)  # less than uvloop reads ahead by default, 256 KiB
TURNS = 100  # of the loop, in which the end may be seen


class Taker(asyncio.Protocol):
    """Counts what it takes."""

    transport: Transport

    def __init__(self) -> None:
        self.taken = 0
        self.has_begun = asyncio.Event()
        self.has_ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.taken += len(data)
        self.has_begun.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_ended.set()


def close(peer: ssl.SSLSocket, *, ends_tls: bool) -> None:
    """Send close_notify, if told so, and a FIN."""
    if ends_tls:
        peer.setblocking(False)  # noqa: FBT003 -- the name is Python's
        with pytest.raises(ssl.SSLWantReadError):  # the other side's is not here yet
            peer.unwrap()
    socket.socket.shutdown(peer, socket.SHUT_WR)


@pytest.mark.parametrize("ends_tls", [True, False])
def test_what_came_before_the_end_is_taken_by_who_was_slow(tmp_path: Path, ends_tls: bool) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    dialer = Dialer(tls=UpstreamTls(ca_file=str(cert_file)))

    async def story(listening: socket.socket) -> None:
        port = listening.getsockname()[1]
        dial = dialer.open(parse_endpoint(f"https://localhost:{port}"), lambda: 1.0)
        connecting = asyncio.ensure_future(dial.connect(Taker, PATIENCE_S))
        accepted, _ = await asyncio.to_thread(listening.accept)
        with await asyncio.to_thread(context.wrap_socket, accepted, server_side=True) as peer:
            taker = await connecting
            peer.sendall(b"x")
            await taker.has_begun.wait()
            taker.transport.pause_reading()
            peer.sendall(TAIL)
            close(peer, ends_tls=ends_tls)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            taker.transport.resume_reading()
            await taker.has_ended.wait()

            assert taker.taken == 1 + len(TAIL)

    async def in_time() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            async with asyncio.timeout(PATIENCE_S):
                await story(listening)

    uvloop.run(in_time())
