"""Behind a load balancer a client is whom the PROXY protocol names, and nobody comes without it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from sidecar.model.limits import Limits, Timeouts
from tests.support.messages import Feed
from tests.support.proxy import chain
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from pathlib import Path

GET = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
LINE = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"
BLOCK = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11"
    + struct.pack(">H", 12 + 7)
    + bytes((203, 0, 113, 9, 198, 51, 100, 1))
    + struct.pack(">HH", 4711, 443)
    + b"\x04\x00\x04noop"
)
OWN = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize("header", [LINE, BLOCK])
async def test_the_client_is_whom_the_header_names(header: bytes, how: Feed, log: Path) -> None:
    async with chain(log, reads_proxy_header=True) as (proxy, upstream):
        async with proxy.client() as client:
            await client.send(header + GET, how)
            assert (await client.answer()).status == 200

        assert upstream.received[0].fields.get(b"X-Forwarded-For") == b"203.0.113.9"


async def test_the_balancers_own_connection_is_its_own(log: Path) -> None:
    async with chain(log, reads_proxy_header=True) as (proxy, upstream):
        async with proxy.client() as client:
            await client.send(OWN + GET)
            assert (await client.answer()).status == 200

        assert upstream.received[0].fields.get(b"X-Forwarded-For") == b"127.0.0.1"


@pytest.mark.parametrize("said", [GET, b"PROXY me\r\n", BLOCK[:20]])
async def test_a_connection_without_the_header_is_closed_and_counted(
    said: bytes, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    timeouts = Timeouts(head_s=0.1)
    async with chain(log, reads_proxy_header=True, timeouts=timeouts) as (proxy, upstream):
        async with proxy.client() as client:
            await client.send(said)
            await eventually(lambda: proxy.counted("rmv_proxy_protocol_failures_total") == 1)

        assert not upstream.received
    [told] = [vars(record) for record in caplog.records]
    assert told["msg"] == "connection refused: no PROXY header"
    assert (told["peer"], told["failures"]) == ("127.0.0.1", 1)
    assert told["reason"]


async def test_who_only_looks_at_the_port_is_no_news(
    log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with chain(log, reads_proxy_header=True) as (proxy, _):
        async with proxy.client():
            pass
        await eventually(lambda: proxy.counted("rmv_proxy_protocol_failures_total") == 1)

    assert not caplog.records


async def test_connections_without_their_header_are_bounded(log: Path) -> None:
    limits = Limits(connections=2)
    async with (
        chain(log, reads_proxy_header=True, limits=limits) as (proxy, _),
        proxy.client() as served,
        proxy.client() as silent,
    ):
        await served.send(LINE + GET.replace(b"Connection: close\r\n", b""))
        assert (await served.answer()).status == 200
        async with proxy.client() as third:
            assert await third.rest() == b""
        assert proxy.counted("rmv_limits_hit_total", limit="connections") == 1

        silent.close()
        await eventually(lambda: proxy.counted("rmv_proxy_protocol_failures_total") == 1)
        async with proxy.client() as next_one:
            await next_one.send(LINE + GET)
            assert (await next_one.answer()).status == 200
