"""Clients and upstreams that make a lot of work wait for themselves; others are served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sidecar.dataplane.connection import MAX_REQUESTS
from sidecar.model.limits import Limits, Timeouts
from sidecar.wire.chunks import MAX_PIECES
from tests.support.proxy import policy, proxy
from tests.support.upstream import ANSWER, answering, eventually, scripted_upstream

if TYPE_CHECKING:
    from asyncio import StreamWriter
    from pathlib import Path

    from tests.support.upstream import Received

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
TINY = 20_000  # chunks of one byte: one read of the loop, a hundred turns
TINY_BODY = b"1\r\nx\r\n" * TINY + b"0\r\n\r\n"


async def test_a_body_of_tiny_chunks_arrives_whole(log: Path) -> None:
    async with (
        scripted_upstream(answering(ANSWER)) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
    ):
        assert (await running.ask(CHUNKED + TINY_BODY)).status == 200
        assert (await upstream.until(1))[0].body == b"x" * TINY


async def test_an_answer_of_tiny_chunks_arrives_whole(log: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + TINY_BODY
    async with (
        scripted_upstream(answer) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        for _ in range(2):  # its connection is as good as any afterwards
            assert (await client.ask(GET)).body == b"x" * TINY
        assert [one.connection for one in await upstream.until(2)] == [1, 1]


async def test_a_pipeline_of_refused_requests_is_answered_to_its_end(log: Path) -> None:
    number = 10 * MAX_REQUESTS
    refused = b"GET / HTTP/1.1\r\nHost: h\r\nX-Model-Version: none\r\n\r\n"
    async with (
        scripted_upstream(answering(ANSWER)) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        await client.send(refused * number + GET)

        for _ in range(number):
            assert (await client.answer()).status == 404
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("burst", ["chunks", "requests"])
async def test_the_loop_runs_between_the_turns_of_a_burst(log: Path, burst: str) -> None:
    """A read of one client takes many turns, and the loop comes round after each."""
    refused = b"GET / HTTP/1.1\r\nHost: h\r\nX-Model-Version: none\r\n\r\n"
    bursts = {
        "chunks": (CHUNKED + TINY_BODY, TINY // MAX_PIECES),
        "requests": (refused * 320, 320 // MAX_REQUESTS),
    }
    sent, turns = bursts[burst]
    async with (
        scripted_upstream(answering(ANSWER)) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        asked = 0
        plane = running.listener.plane
        ask = plane.turns.ask

        def counting(worker: object) -> None:
            nonlocal asked
            asked += 1
            ask(worker)  # type: ignore[arg-type]  # whoever asked for it

        plane.turns.ask = counting  # type: ignore[method-assign]
        await client.send(sent)
        await client.answer()
        await eventually(lambda: asked >= turns // 2)  # a read may come in two


async def test_a_client_that_leaves_amid_its_burst_costs_nobody(log: Path) -> None:
    async with (
        scripted_upstream(answering(ANSWER)) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
    ):
        async with running.client() as client:
            await client.send(CHUNKED + TINY_BODY[: TINY * 3])
            client.writer.transport.abort()
        assert (await running.ask(GET)).status == 200
        await eventually(lambda: len(running.records()) >= 1)


async def test_an_upstream_that_dies_amid_its_burst_is_a_cut(log: Path) -> None:
    async def dying(request: Received, writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + TINY_BODY[:-5])
        await writer.drain()
        writer.transport.abort()

    async with (
        scripted_upstream(dying) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        await client.send(GET)

        assert await client.reset()


async def test_a_trickle_does_not_put_a_bodys_deadline_off(log: Path) -> None:
    timeouts = Timeouts(body_idle_s=0.3, drain_idle_s=0.05)
    async with (
        scripted_upstream(answering(ANSWER)) as upstream,
        proxy(policy({"v1": upstream.url}), log, timeouts=timeouts) as running,
        running.client() as client,
    ):
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")
        answer = asyncio.ensure_future(client.answer())
        while not answer.done():
            client.writer.write(b"x")
            await asyncio.sleep(0.05)

        assert (await answer).status == 408


async def test_a_body_at_its_pace_has_all_the_time_it_needs(log: Path) -> None:
    timeouts = Timeouts(body_idle_s=0.4, drain_idle_s=0.05)
    limits = Limits(body_pace_bytes=1)
    async with (
        scripted_upstream(answering(ANSWER)) as upstream,
        proxy(policy({"v1": upstream.url}), log, timeouts=timeouts, limits=limits) as running,
        running.client() as client,
    ):
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.1)
            await client.send(b"x")

        assert (await client.answer()).status == 200


async def test_a_late_body_after_head_is_nobodys_answer(log: Path) -> None:
    async def late(request: Received, writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        if request.method == b"HEAD":
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
        else:
            writer.write(b"answer")

    async with (
        scripted_upstream(late) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        for _ in range(3):
            await client.ask(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.ask(GET)).body == b"answer"


async def test_a_status_line_cannot_be_nominated_away(log: Path) -> None:
    spoiled = (
        b"HTTP/1.1 200 a:b\r\nConnection: HTTP/1.1 200 a\r\nContent-Length: 2\r\nFoo: bar\r\n\r\nok"
    )
    async with (
        scripted_upstream(answering(spoiled)) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
    ):
        assert (await running.ask(GET)).status == 200


async def test_no_length_is_told_where_there_is_no_content(log: Path) -> None:
    async with (
        scripted_upstream(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n") as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        answer = await client.ask(GET)

        assert answer.status == 204
        assert answer.get(b"Content-Length") is None
        assert (await client.ask(GET)).status == 204


async def test_an_upgrade_into_a_half_read_body_is_a_502(log: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, proxy(policy({"v1": url}), log) as running, running.client() as client:
        await client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\na\r\nhel"
        )

        assert (await client.answer()).status == 502


@pytest.mark.parametrize("protocol", [b"h2c", b"H2C/2.0", b"websocket, h2"])
async def test_http2_is_refused_however_it_is_spelled(log: Path, protocol: bytes) -> None:
    async with (
        scripted_upstream(answering(ANSWER)) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
    ):
        asked = (
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % protocol
        )

        assert (await running.ask(asked)).status == 501
