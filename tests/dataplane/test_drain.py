"""A drain ends what is idle, lets what is in hand finish, and takes nothing new."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from sidecar.dataplane.listener import Listener
from sidecar.model.limits import Timeouts
from sidecar.runtime.sockets import ignore_new_clients
from tests.support.messages import PATIENCE_S, read_answer
from tests.support.proxy import chain
from tests.support.upstream import ANSWER, eventually, never

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.upstream import Received

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


async def test_an_idle_sidecar_drains_at_once(log: Path) -> None:
    async with chain(log) as (proxy, _):
        assert await proxy.listener.drain() == 0


async def test_idle_clients_are_let_go_and_new_ones_refused(log: Path) -> None:
    async with chain(log) as (proxy, _), proxy.client() as used, proxy.client() as fresh:
        await used.ask(GET)
        await eventually(lambda: proxy.counted("rmv_connections_total") == 2)

        draining = asyncio.ensure_future(proxy.listener.drain())
        for client in (used, fresh):
            assert await client.rest() == b""
            client.close()
        assert await draining == 0
        with pytest.raises(ConnectionRefusedError):
            await proxy.ask(GET)


async def test_a_request_on_its_way_to_a_draining_sidecar_is_answered(log: Path) -> None:
    timeouts = Timeouts(drain_idle_s=PATIENCE_S)
    async with chain(log, timeouts=timeouts) as (proxy, _), proxy.client() as client:
        await client.ask(GET)
        draining = asyncio.ensure_future(proxy.listener.drain())
        await eventually(lambda: proxy.listener.plane.is_draining)
        answer = await client.ask(GET)

        assert (answer.status, answer.get(b"Connection")) == (200, b"close")
        assert await client.rest() == b""
        assert await draining == 0


async def test_an_answer_that_did_not_say_close_leaves_time_for_another_request(log: Path) -> None:
    is_open = asyncio.Event()

    async def slow_body(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await is_open.wait()
        writer.write(b"k")

    timeouts = Timeouts(drain_idle_s=PATIENCE_S)
    async with chain(log, slow_body, timeouts=timeouts) as (proxy, _), proxy.client() as client:
        await client.send(GET)
        assert b"Connection" not in await client.head()
        draining = asyncio.ensure_future(proxy.listener.drain())
        await eventually(lambda: proxy.listener.plane.is_draining)
        is_open.set()
        assert await client.exactly(2) == b"ok"

        assert (await client.ask(GET)).get(b"Connection") == b"close"
        assert await draining == 0


async def test_connections_in_the_kernels_queue_at_a_drain_are_served(log: Path) -> None:
    timeouts = Timeouts(drain_idle_s=PATIENCE_S)
    async with chain(log, timeouts=timeouts) as (proxy, _):
        queued = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(50)]
        for one in queued:  # the loop did not run meanwhile: all of them wait in the queue
            one.sendall(GET)
        draining = asyncio.ensure_future(proxy.listener.drain())
        for one in queued:
            reader, writer = await asyncio.open_connection(sock=one)
            assert (await read_answer(reader)).get(b"Connection") == b"close"
            assert await reader.read() == b""
            writer.close()

        assert await draining == 0


async def test_a_shared_sockets_queue_is_left_to_the_one_that_still_accepts(log: Path) -> None:
    async with chain(log) as (proxy, _):
        with socket.create_server(("127.0.0.1", 0)) as shared:
            listener = Listener(proxy.listener.plane)
            await listener.start(shared.dup())
            with socket.create_connection(shared.getsockname()) as client:
                client.sendall(GET)  # before the loop runs again
                await listener.drain(keeps_socket=True)
                accepted, _ = shared.accept()
                with accepted:
                    assert accepted.recv(100) == GET


async def test_no_client_of_repeated_drains_is_ever_reset(log: Path) -> None:
    """Clients that connect as fast as they can are either answered or never accepted."""

    async def hammer(port: int) -> None:
        while True:
            try:
                connected = asyncio.open_connection("127.0.0.1", port)
                reader, writer = await asyncio.wait_for(connected, 0.3)
            except (ConnectionRefusedError, TimeoutError):
                if is_ending:
                    return
                continue  # a busy machine, not the drain
            writer.write(GET)
            assert (await read_answer(reader)).status == 200
            writer.close()

    is_ending = False
    for _ in range(5):
        is_ending = False
        async with chain(log) as (proxy, _):
            with socket.create_server(("127.0.0.1", 0)) as held:
                listener = Listener(proxy.listener.plane)
                await listener.start(held.dup())
                port = held.getsockname()[1]
                clients = [asyncio.ensure_future(hammer(port)) for _ in range(8)]
                await eventually(lambda: proxy.counted("rmv_connections_total") > 20)
                is_ending = True
                ignore_new_clients(held)
            assert await listener.drain() == 0
            await asyncio.gather(*clients)


async def test_a_request_in_hand_finishes_and_its_connection_ends(log: Path) -> None:
    is_open = asyncio.Event()

    async def wait(_request: Received, writer: asyncio.StreamWriter) -> None:
        await is_open.wait()
        writer.write(ANSWER)

    async with chain(log, wait) as (proxy, upstream), proxy.client() as client:
        await client.send(GET)
        await upstream.until(1)
        draining = asyncio.ensure_future(proxy.listener.drain())
        await eventually(lambda: proxy.listener.plane.is_draining)
        is_open.set()
        answer = await client.answer()

        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.get(b"Connection") == b"close"
        assert await client.rest() == b""
        assert await draining == 0


async def test_a_head_in_hand_is_still_served(log: Path) -> None:
    async with chain(log) as (proxy, _), proxy.client() as client:
        await client.ask(GET)
        await client.send(GET[:8])
        # A second client proves that the first one's bytes have been read by now.
        await proxy.ask(GET)
        draining = asyncio.ensure_future(proxy.listener.drain())
        await eventually(lambda: proxy.listener.plane.is_draining)
        await client.send(GET[8:])
        answer = await client.answer()

        assert answer.get(b"Connection") == b"close"
        assert await draining == 0


async def test_a_drain_ends_in_its_time_and_counts_what_it_cut(log: Path) -> None:
    timeouts = Timeouts(drain_s=0.2)
    async with (
        chain(log, never, timeouts=timeouts) as (proxy, upstream),
        proxy.client() as first,
        proxy.client() as second,
    ):
        await first.send(GET)
        await second.send(GET)
        await upstream.until(2)

        assert await proxy.listener.drain() == 2
        for client in (first, second):
            answer = await client.answer()
            assert (answer.status, answer.code) == (503, "drained")
            assert answer.get(b"Connection") == b"close"
            assert await client.rest() == b""
        records = await proxy.recorded(2)
        assert {(one["status"], one["code"]) for one in records} == {(503, "drained")}
        assert proxy.counted("rmv_timeouts_total", phase="drain") == 2


async def test_an_answer_that_a_drain_cuts_short_is_no_clients_doing(log: Path) -> None:
    async def endless(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await asyncio.Event().wait()

    timeouts = Timeouts(drain_s=0.1)
    async with (
        chain(log, endless, timeouts=timeouts) as (proxy, _),
        proxy.client() as client,
    ):
        await client.send(GET)
        await client.until(b"data: 1")

        assert await proxy.listener.drain() == 1
        assert await client.reset()
        record = (await proxy.recorded())[0]
        assert (record["status"], record["code"]) == (200, "drained")


async def test_who_is_still_sending_when_a_drain_is_over_hears_of_it(log: Path) -> None:
    timeouts = Timeouts(drain_s=0.1)
    async with (
        chain(log, never, timeouts=timeouts) as (proxy, upstream),
        proxy.client() as client,
    ):
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab")
        await eventually(lambda: upstream.connections == 1)
        draining = asyncio.ensure_future(proxy.listener.drain())

        assert (await client.answer()).code == "drained"
        client.close()
        assert await draining == 1


async def test_a_tunnel_has_longer_to_end_than_a_request(log: Path) -> None:
    async def agree(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n")
        writer.write(b"Connection: Upgrade\r\n\r\n")

    upgrade = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    timeouts = Timeouts(drain_s=0.2, drain_tunnel_s=PATIENCE_S)
    async with (
        chain(log, agree, timeouts=timeouts) as (proxy, upstream),
        proxy.client() as tunnel,
        proxy.client() as request,
    ):
        await tunnel.send(upgrade)
        assert b" 101 " in await tunnel.head()
        await request.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
        await eventually(lambda: upstream.connections == 2)
        draining = asyncio.ensure_future(proxy.listener.drain())
        with suppress(ConnectionResetError):
            await request.rest()
        assert not draining.done()

        tunnel.close()
        assert await draining == 1


async def test_a_drain_without_time_closes_its_socket_all_the_same(log: Path) -> None:
    timeouts = Timeouts(drain_s=0.001, drain_tunnel_s=0.001)
    async with chain(log, timeouts=timeouts) as (proxy, _):
        await proxy.listener.drain()

        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
