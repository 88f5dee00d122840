"""`Expect: 100-continue` (RFC 9110 section 10.1.1) when one of the two does not play along."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Timeouts
from sidecar.upstream.ejection import MAX_FAILURES
from tests.support.messages import Feed, feed
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import ANSWER, eventually, receive, scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.proxy import Client
    from tests.support.upstream import Received

HEAD = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Take a request's bytes and say nothing; a conversation."""
    await reader.read()


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
async def test_a_client_need_not_wait_for_an_upstream_that_does_not_say_continue(
    log: Path, how: Feed
) -> None:
    async with chain(log) as (running, upstream), running.client() as client:
        await client.send(HEAD, how)
        await eventually(lambda: upstream.connections == 1)  # its head is passed on at once
        await client.send(b"body", how)
        answer = await client.answer()

        assert (answer.status, answer.get(b"Connection")) == (200, None)
        assert upstream.received[0].body == b"body"
        assert (await client.ask(GET)).status == 200


async def test_who_waits_for_a_continue_that_never_comes_does_not_wait_for_ever(log: Path) -> None:
    timeouts = Timeouts(body_idle_s=0.1, drain_idle_s=0.05)
    async with (
        scripted_upstream(conversation=silent) as upstream,
        scripted_upstream(conversation=silent) as other,
        proxy(
            policy({"v1": {"endpoints": [upstream.url, other.url]}}), log, timeouts=timeouts
        ) as running,
    ):
        asked = (running.ask(HEAD) for _ in range(2 * MAX_FAILURES))
        for answer in await asyncio.gather(*asked):
            # A client may not wait for ever: the body that it does not send is what is missing.
            assert (answer.status, answer.code) == (408, "request-timeout")
            assert answer.get(b"Connection") == b"close"
        assert running.counted("rmv_timeouts_total", phase="body") == 2 * MAX_FAILURES
        assert running.counted("rmv_ejections_total") == 0  # else clients could take any out


async def test_an_upstream_that_says_continue_and_nothing_more_is_late(log: Path) -> None:
    async def stop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CONTINUE)
        await reader.read()

    timeouts = Timeouts(first_byte_s=0.1, drain_idle_s=0.05)
    async with (
        scripted_upstream(conversation=stop) as upstream,
        proxy(policy({"v1": upstream.url}), log, timeouts=timeouts) as running,
        running.client() as client,
    ):
        await client.send(HEAD)
        assert await client.head() == CONTINUE.strip()
        await client.send(b"body")
        answer = await client.answer()

        assert (answer.status, answer.code) == (504, "upstream-timeout")


async def test_http_1_0_is_not_told_to_continue(log: Path) -> None:
    async def expecting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CONTINUE)
        await reader.readexactly(4)
        writer.write(ANSWER)
        await receive(reader)

    async with (
        scripted_upstream(conversation=expecting) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
        running.client() as client,
    ):
        await client.send(HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"body")

        assert (await client.answer()).status == 200


async def _refused_early(client: Client, sent: bytes) -> None:
    await client.send(b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n" + sent)
    answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.get(b"Connection") == b"close"
    assert await client.rest() == b""


@pytest.mark.parametrize("sent", [b"", b"some"], ids=["nothing of its body", "some of its body"])
async def test_an_upstream_that_answers_before_the_body_gets_no_other_request_after_it(
    log: Path, sent: bytes
) -> None:
    """What came next on its connection would be taken for the rest of the body."""
    lines: list[bytes] = []

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines.append(head.split(b"\r\n")[0])
        await feed(writer, ANSWER, Feed.WHOLE, b"")
        rest = await reader.read()
        assert b"GET" not in rest

    async with (
        scripted_upstream(conversation=early) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
    ):
        async with running.client() as client:
            await _refused_early(client, sent)
        assert (await running.ask(GET)).body == b"ok"

        assert lines == [b"POST /early HTTP/1.1", b"GET / HTTP/1.1"]
        assert upstream.connections == 2


async def test_an_early_answer_to_a_request_that_came_whole_meanwhile_is_as_any_other(
    log: Path,
) -> None:
    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        assert request.body == b"body"
        writer.write(CONTINUE + ANSWER)

    async with chain(log, answer) as (running, upstream), running.client() as client:
        for _ in range(2):
            await client.send(HEAD + b"body")
            assert await client.head() == CONTINUE.strip()
            assert (await client.answer()).get(b"Connection") is None

        assert upstream.connections == 1
