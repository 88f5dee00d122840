"""Peers that mean harm: endless heads, look-alike fields, a retry provoked by half an answer."""

from __future__ import annotations

import asyncio
from itertools import repeat
from typing import TYPE_CHECKING

import pytest

from tests.support.proxy import chain
from tests.support.upstream import ANSWER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.upstream import Received

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
LINE = b"X-Pad: " + b"p" * 1000 + b"\r\n"
MANY = 1000  # of a thousand bytes each: far over any limit, far under what would hurt a test


def endless_heads() -> Iterator[tuple[str, bytes, bytes]]:
    """What comes first, and what follows again and again."""
    yield "fields", b"HTTP/1.1 200 OK\r\n", LINE
    yield "one field", b"HTTP/1.1 200 OK\r\nX-Pad: ", b"p" * 1000
    yield "a reason", b"HTTP/1.1 200 ", b"p" * 1000
    yield "interim answers", b"", b"HTTP/1.1 103 Early Hints\r\n" + LINE + b"\r\n"


@pytest.mark.parametrize(("first", "again"), [case[1:] for case in endless_heads()])
async def test_a_response_head_without_end_is_a_failure(
    log: Path, first: bytes, again: bytes
) -> None:
    async def send(_request: Received, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(first)
            for piece in repeat(again, MANY):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            return

    async with chain(log, send) as (running, _), running.client() as client:
        await client.send(GET)
        seen = b""
        while b'"code":"upstream-failed"' not in seen:
            seen += await client.some()

        assert b"HTTP/1.1 502" in seen
        assert running.records()[-1]["code"] == "upstream-failed"


async def test_response_trailers_without_end_are_cut(log: Path) -> None:
    async def send(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
        await begun.wait()
        try:
            for piece in repeat(LINE, MANY):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            return

    begun = asyncio.Event()
    async with chain(log, send) as (running, _), running.client() as client:
        await client.send(GET)
        await client.until(b"ok")
        begun.set()

        assert await client.reset()
        assert running.records()[-1]["code"] == "upstream-failed"


async def test_an_interim_answer_is_never_repeated_by_a_retry(log: Path) -> None:
    async def fail_second(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target == b"/first":
            writer.write(ANSWER)
            return
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        writer.close()

    async with chain(log, fail_second) as (running, upstream), running.client() as client:
        await client.ask(b"GET /first HTTP/1.1\r\nHost: h\r\n\r\n")
        await client.send(GET)
        seen = await client.until(b"upstream-failed")

        assert seen.count(b"103 Early Hints") == 1
        assert len(upstream.received) == 2


@pytest.mark.parametrize(
    "name",
    [
        b"X_Tenant",
        b"x_forwarded_for",
        b"X_Model-Decision",
        b"X.Tenant",
        b"x-model~Version",
        b"Host_",
    ],
)
async def test_what_reads_like_a_derived_field_to_cgi_is_left_out(log: Path, name: bytes) -> None:
    async with chain(log) as (running, upstream):
        await running.ask(b"GET / HTTP/1.1\r\nHost: h\r\n" + name + b": evil\r\n\r\n")

        is_known = name != b"Host_"
        assert (b"evil" not in upstream.received[0].head) is is_known


async def test_a_target_with_a_fragment_is_refused(log: Path) -> None:
    async with chain(log) as (running, upstream):
        answer = await running.ask(b"GET /x#y HTTP/1.1\r\nHost: h\r\n\r\n")

        assert (answer.status, answer.code) == (400, "malformed-request")
        assert upstream.received == []
