"""What an upstream sees of a request: as it was sent, but for what a proxy must change."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.messages import Feed
from tests.support.proxy import chain

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from tests.support.upstream import Received

DERIVED = {
    b"X-Forwarded-For",
    b"X-Forwarded-Proto",
    b"X-Forwarded-Host",
    b"X-Request-Id",
    b"X-Model-Version",
    b"X-Tenant",
}


async def polite(request: Received, writer: asyncio.StreamWriter) -> None:
    body = b"" if request.method == b"HEAD" else b"ok"
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)


async def forward(log: Path, request: bytes, how: Feed = Feed.WHOLE) -> Received:
    """Send one request through; return what the upstream saw of it."""
    async with chain(log, polite) as (proxy, upstream):
        answer = await proxy.ask(request, how)
        assert answer.status == 200, answer
        return upstream.received[0]


def end_to_end(request: Received) -> list[tuple[bytes, bytes]]:
    """What the sidecar did not add itself."""
    return [(name, value) for name, value in request.fields if name not in DERIVED]


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"]
)
async def test_a_method_arrives_as_sent(log: Path, method: bytes, how: Feed) -> None:
    request = await forward(log, method + b" /x HTTP/1.1\r\nHost: h\r\n\r\n", how)

    assert request.line == method + b" /x HTTP/1.1"
    assert request.body == b""


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"//two//slashes/",
        b"/a/../b/./c",
        b"/%2e%2e/%2E/x",
        b"/a%2Fb%2fc",
        b"/%zz%",
        b"/a?",
        b"/a?b=c&d=%20&b=",
        b"/a?x=y?z=/../",
        b"/a;p=1,2:3@4'(5)*!$+",
        b"/" + b"long" * 500,
    ],
)
async def test_a_target_arrives_byte_for_byte(log: Path, target: bytes, how: Feed) -> None:
    request = await forward(log, b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n", how)

    assert request.line == b"GET " + target + b" HTTP/1.1"


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize("before", [b"\r\n", b"\r\n\r\n\r\n"])
async def test_empty_lines_before_a_request_are_no_part_of_it(
    log: Path, before: bytes, how: Feed
) -> None:
    """RFC 9112 section 2.2: old clients put one after a body that is not told to have it."""
    async with chain(log, polite) as (proxy, upstream), proxy.client() as client:
        await client.send(before + b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na")
        assert (await client.answer()).status == 200
        await client.send(before + b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n", how)
        assert (await client.answer()).status == 200

        assert [one.line for one in upstream.received[:2]] == [
            b"POST /1 HTTP/1.1",
            b"GET /2 HTTP/1.1",
        ]


async def test_options_may_ask_about_the_server_as_a_whole(log: Path) -> None:
    request = await forward(log, b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")

    assert request.target == b"*"


@pytest.mark.parametrize("how", Feed)
async def test_header_lines_keep_order_case_repeats_and_bytes(log: Path, how: Feed) -> None:
    lines = (
        b"hOsT: Example.COM:8080\r\n"
        b"Accept: a\r\n"
        b"X-Empty:\r\n"
        b"x-UPPER-lower: v\r\n"
        b"Accept: b, c\r\n"
        b"X-Bytes: \xc3\xa9\xff\x80\r\n"
        b"X-Inner: a \t b\r\n"
        b"Accept: a\r\n"
        b"X!#$%&'*+-.^_`|~9: odd name\r\n"
        b"Authorization: Bearer x.y.z\r\n"
        b"Cookie: a=b; c=d\r\n"
    )

    request = await forward(log, b"GET / HTTP/1.1\r\n" + lines + b"\r\n", how)

    assert end_to_end(request) == [
        (b"hOsT", b"Example.COM:8080"),
        (b"Accept", b"a"),
        (b"X-Empty", b""),
        (b"x-UPPER-lower", b"v"),
        (b"Accept", b"b, c"),
        (b"X-Bytes", b"\xc3\xa9\xff\x80"),
        (b"X-Inner", b"a \t b"),
        (b"Accept", b"a"),
        (b"X!#$%&'*+-.^_`|~9", b"odd name"),
        (b"Authorization", b"Bearer x.y.z"),
        (b"Cookie", b"a=b; c=d"),
    ]


async def test_space_around_a_value_means_nothing(log: Path) -> None:
    request = await forward(
        log,
        b"POST / HTTP/1.1\r\nHost:h\r\nX-A: \t v\r\nX-Model-Version:  v1 \t\r\nX-Model:m \r\n"
        b"X-Tenant: acme \r\nConnection: X-B \r\nX-B: 1\r\nTransfer-Encoding: chunked \r\n\r\n"
        b"1\r\nx\r\n0\r\n\r\n",
    )

    assert request.body == b"x"
    assert request.get(b"X-A") == b"v"
    assert request.get(b"X-B") is None
    assert request.get(b"X-Tenant") == b"acme"
    assert request.get(b"X-Model-Version") == b"v1"


@pytest.mark.parametrize(
    "line",
    [
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authorization: Basic x",
        b"TE: trailers",
        b"te: gzip",
        b"HTTP2-Settings: x",
        b"Upgrade: h2c",
        b"Connection: keep-alive",
        b"connection: Foo",
    ],
)
async def test_hop_by_hop_fields_end_at_the_sidecar(log: Path, line: bytes) -> None:
    request = await forward(log, b"GET / HTTP/1.1\r\nHost: h\r\n" + line + b"\r\nX-A: 1\r\n\r\n")

    assert end_to_end(request) == [(b"Host", b"h"), (b"X-A", b"1")]


@pytest.mark.parametrize("how", Feed)
async def test_fields_that_connection_nominates_end_at_the_sidecar(log: Path, how: Feed) -> None:
    request = await forward(
        log,
        b"GET / HTTP/1.1\r\nX-Early: 1\r\nHost: h\r\nConnection: x-early ,\tX-Late\r\nX-Kept: 1\r\n"
        b"CONNECTION: X-Other,,\r\nX-Late: 1\r\nx-late: 2\r\nX-Other: 1\r\n\r\n",
        how,
    )

    assert end_to_end(request) == [(b"Host", b"h"), (b"X-Kept", b"1")]


async def test_connection_cannot_nominate_what_identity_routing_and_framing_depend_on(
    log: Path,
) -> None:
    request = await forward(
        log,
        b"POST / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer t\r\nX-Tenant: acme\r\n"
        b"Content-Length: 3\r\nX-Request-Id: kept\r\n"
        b"Connection: host, content-length, authorization, x-tenant, x-model-version, "
        b"x-request-id, x-forwarded-for, transfer-encoding\r\n\r\nabc",
    )

    assert request.body == b"abc"
    assert request.get(b"Host") == b"h"
    assert request.get(b"Authorization") == b"Bearer t"
    assert request.get(b"X-Tenant") == b"acme"
    assert request.get(b"X-Model-Version") == b"v1"
    assert request.get(b"X-Request-Id") == b"kept"
    assert request.get(b"X-Forwarded-For") == b"127.0.0.1"


@pytest.mark.parametrize("how", Feed)
async def test_what_the_sidecar_derives_is_never_a_clients_word(log: Path, how: Feed) -> None:
    request = await forward(
        log,
        b"GET / HTTP/1.1\r\nHost: real.example\r\nx-tenant: acme\r\nX-FORWARDED-FOR: 6.6.6.6\r\n"
        b"X-Forwarded-Proto: https\r\nx-forwarded-host: evil\r\nX-Model-Version: v1\r\n"
        b"x-model-decision: DEFAULT\r\nX-Shadow: 1\r\n\r\n",
        how,
    )

    assert request.get(b"X-Tenant") == b"acme"  # auth is off: believed, and said once
    assert request.get(b"X-Forwarded-For") == b"127.0.0.1"
    assert request.get(b"X-Forwarded-Proto") == b"http"
    assert request.get(b"X-Forwarded-Host") == b"real.example"
    assert request.get(b"X-Model-Version") == b"v1"
    assert request.get(b"X-Model-Decision") is None
    assert request.get(b"X-Shadow") is None


async def test_a_caller_without_a_tenant_is_given_none(log: Path) -> None:
    request = await forward(log, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")

    assert request.get(b"X-Tenant") is None


@pytest.mark.parametrize("how", Feed)
async def test_a_fit_request_id_is_kept_end_to_end(log: Path, how: Feed) -> None:
    async with chain(log) as (proxy, upstream):
        answer = await proxy.ask(
            b"GET / HTTP/1.1\r\nHost: h\r\nx-request-ID: a-1/\x7e\r\n\r\n", how
        )

        assert upstream.received[0].get(b"X-Request-Id") == b"a-1/~"
        assert answer.get(b"X-Request-Id") == b"a-1/~"
        assert (await proxy.recorded())[0]["request_id"] == "a-1/~"


@pytest.mark.parametrize(
    "unfit", [b"", b"a b", b"x" * 129, b"\xc3\xa9", b'"\ta"'], ids=lambda value: value[:8].hex()
)
async def test_an_unfit_request_id_is_replaced(log: Path, unfit: bytes) -> None:
    request = await forward(log, b"GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: %b\r\n\r\n" % unfit)

    made = request.get(b"X-Request-Id")
    assert made is not None
    assert re.fullmatch(rb"[0-9a-f]{32}", made)


async def test_request_ids_differ(log: Path) -> None:
    async with chain(log) as (proxy, _), proxy.client() as client:
        ids = {
            (await client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")).get(b"X-Request-Id")
            for _ in range(5)
        }

    assert len(ids) == 5


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize("size", [0, 1, 100])
async def test_a_small_body_by_length_arrives_exactly(log: Path, size: int, how: Feed) -> None:
    body = bytes(range(256))[:size]
    request = await forward(
        log, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + body, how
    )

    assert request.body == body
    assert request.get(b"Content-Length") == b"%d" % size
    assert request.get(b"Transfer-Encoding") is None


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize(
    "chunks",
    [
        b"0\r\n\r\n",
        b"1\r\nx\r\n0\r\n\r\n",
        b'5;ext=1;q="a;b"\r\nhello\r\n006\r\n world\r\nA\r\n0123456789\r\n00\r\n\r\n',
        b"2\r\n\r\n\r\n0\r\nX-Trailer: unannounced\r\n\r\n",
    ],
)
async def test_a_small_chunked_body_arrives_exactly(log: Path, chunks: bytes, how: Feed) -> None:
    bodies = {0: b"", 1: b"x", 5: b"hello world0123456789", 2: b"\r\n"}
    request = await forward(
        log, b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n" + chunks, how
    )

    assert request.body == bodies[int(chunks[:1])]
    assert request.get(b"Transfer-Encoding") == b"chunked"
    assert request.get(b"Content-Length") is None


@pytest.mark.parametrize("size", [64 * 1024, 1024 * 1024 + 3, 5_000_000])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["by length", "chunked"])
async def test_a_large_body_arrives_exactly(log: Path, size: int, is_chunked: bool) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    if is_chunked:
        pieces = [body[at : at + 70_001] for at in range(0, size, 70_001)]
        framed = b"".join(b"%X\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        head, sent = b"Transfer-Encoding: chunked", framed + b"0\r\n\r\n"
    else:
        head, sent = b"Content-Length: %d" % size, body

    request = await forward(log, b"PUT / HTTP/1.1\r\nHost: h\r\n" + head + b"\r\n\r\n" + sent)

    assert request.body == body


async def test_a_body_is_passed_on_before_it_is_whole(log: Path) -> None:
    async with chain(log) as (proxy, upstream), proxy.client() as client:
        # A second request on the same upstream connection proves what the first one left there.
        await client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab")
        await client.send(b"cd")
        answer = await client.answer()

        assert answer.status == 200
        assert upstream.received[1].body == b"abcd"
        assert upstream.connections == 1
