"""WebSockets, other protocols and event streams pass as if there were no sidecar."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
import pytest
import pytest_asyncio

from tests.support.container import running as container
from tests.support.messages import PATIENCE_S, read_answer
from tests.support.sidecar import flags, sidecar, spell
from tests.support.upstream import ANSWER, answering, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.sidecar import Sidecar
    from tests.support.upstream import Received

pytestmark = pytest.mark.asyncio(loop_scope="module")
MIB = 1024 * 1024
ASKED = b"Connection: keep-alive, Upgrade\r\nUpgrade: echo/1\r\n"
UPGRADE = b"GET /echo HTTP/1.1\r\nHost: test\r\n" + ASKED + b"\r\n"
GIVEN = b"Connection: Upgrade\r\nUpgrade: echo/1\r\nX-Echo: 1\r\n"
SWITCHED = b"HTTP/1.1 101 Now Echoing\r\n" + GIVEN + b"\r\n"
NOT_HTTP = b"\x00\xff GET / HTTP/1.1\r\n\r\n\r\n0\r\n\r\n"


class Session(NamedTuple):
    """A sidecar, and a client whose base it is."""

    running: Sidecar
    client: aiohttp.ClientSession

    async def statuses_since(self, before: int, number: int) -> list[object]:
        """Return the statuses of so many records after the first `before`."""
        records = await self.running.recorded(before + number)
        return [one["status"] for one in records[before:]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[Session]:
    """The demo's container behind a sidecar; no test here changes either."""
    async with (
        container("--port", "0") as (_, ready),
        sidecar(
            "--no-auth", "--model", "tumor", "--default", "v2", "--version", f"v2={ready[-1]}"
        ) as running,
        aiohttp.ClientSession(
            "http://{}:{}".format(*running.listen),
            timeout=aiohttp.ClientTimeout(total=PATIENCE_S),
        ) as client,
    ):
        yield Session(running, client)


async def test_a_web_socket_echoes_whatever_it_is_sent(session: Session) -> None:
    before = len(session.running.records())
    async with session.client.ws_connect("/ws") as web_socket:
        await web_socket.send_str("ünïcode")
        assert await web_socket.receive_str(timeout=PATIENCE_S) == "ünïcode"
        for size in (0, 1, 126, 65_536, MIB):
            await web_socket.send_bytes(bytes(size))
            assert await web_socket.receive_bytes(timeout=PATIENCE_S) == bytes(size)
        await web_socket.ping()
    assert web_socket.close_code == aiohttp.WSCloseCode.OK

    assert await session.statuses_since(before, 1) == [101]


async def test_many_web_sockets_are_open_at_a_time(session: Session) -> None:
    before = len(session.running.records())
    web_sockets = [await session.client.ws_connect("/ws") for _ in range(20)]
    for number, web_socket in enumerate(web_sockets):
        await web_socket.send_str(str(number))
    said = [await web_socket.receive_str(timeout=PATIENCE_S) for web_socket in web_sockets]
    for web_socket in web_sockets:
        await web_socket.close()

    assert said == [str(number) for number in range(20)]
    assert await session.statuses_since(before, 20) == [101] * 20


async def test_an_event_arrives_while_the_next_is_a_minute_away(session: Session) -> None:
    url = "/v2/models/tumor/events?count=2&every_ms=60000"
    async with session.client.get(url) as stream:
        assert stream.content_type == "text/event-stream"
        assert await stream.content.readline() == b"id: 0\n"


async def test_any_protocol_passes_both_ways_and_each_half_ends_by_itself() -> None:
    heads: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(SWITCHED + b"welcome\n")  # in one piece with the head
        while data := await reader.read(65_536):
            writer.write(data)
        writer.write(b"bye\n")
        await writer.drain()
        writer.close()

    async with (
        scripted_upstream(conversation=echo) as upstream,
        sidecar(*flags(v1=upstream.url)) as running,
        asyncio.timeout(PATIENCE_S),
    ):
        reader, writer = await asyncio.open_connection(*running.listen)
        writer.write(UPGRADE)
        head = await reader.readuntil(b"\r\n\r\n")
        assert await reader.readline() == b"welcome\n"
        writer.write(NOT_HTTP)
        assert await reader.readexactly(len(NOT_HTTP)) == NOT_HTTP
        writer.write_eof()
        assert await reader.read() == b"bye\n"
        writer.close()

        record = (await running.recorded(1))[0]

    assert head.startswith(b"HTTP/1.1 101 Now Echoing\r\n")
    for line in (b"Connection: Upgrade", b"Upgrade: echo/1", b"X-Echo: 1", b"X-Model-Version: v1"):
        assert b"\r\n%b\r\n" % line in head
    assert b"\r\nUpgrade: echo/1\r\n" in heads[0]
    assert record["status"] == 101


@pytest.mark.parametrize(
    "answer",
    [ANSWER, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"],
    ids=["ignored", "refused"],
)
async def test_an_upgrade_that_is_not_made_is_an_exchange_as_any_other(answer: bytes) -> None:
    async with (
        scripted_upstream(answering(answer)) as upstream,
        sidecar(*flags(v1=upstream.url)) as running,
    ):
        reader, writer = await asyncio.open_connection(*running.listen)
        writer.write(UPGRADE)
        first = await read_answer(reader)
        writer.write(spell())
        second = await read_answer(reader)
        writer.close()

        received: list[Received] = await upstream.until(2)

    assert first.line == second.line == answer.split(b"\r\n")[0]
    assert first.body == answer[-2:]
    assert received[0].get(b"Upgrade") == b"echo/1"
    assert received[1].get(b"Upgrade") is None
