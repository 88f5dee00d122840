"""A drain ends what is idle, lets what is in hand finish, and takes nothing new."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Timeouts
from tests.support.proxy import chain
from tests.support.upstream import ANSWER, eventually, never

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.upstream import Received

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


async def test_an_idle_sidecar_drains_at_once(log: Path) -> None:
    async with chain(log) as (proxy, _):
        assert await proxy.listener.drain() == 0


async def test_idle_clients_are_closed_and_new_ones_refused(log: Path) -> None:
    async with chain(log) as (proxy, _), proxy.client() as used, proxy.client() as fresh:
        await used.ask(GET)
        await eventually(lambda: proxy.counted("rmv_connections_total") == 2)

        assert await proxy.listener.drain() == 0
        assert await used.rest() == b""
        assert await fresh.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await proxy.ask(GET)


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
        assert await first.rest() == b""
        assert await second.rest() == b""
        records = await proxy.recorded(2)
        assert {one["code"] for one in records} == {"client-gone"}
