"""Copies for shadow versions: faithful, without credentials, bounded, and of no consequence."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Limits, Timeouts
from tests.support.clock import HandClock
from tests.support.messages import Feed
from tests.support.proxy import policy, proxy
from tests.support.upstream import ANSWER, eventually, never, reset, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from sidecar.model.identity import JSON
    from tests.support.proxy import Proxy
    from tests.support.upstream import Received, Script, ScriptedUpstream

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /p?q HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"


@asynccontextmanager
async def mirrored(
    log: Path,
    shadow: Script = ANSWER,
    primary: Script = ANSWER,
    *,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    **sampling: JSON,
) -> AsyncIterator[tuple[Proxy, ScriptedUpstream, ScriptedUpstream]]:
    """Run v1 and its shadow v2; yield the upstreams of both."""
    async with scripted_upstream(primary) as first, scripted_upstream(shadow) as second:
        document = policy(
            {"v1": first.url, "v2": second.url},
            shadows=[{"version": "v2", "methods": ["POST"], **sampling}],
        )
        async with proxy(document, log, timeouts=timeouts, limits=limits) as running:
            yield running, first, second


def counted(running: Proxy, outcome: str | None = None) -> int:
    """How many requests and copies had this outcome, or came to any end."""
    if outcome is None:
        return counted(running, "eligible") - counted(running, "sampled-out") - under_way(running)
    return running.counted("rmv_mirrors_total", model="m", version="v2", outcome=outcome)


def under_way(running: Proxy) -> int:
    """How many copies have been sent and have come to no end."""
    return sum(book.under_way for book in running.listener.plane.mirror.books.values())


@pytest.fixture
def dead_url() -> Iterator[str]:
    """An address that refuses connections for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("how", Feed)
async def test_a_copy_says_what_the_original_said_but_for_credentials(log: Path, how: Feed) -> None:
    async with mirrored(log) as (proxy, first, second):
        await proxy.ask(
            b"POST //p/%2e?q HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nAuthorization: Bearer t\r\n"
            b"COOKIE: c=1\r\nx-api-KEY: k\r\nX-Tenant: acme\r\nX-Request-Id: one\r\nX-A: 2\r\n"
            b"Expect: 200-maybe\r\nContent-Length: 4\r\n\r\nbody",
            how,
        )
        copy = (await second.until(1))[0]

    original = first.received[0]
    assert (copy.line, copy.body) == (b"POST //p/%2e?q HTTP/1.1", b"body")
    assert [value for name, value in copy.fields if name == b"X-A"] == [b"1", b"2"]
    for name in (b"Host", b"X-Tenant", b"X-Request-Id", b"X-Forwarded-For", b"Content-Length"):
        assert copy.get(name) == original.get(name) is not None
    for name in (b"Authorization", b"Cookie", b"X-Api-Key"):
        assert copy.get(name) is None
        assert original.get(name) is not None
    assert (copy.get(b"X-Shadow"), original.get(b"X-Shadow")) == (b"1", None)
    assert (copy.get(b"X-Model-Version"), original.get(b"X-Model-Version")) == (b"v2", b"v1")


@pytest.mark.parametrize("how", Feed)
async def test_a_copy_of_chunks_has_a_length(log: Path, how: Feed) -> None:
    async with mirrored(log) as (proxy, _, second):
        await proxy.ask(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"4\r\nbody\r\n1\r\n!\r\n0\r\n\r\n",
            how,
        )
        copy = (await second.until(1))[0]

    assert (copy.body, copy.get(b"Content-Length")) == (b"body!", b"5")
    assert copy.get(b"Transfer-Encoding") is None


@pytest.mark.parametrize(
    ("framing", "length"),
    [(b"", None), (b"Content-Length: 0\r\n", b"0"), (b"Transfer-Encoding: chunked\r\n", b"0")],
)
async def test_a_copy_of_no_body_has_none(log: Path, framing: bytes, length: bytes | None) -> None:
    end = b"0\r\n\r\n" if b"chunked" in framing else b""
    async with mirrored(log) as (proxy, _, second):
        await proxy.ask(b"POST / HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\n" + end)
        copy = (await second.until(1))[0]

    assert (copy.body, copy.get(b"Content-Length")) == (b"", length)


async def test_a_body_of_many_reads_is_copied_whole(log: Path) -> None:
    body = bytes(range(256)) * 3_900  # just under the limit
    async with mirrored(log) as (proxy, first, second):
        await proxy.ask(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        copy = (await second.until(1))[0]

    assert copy.body == body == first.received[0].body


async def test_every_shadow_gets_a_copy_but_the_one_that_serves(log: Path) -> None:
    async with scripted_upstream() as one, scripted_upstream() as two, scripted_upstream() as three:
        shadows: JSON = [{"version": name} for name in ("v1", "v2", "v3")]
        document = policy({"v1": one.url, "v2": two.url, "v3": three.url}, shadows=shadows)
        async with proxy(document, log) as running:
            await running.ask(GET)
            await two.until(1)
            await three.until(1)

            assert len(one.received) == 1
            assert (await running.recorded())[0]["shadows"] == ["v2", "v3"]


async def test_a_refused_request_is_not_copied(log: Path) -> None:
    async with mirrored(log) as (proxy, _, second):
        await proxy.ask(b"GET / HTTP/1.1\r\nHost: h\r\nX-Model-Version: v9\r\n\r\n")
        await proxy.ask(GET)
        await second.until(1)
        await eventually(lambda: counted(proxy, "uncompared-off") == 1)

        assert counted(proxy) == 1


async def test_a_share_of_the_requests_is_sampled(log: Path) -> None:
    async with mirrored(log, percent=25) as (proxy, _, second), proxy.client() as client:
        for _ in range(200):
            await client.ask(GET)
        copies = sum("shadows" in one for one in await proxy.recorded(200))
        await second.until(copies)

        assert 20 <= copies <= 80  # ids are counted from a fixed start: the same every time
        await eventually(lambda: counted(proxy, "uncompared-off") == copies)


async def test_no_percent_is_no_copy(log: Path) -> None:
    async with mirrored(log, percent=0) as (proxy, _, second):
        await proxy.ask(GET)

        assert counted(proxy) == 0
        assert second.connections == 0


async def hang_up(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset_it(_request: Received, writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def stop_half_way(request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
    await never(request, writer)


@pytest.mark.parametrize(
    ("shadow", "outcome"),
    [
        (ANSWER, "uncompared-off"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "uncompared-off"),
        (b"garbage\r\n\r\n", "failed-lost"),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
         "failed-lost"),
        (hang_up, "failed-lost"),
        (reset_it, "failed-lost"),
        (never, "failed-timeout"),
        (stop_half_way, "failed-timeout"),
    ],
)  # fmt: skip
async def test_whatever_a_shadow_does_is_counted_and_changes_no_answer(
    log: Path, shadow: Script, outcome: str
) -> None:
    number = 5
    async with mirrored(log, shadow, timeouts=Timeouts(mirror_s=0.2)) as (proxy, _, second):
        async with proxy.client() as client:
            for _ in range(number):
                answer = await client.ask(POST)
                assert (answer.status, answer.body) == (200, b"ok")
                assert answer.get(b"X-Model-Version") == b"v1"
        await eventually(lambda: counted(proxy) == number)

        assert counted(proxy, outcome) == number
        assert len(second.received) == number  # none is sent twice
        assert proxy.counted("rmv_retries_total") == 0


async def test_a_shadow_out_of_reach_is_counted(log: Path, dead_url: str) -> None:
    async with scripted_upstream() as primary:
        document = policy({"v1": primary.url, "v2": dead_url}, shadows=[{"version": "v2"}])
        async with proxy(document, log) as running:
            assert (await running.ask(GET)).status == 200
            await eventually(lambda: counted(running, "failed-connect") == 1)

            assert counted(running) == 1


async def test_answers_of_shadows_are_counted_by_class(log: Path) -> None:
    async with mirrored(log, b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n") as (proxy, _, _):
        await proxy.ask(GET)
        await eventually(lambda: counted(proxy, "uncompared-off") == 1)

        labels = {"model": "m", "version": "v2", "class": "5xx"}
        assert proxy.counted("rmv_mirror_responses_total", **labels) == 1


async def test_a_body_over_the_limit_is_not_copied(log: Path) -> None:
    async with mirrored(log, limits=Limits(mirror_body_bytes=3)) as (proxy, first, second):
        assert (await proxy.ask(POST)).status == 200
        await eventually(lambda: counted(proxy, "skipped-size") == 1)

        assert counted(proxy) == 1
        assert first.received[0].body == b"body"
        assert second.received == []


async def test_copies_past_the_queue_are_dropped_and_counted(log: Path) -> None:
    limits = Limits(mirror_queue=5, mirror_connections=2)
    timeouts = Timeouts(mirror_s=0.3)
    async with mirrored(log, never, limits=limits, timeouts=timeouts) as (proxy, _, second):
        async with proxy.client() as client:
            await client.send(GET * 30)
            for _ in range(30):
                assert (await client.answer()).status == 200
        await eventually(lambda: counted(proxy) == 30)

        assert counted(proxy, "skipped-queue") >= 1
        assert counted(proxy, "failed-timeout") >= 2
        assert second.connections >= 2


async def test_copies_past_the_memory_are_dropped_and_it_is_given_back(log: Path) -> None:
    limits = Limits(mirror_memory_bytes=2_000, mirror_connections=1)
    body = bytes(1_000)
    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + body
    is_open = asyncio.Event()

    async def wait(_request: Received, writer: asyncio.StreamWriter) -> None:
        await is_open.wait()
        writer.write(ANSWER)

    async with (
        mirrored(log, wait, limits=limits) as (proxy, _, second),
        proxy.client() as client,
    ):
        for _ in range(5):
            await client.ask(request)
        await second.until(1)
        assert counted(proxy, "skipped-memory") == 4
        is_open.set()
        await eventually(lambda: counted(proxy, "uncompared-off") == 1)

        await client.ask(request)
        await eventually(lambda: counted(proxy, "uncompared-off") == 2)
        assert counted(proxy) == 6


async def test_a_request_that_does_not_become_whole_is_counted_and_its_memory_given_back(
    log: Path,
) -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not await reader.readexactly(500):
            return
        writer.write(b"HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()

    async with (
        scripted_upstream(conversation=early) as primary,
        scripted_upstream() as shadow,
    ):
        shadows: JSON = [{"version": "v2", "methods": ["POST"]}]
        document = policy({"v1": primary.url, "v2": shadow.url}, shadows=shadows)
        limits = Limits(mirror_memory_bytes=1_200)
        async with proxy(document, log, limits=limits) as running:
            for _ in range(4):  # more than memory has room for
                async with running.client() as client:
                    answer = await client.ask(head + bytes(500))
                    assert answer.status == 400

            assert counted(running, "skipped-aborted") == counted(running) == 4


async def test_a_client_that_leaves_half_way_is_counted(log: Path) -> None:
    async with mirrored(log) as (proxy, first, second):
        async with proxy.client() as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc")
            await eventually(lambda: first.connections == 1)
        await eventually(lambda: counted(proxy) == 1)

        assert counted(proxy, "skipped-aborted") == 1
        assert second.received == []


async def test_a_copy_under_way_at_the_end_is_counted(log: Path) -> None:
    limits = Limits(mirror_connections=1)
    async with mirrored(log, never, limits=limits) as (proxy, _, second):
        async with proxy.client() as client:
            for _ in range(3):
                await client.ask(GET)
        await second.until(1)
        await proxy.listener.drain()
        proxy.listener.plane.mirror.close()

        assert counted(proxy, "failed-shutdown") == 1
        assert counted(proxy, "skipped-draining") == 2  # they waited in line
        assert counted(proxy) == 3


async def test_a_copy_under_way_outlives_a_policy_change(log: Path) -> None:
    is_open = asyncio.Event()

    async def wait(_request: Received, writer: asyncio.StreamWriter) -> None:
        await is_open.wait()
        writer.write(ANSWER)

    async with mirrored(log, wait) as (proxy, first, second):
        await proxy.ask(GET)
        await second.until(1)
        proxy.live.put_policy("m", policy({"v1": first.url}))
        is_open.set()

        await eventually(lambda: counted(proxy, "uncompared-off") == 1)
        assert counted(proxy) == 1


@pytest.mark.parametrize("first_byte_s", [2, 120])
async def test_a_copy_waits_as_long_for_an_answer_as_its_version_says(
    log: Path, first_byte_s: int
) -> None:
    clock = HandClock()
    async with scripted_upstream() as primary, scripted_upstream(never) as hung:
        slow: JSON = {"endpoints": [hung.url], "timeouts": {"first_byte_s": first_byte_s}}
        document = policy({"v1": primary.url, "v2": slow}, shadows=[{"version": "v2"}])
        async with proxy(document, log, clock=clock) as running:
            await running.ask(GET)
            await hung.until(1)
            advance(running, clock, first_byte_s - 0.5)
            assert counted(running) == 0

            advance(running, clock, 1.0)
            await eventually(lambda: counted(running, "failed-timeout") == 1)


async def test_an_answer_that_has_begun_has_its_own_time_to_end(log: Path) -> None:
    clock = HandClock()
    go = asyncio.Event()

    async def slowly(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER[:-2])
        await go.wait()
        writer.write(b"ok")

    async with scripted_upstream() as primary, scripted_upstream(slowly) as shadow:
        quick: JSON = {"endpoints": [shadow.url], "timeouts": {"first_byte_s": 2}}
        document = policy({"v1": primary.url, "v2": quick}, shadows=[{"version": "v2"}])
        async with proxy(document, log, clock=clock) as running:
            await running.ask(GET)
            await eventually(lambda: running.counted("rmv_mirror_responses_total") == 1)
            advance(running, clock, 9.0)  # mirror_s is 10
            go.set()

            await eventually(lambda: counted(running, "uncompared-off") == 1)


DOWN = b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("bad", [DOWN, hang_up, reset_it, never])
async def test_an_endpoint_that_fails_copies_gets_no_more_of_them_and_keeps_its_clients(
    log: Path, bad: Script
) -> None:
    clock = HandClock()
    async with (
        scripted_upstream() as primary,
        scripted_upstream(bad) as failing,
        scripted_upstream() as good,
    ):
        v2: JSON = {"endpoints": [failing.url, good.url]}
        document = policy({"v1": primary.url, "v2": v2}, shadows=[{"version": "v2"}])
        async with proxy(document, log, clock=clock) as running:
            for number in range(1, 41):
                failed = len(failing.received)
                await running.ask(GET)
                await taken(number, failing, good)
                if bad is never and len(failing.received) > failed:
                    advance(running, clock, 11.0)  # mirror_s is 10
                await ended(running, number)

            assert len(failing.received) == 5
            told = {"model": "m", "version": "v2", "endpoint": failing.url, "traffic": "copies"}
            assert running.counted("rmv_ejections_total", **told) == 1
            assert running.counted("rmv_ejections_total") == 1
            assert is_in_use(running, failing.url)


async def test_copies_out_of_reach_never_eject_the_last_endpoint(log: Path, dead_url: str) -> None:
    async with scripted_upstream() as primary, scripted_upstream(DOWN) as failing:
        v2: JSON = {"endpoints": [dead_url, failing.url]}
        document = policy({"v1": primary.url, "v2": v2}, shadows=[{"version": "v2"}])
        async with proxy(document, log, clock=HandClock()) as running:
            for number in range(1, 41):
                await running.ask(GET)
                await ended(running, number)

            assert running.counted("rmv_ejections_total", traffic="copies") == 1
            assert counted(running, "uncompared-off") + counted(running, "failed-connect") == 40


def advance(running: Proxy, clock: HandClock, seconds: float) -> None:
    """Let time pass, and have it seen."""
    clock.advance(seconds)
    running.listener.plane.mirror.sweep(clock.monotonic_s())


async def taken(number: int, *shadows: ScriptedUpstream) -> None:
    """Wait until these have been sent so many copies."""
    await eventually(lambda: sum(len(shadow.received) for shadow in shadows) == number)


async def ended(running: Proxy, number: int) -> None:
    """Wait until something has become of so many copies."""
    await eventually(lambda: counted(running) == number)


def is_in_use(running: Proxy, url: str) -> bool:
    """Return whether clients' requests would go to an endpoint."""
    return running.listener.plane.upstreams.group((url,)).pools[0].is_available
