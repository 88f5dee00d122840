"""Busy, failing and crowded endpoints: what clients see; every count comes back to zero."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Timeouts
from tests.support.proxy import policy, proxy
from tests.support.upstream import ANSWER, answering, eventually, never, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from sidecar.model.identity import JSON
    from tests.support.proxy import Client, Proxy
    from tests.support.upstream import Received, ScriptedUpstream

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture
def dead_url() -> Iterator[str]:
    """An address that refuses connections for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def in_flight(running: Proxy) -> float:
    running.listener.plane.upstreams.measure()
    return running.metrics.levels.get(("rmv_in_flight", "model", "m", "version", "v1"), 0)


async def test_past_concurrency_and_line_a_request_is_refused_with_a_time_to_retry(
    log: Path,
) -> None:
    async with scripted_upstream(never) as upstream:
        version: dict[str, JSON] = {
            "endpoints": [upstream.url],
            "max_concurrency": 1,
            "max_queue": 0,
        }
        async with proxy(policy({"v1": version}), log) as running, running.client() as first:
            await first.send(GET)
            await upstream.until(1)

            answer = await running.ask(GET)

            assert (answer.status, answer.code) == (503, "overloaded")
            assert answer.get(b"Retry-After") == b"1"
            assert running.counted("rmv_limits_hit_total", limit="concurrency") == 1
            assert in_flight(running) == 1
            first.close()
            await eventually(lambda: in_flight(running) == 0)


async def test_who_waits_in_line_is_served_when_another_request_ends(log: Path) -> None:
    go = asyncio.Event()

    async def held(_request: Received, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(ANSWER)

    async with scripted_upstream(held) as upstream:
        version: dict[str, JSON] = {
            "endpoints": [upstream.url],
            "max_concurrency": 1,
            "max_queue": 3,
        }
        document = policy({"v1": version})
        async with proxy(document, log, timeouts=Timeouts(queue_s=60.0)) as running:
            asked = [asyncio.create_task(running.ask(GET)) for _ in range(4)]  # noqa: TID251
            await upstream.until(1)
            await eventually(lambda: waiting(running) == 3)
            assert len(upstream.received) == 1
            go.set()

            assert [answer.status for answer in await asyncio.gather(*asked)] == [200] * 4
            assert upstream.connections == 1
            assert in_flight(running) == 0


def waiting(running: Proxy) -> int:
    lanes = running.listener.plane.lanes.values()
    return sum(lane.group.waiting for lane in lanes)


@asynccontextmanager
async def crowded(
    log: Path, queue_s: float
) -> AsyncIterator[tuple[Proxy, Client, ScriptedUpstream]]:
    """Yield a proxy whose only place at v1 is held by the request of a client."""
    async with scripted_upstream(never) as upstream:
        document = policy({"v1": {"endpoints": [upstream.url], "max_concurrency": 1}})
        async with (
            proxy(document, log, timeouts=Timeouts(queue_s=queue_s)) as running,
            running.client() as first,
        ):
            await first.send(GET)
            await upstream.until(1)
            yield running, first, upstream


async def test_who_waits_in_line_too_long_is_refused(log: Path) -> None:
    async with crowded(log, queue_s=0.05) as (running, _, _), running.client() as second:
        answer = await second.ask(GET)
        again = await second.ask(GET)  # the client's connection is sound

        assert (answer.code, again.code) == ("overloaded", "overloaded")
        assert waiting(running) == 0
        told = {"limit": "concurrency", "model": "m", "version": "v1"}
        assert running.counted("rmv_limits_hit_total", **told) == 2


async def test_a_client_that_leaves_the_line_is_not_served(log: Path) -> None:
    async with crowded(log, queue_s=60.0) as (running, first, upstream):
        async with running.client() as second:
            await second.send(GET)
            await eventually(lambda: waiting(running) == 1)

        await eventually(lambda: waiting(running) == 0)
        first.close()
        await eventually(lambda: in_flight(running) == 0)
        assert len(upstream.received) == 1


async def test_an_endpoint_that_answers_503_gets_no_more_requests_for_a_while(log: Path) -> None:
    down = answering(b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n")
    async with scripted_upstream(down) as bad, scripted_upstream() as good:
        document = policy({"v1": {"endpoints": [bad.url, good.url]}})
        async with proxy(document, log) as running:
            for _ in range(60):
                await running.ask(GET)

            assert len(bad.received) == 5
            told = {"model": "m", "version": "v1", "endpoint": bad.url, "traffic": "requests"}
            assert running.counted("rmv_ejections_total", **told) == 1


async def test_retries_end_with_their_budget(log: Path, dead_url: str) -> None:
    endpoints: list[JSON] = [dead_url, dead_url.replace("127.0.0.1", "127.0.0.2")]
    document = policy({"v1": {"endpoints": endpoints}})
    async with proxy(document, log) as running, running.client() as client:
        statuses = {(await client.ask(GET)).status for _ in range(30)}

        assert statuses == {502}
        spent = running.counted("rmv_retries_total", cause="connect")
        assert 10 <= spent <= 20  # the reserve, and a fifth of the requests
        assert running.counted("rmv_retries_total", cause="budget-spent") == 30 - spent


@pytest.mark.parametrize("script", [ANSWER, answering(b"HTTP/1.1 200 OK\r\nCo", closes=True)])
async def test_every_count_comes_back_to_zero(log: Path, script: bytes) -> None:
    async with (
        scripted_upstream(script) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
    ):
        await asyncio.gather(*[running.ask(GET) for _ in range(20)])
        (lane,) = running.listener.plane.lanes.values()

        await eventually(lambda: lane.group.pools[0].outstanding == 0)
        assert in_flight(running) == 0
