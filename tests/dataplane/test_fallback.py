"""A version that cannot serve before the first byte of an answer is stood in for."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Limits, Timeouts
from tests.support.messages import Feed
from tests.support.proxy import policy, proxy
from tests.support.upstream import ANSWER, answering, never, reset, scripted_upstream

if TYPE_CHECKING:
    from asyncio import StreamWriter
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sidecar.model.identity import JSON
    from sidecar.upstream.connection import UpstreamConnection
    from tests.support.upstream import Received

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"


@pytest.fixture
def dead_url() -> Iterator[str]:
    """An address that refuses connections for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


async def resetting(_request: Received, writer: StreamWriter) -> None:
    """Read a request and reset instead of answering it."""
    reset(writer)


def chained(first: str | dict[str, JSON], *urls: str) -> bytes:
    """A policy of v1, v2, ... in which each falls back to the next; v1 is the default."""
    versions: dict[str, JSON] = {}
    for n, one in enumerate((first, *urls), 1):
        version: dict[str, JSON] = {"endpoints": [one]} if isinstance(one, str) else {**one}
        if n <= len(urls):
            version["fallback"] = f"v{n + 1}"
        versions[f"v{n}"] = version
    return policy(versions)


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize("request_", [GET, POST])
async def test_the_fallback_of_a_version_out_of_reach_gets_the_whole_request(
    log: Path, dead_url: str, request_: bytes, how: Feed
) -> None:
    async with (
        scripted_upstream(answering(ANSWER)) as upstream,
        proxy(chained(dead_url, upstream.url), log) as running,
    ):
        answer = await running.ask(request_, how)

        assert answer.status == 200
        assert answer.get(b"X-Model-Version") == b"v2"
        assert answer.get(b"X-Model-Decision") == b"FALLBACK:upstream-failed"
        received = (await upstream.until(1))[0]
        assert received.get(b"X-Model-Version") == b"v2"
        assert received.body == (b"ab" if request_ is POST else b"")
        record = (await running.recorded(1))[0]
        assert record["endpoint"] == upstream.url


async def test_a_chain_is_walked_to_its_end(log: Path, dead_url: str) -> None:
    async with (
        scripted_upstream(answering(ANSWER)) as upstream,
        proxy(chained(dead_url, dead_url, upstream.url), log) as running,
    ):
        assert (await running.ask(POST)).get(b"X-Model-Version") == b"v3"


async def test_a_chain_that_leads_nowhere_ends_in_the_failure(log: Path, dead_url: str) -> None:
    async with proxy(chained(dead_url, dead_url), log) as running:
        answer = await running.ask(POST)

        assert (answer.status, answer.code) == (502, "upstream-failed")
        plane = running.listener.plane
        plane.upstreams.measure()
        assert not any(
            level for name, level in running.metrics.levels.items() if name[0] == "rmv_in_flight"
        )


async def test_an_explicit_request_is_never_served_by_another_version(
    log: Path, dead_url: str
) -> None:
    async with (
        scripted_upstream(answering(ANSWER)) as upstream,
        proxy(chained(dead_url, upstream.url), log) as running,
    ):
        asked = b"GET / HTTP/1.1\r\nHost: h\r\nX-Model-Version: v1\r\n\r\n"

        assert (await running.ask(asked)).status == 502
        assert not upstream.received


async def test_a_post_that_may_have_been_done_is_not_sent_to_the_fallback(log: Path) -> None:
    async with (
        scripted_upstream(resetting) as failing,
        scripted_upstream(answering(ANSWER)) as spare,
        proxy(chained(failing.url, spare.url), log) as running,
    ):
        assert (await running.ask(POST)).status == 502
        assert not spare.received
        assert (await running.ask(GET)).get(b"X-Model-Version") == b"v2"


async def test_a_post_that_does_no_harm_twice_is_sent_to_the_fallback(log: Path) -> None:
    async with (
        scripted_upstream(resetting) as failing,
        scripted_upstream(answering(ANSWER)) as spare,
    ):
        first: dict[str, JSON] = {"endpoints": [failing.url], "idempotent": True}
        async with proxy(chained(first, spare.url), log) as running:
            answer = await running.ask(POST)

            assert answer.get(b"X-Model-Version") == b"v2"
            assert (await spare.until(1))[0].body == b"ab"


async def test_a_get_without_an_answer_in_time_is_sent_to_the_fallback(log: Path) -> None:
    async with scripted_upstream(never) as hung, scripted_upstream(answering(ANSWER)) as spare:
        first: dict[str, JSON] = {"endpoints": [hung.url], "timeouts": {"first_byte_s": 0.1}}
        async with proxy(chained(first, spare.url), log) as running:
            answer = await running.ask(GET)

            assert answer.get(b"X-Model-Decision") == b"FALLBACK:upstream-timeout"
            assert (await running.ask(POST)).status == 504


async def test_a_connection_that_comes_too_late_is_not_taken_for_the_fallbacks(log: Path) -> None:
    async def answering_once(request: Received, writer: StreamWriter) -> None:
        if len(first.received) == 1:
            writer.write(ANSWER)
        else:
            reset(writer)

    async with (
        scripted_upstream(answering_once) as first,
        scripted_upstream(answering(ANSWER)) as spare,
    ):
        version: dict[str, JSON] = {"endpoints": [first.url], "timeouts": {"first_byte_s": 0.2}}
        async with proxy(chained(version, spare.url), log) as running:
            assert (await running.ask(GET)).status == 200
            dial = running.listener.plane.upstreams.group((first.url,)).pools[0]._dial  # noqa: SLF001
            connect, may_connect = dial.connect, asyncio.Event()

            async def late(
                make: Callable[[], UpstreamConnection], timeout_s: float
            ) -> UpstreamConnection:
                await may_connect.wait()
                return await connect(make, timeout_s)

            dial.connect = late  # type: ignore[method-assign,assignment]  # a slow network

            answer = await running.ask(GET)  # lost, and tried again on a connection that is late

            assert (answer.status, answer.code) == (504, "upstream-timeout")
            may_connect.set()
            assert (await running.ask(GET)).get(
                b"X-Model-Version"
            ) == b"v2"  # lost again: v2's turn
            assert len(spare.received) == 1


async def test_a_crowded_version_sends_the_rest_to_its_fallback(log: Path) -> None:
    async with scripted_upstream(never) as busy, scripted_upstream(answering(ANSWER)) as spare:
        first: dict[str, JSON] = {"endpoints": [busy.url], "max_concurrency": 1, "max_queue": 0}
        async with proxy(chained(first, spare.url), log) as running, running.client() as client:
            await client.send(GET)
            await busy.until(1)

            answer = await running.ask(POST)

            assert answer.get(b"X-Model-Decision") == b"FALLBACK:overloaded"
            client.close()


async def test_who_waits_in_line_too_long_is_served_by_the_fallback(log: Path) -> None:
    timeouts = Timeouts(queue_s=0.05, drain_idle_s=0.05)
    async with scripted_upstream(never) as busy, scripted_upstream(answering(ANSWER)) as spare:
        first: dict[str, JSON] = {"endpoints": [busy.url], "max_concurrency": 1}
        async with (
            proxy(chained(first, spare.url), log, timeouts=timeouts) as running,
            running.client() as client,
        ):
            await client.send(GET)
            await busy.until(1)

            assert (await running.ask(POST)).get(b"X-Model-Version") == b"v2"
            client.close()


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_a_body_over_the_versions_limit_is_a_413(log: Path, how: Feed) -> None:
    async with scripted_upstream(answering(ANSWER)) as upstream:
        version: dict[str, JSON] = {"endpoints": [upstream.url], "max_body_bytes": 1}
        async with proxy(policy({"v1": version}), log) as running:
            answer = await running.ask(POST, how)
            chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"

            assert (answer.status, answer.code) == (413, "body-too-large")
            assert (await running.ask(chunked, how)).status == 413
            assert (await running.ask(GET)).status == 200


async def test_a_versions_limit_does_not_widen_the_settings(log: Path) -> None:
    async with scripted_upstream(answering(ANSWER)) as upstream:
        version: dict[str, JSON] = {"endpoints": [upstream.url], "max_body_bytes": 100}
        async with proxy(policy({"v1": version}), log, limits=Limits(body_bytes=1)) as running:
            assert (await running.ask(POST)).status == 413


async def test_a_version_has_its_own_patience_with_bodies(log: Path) -> None:
    async with scripted_upstream(never) as upstream:
        version: dict[str, JSON] = {
            "endpoints": [upstream.url],
            "timeouts": {"body_idle_s": 0.1},
        }
        async with proxy(policy({"v1": version}), log) as running, running.client() as client:
            await client.send(POST[:-1])

            assert (await client.answer()).status == 408


async def test_answers_of_a_draining_version_say_what_becomes_of_it(log: Path) -> None:
    async with scripted_upstream(answering(ANSWER)) as upstream:
        version: dict[str, JSON] = {
            "endpoints": [upstream.url],
            "state": "draining",
            "deprecation": {
                "since": "2026-11-01T00:00:00Z",
                "sunset": "2026-12-01T00:00:00Z",
                "link": "https://models.example/v1",
            },
        }
        document = policy({"v1": version, "v2": upstream.url}, default="v2")
        async with proxy(document, log) as running:
            asked = b"GET / HTTP/1.1\r\nHost: h\r\nX-Model-Version: v1\r\n\r\n"
            answer = await running.ask(asked)

            assert answer.get(b"Deprecation") == b"@1793491200"
            assert answer.get(b"Sunset") == b"Tue, 01 Dec 2026 00:00:00 GMT"
            assert answer.get(b"Link") == b'<https://models.example/v1>; rel="sunset"'
            assert (await running.ask(GET)).get(b"Deprecation") is None
