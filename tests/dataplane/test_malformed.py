"""Requests that are refused for their form, before an upstream could answer them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.messages import MALFORMED_CHUNKS, Feed
from tests.support.proxy import chain

if TYPE_CHECKING:
    from pathlib import Path

START = b"POST / HTTP/1.1\r\n"
HOST = b"Host: h\r\n"
CL, TE = b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"

MALFORMED = {
    "length and chunks": START + HOST + CL + TE + b"\r\n" + CHUNKS,
    "chunks and length": START + HOST + TE + CL + b"\r\n" + CHUNKS,
    "two lengths": START + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "the same length twice": START + HOST + CL + CL + b"\r\nabc",
    "a list of lengths": START + HOST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": START + HOST + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": START + HOST + b"Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": START + HOST + b"Content-Length: 0x3\r\n\r\nabc",
    "a length of no digits": START + HOST + b"Content-Length:\r\n\r\nabc",
    "a length with a gap": START + HOST + b"Content-Length: 3 3\r\n\r\nabc",
    "a length past 64 bits": START + HOST + b"Content-Length: 18446744073709551619\r\n\r\nabc",
    "another coding": START + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "a coding after chunked": START + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + CHUNKS,
    "identity": START + HOST + b"Transfer-Encoding: identity\r\n\r\n" + CHUNKS,
    "nearly chunked": START + HOST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "quoted chunked": START + HOST + b'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNKS,
    "chunked with a parameter": START + HOST + b"Transfer-Encoding: chunked;a=b\r\n\r\n" + CHUNKS,
    "a vertical tab": START + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS,
    "chunked twice": START + HOST + TE + TE + b"\r\n" + CHUNKS,
    "chunked, chunked": START + HOST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS,
    "no coding": START + HOST + b"Transfer-Encoding:\r\n\r\n" + CHUNKS,
    "a folded line": START + HOST + b"X-A: 1\r\n 2\r\n\r\n",
    "a first line folded": START + b" X-A: 1\r\n" + HOST + b"\r\n",
    "a folded coding": START + HOST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS,
    "a bare LF after a line": START + HOST + b"X-A: 1\nX-B: 2\r\n\r\n",
    "a bare LF after the request line": b"GET / HTTP/1.1\n" + HOST + b"\r\n",
    "a bare LF at the end": b"GET / HTTP/1.1\r\n" + HOST + b"\n",
    "a bare CR in a value": START + HOST + b"X-A: 1\r2\r\n\r\n",
    "a bare CR at the end": START + HOST + b"X-A: 1\r\r\n\r\n",
    "NUL in a value": START + HOST + b"X-A: 1\x002\r\n\r\n",
    "NUL in a name": START + HOST + b"X\x00A: 1\r\n\r\n",
    "a control character in a value": START + HOST + b"X-A: \x01\r\n\r\n",
    "space before the colon": START + HOST + b"Content-Length : 3\r\n\r\nabc",
    "a tab before the colon": START + HOST + b"Transfer-Encoding\t: chunked\r\n\r\n" + CHUNKS,
    "space in a name": START + HOST + b"X A: 1\r\n\r\n",
    "a name of bytes past ASCII": START + HOST + b"X-\xc3\xa9: 1\r\n\r\n",
    "no name": START + HOST + b": 1\r\n\r\n",
    "no colon": START + HOST + b"X-A\r\n\r\n",
    "no Host": START + b"X-A: 1\r\n\r\n",
    "two Hosts": START + HOST + b"Host: other\r\n\r\n",
    "the same Host twice": START + HOST + HOST + b"\r\n",
    "an empty Host before another": START + b"Host:\r\n" + HOST + b"\r\n",
    "an empty Host after another": START + HOST + b"Host:\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /\r\n" + HOST + b"\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a control character in the target": b"GET /\x01 HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    "a method of nothing": b" / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method that is no token": b"G@T / HTTP/1.1\r\n" + HOST + b"\r\n",
    "several spaces before the target": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tab before the target": b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a Host that disagrees": b"GET http://one/ HTTP/1.1\r\nHost: two\r\n\r\n",
    "a target with a user": b"GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "an asterisk for another method": b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    "a Host that is none": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a Host with a user": b"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n",
    "a Host with a space": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "HTTP/1.0 with chunks": b"POST / HTTP/1.0\r\n" + HOST + TE + b"\r\n" + CHUNKS,
    "version 2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "version 1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "version 0.9": b"GET / HTTP/0.9\r\n" + HOST + b"\r\n",
    "another protocol": b"GET / ICE/1.0\r\n" + HOST + b"\r\n",
    "nearly a list": START + HOST + b"Transfer-Encoding: ,chunked\r\n\r\n" + CHUNKS,
    "a list that goes on": START + HOST + b"Transfer-Encoding: chunked,\r\n\r\n" + CHUNKS,
    "a length with an underscore": START + HOST + b"Content-Length: 1_0\r\n\r\n0123456789",
    "a length in other digits": START + HOST + "Content-Length: \u0663\r\n\r\nabc".encode(),
    "a bare CR in the target": b"GET /\r HTTP/1.1\r\n" + HOST + b"\r\n",
    "a bare CR before the request line": b"\rGET / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a bare LF before the request line": b"\nGET / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space before the request line": b" GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space after the version": b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n",
    "a version in lower case": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /\r\n",
    "NUL before the request line": b"\0GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in the method": b"G\0T / HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an empty Host": START + b"Host:\r\n\r\n",
    "a list of Hosts": START + b"Host: h, other\r\n\r\n",
    "a Host with a port that is none": START + b"Host: h:x\r\n\r\n",
    "a Host with an open bracket": START + b"Host: [::1\r\n\r\n",
    "a Host of bytes past ASCII": START + b"Host: h\xc3\xa9\r\n\r\n",
    "a Host that disagrees in its port": b"GET http://h:81/ HTTP/1.1\r\nHost: h:80\r\n\r\n",
    "a target without the Host's port": b"GET http://h/ HTTP/1.1\r\nHost: h:80\r\n\r\n",
    "the authority form": b"GET other:443 HTTP/1.1\r\nHost: other\r\n\r\n",
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}  # fmt: skip

NOT_IMPLEMENTED = {
    "CONNECT": b"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n",
    "h2c": b"GET / HTTP/1.1\r\n" + HOST
    + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
    "h2c beside another": b"GET / HTTP/1.1\r\n" + HOST
    + b"Connection: Upgrade\r\nUpgrade: websocket, H2C\r\n\r\n",
}  # fmt: skip


MALFORMED |= {why: START + HOST + TE + b"\r\n" + coded for why, coded in MALFORMED_CHUNKS.items()}


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_request_is_refused_and_its_connection_ended(
    log: Path, request_: bytes, how: Feed
) -> None:
    async with chain(log) as (proxy, upstream), proxy.client() as client:
        await client.send(request_, how)
        answer = await client.answer()

        assert (answer.status, answer.code) == (400, "malformed-request"), answer.body
        assert answer.get(b"Connection") == b"close"
        assert await client.rest() == b""
        # Whole heads whose bodies turn out malformed may be with the upstream, never as requests
        # that it could answer.
        assert upstream.received == []


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize("request_", NOT_IMPLEMENTED.values(), ids=NOT_IMPLEMENTED.keys())
async def test_what_is_not_supported_is_refused_and_its_connection_ended(
    log: Path, request_: bytes, how: Feed
) -> None:
    async with chain(log) as (proxy, upstream), proxy.client() as client:
        await client.send(request_, how)
        answer = await client.answer()

        assert (answer.status, answer.code) == (501, "not-implemented"), answer.body
        assert answer.get(b"Connection") == b"close"
        assert await client.rest() == b""
        assert upstream.received == []


async def test_a_problem_has_the_members_of_rfc_9457_and_its_request_id(log: Path) -> None:
    async with chain(log) as (proxy, _):
        answer = await proxy.ask(
            b"GET / HTTP/1.1\r\nHost: h\r\nX-Model-Version: v9\r\nX-Request-Id: mine\r\n\r\n"
        )

        assert answer.line == b"HTTP/1.1 404 No such version"
        assert answer.get(b"Cache-Control") == b"no-store"
        assert answer.get(b"X-Request-Id") == b"mine"
        assert answer.get(b"X-Model-Decision") == b"DENIED:unknown"
        assert answer.problem == {
            "type": "urn:rmv:problem:no-such-version",
            "title": "No such version",
            "status": 404,
            "detail": 'the model "m" has no such version',
            "code": "no-such-version",
            "request_id": "mine",
        }


async def test_a_refusal_to_head_has_a_head_alone(log: Path) -> None:
    async with chain(log) as (proxy, _), proxy.client() as client:
        await client.send(b"HEAD / HTTP/1.1\r\nHost: h\r\nX-Model-Version: v9\r\n\r\n")
        answer = await client.answer(b"HEAD")
        served = await client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")

    assert answer.status == 404
    assert int(answer.get(b"Content-Length") or 0) > 0
    assert (served.status, served.body) == (200, b"ok")


EVIL = b"evil\xff<script>"
ECHOED = {
    "a method": EVIL + b" / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target": b"GET /" + EVIL + b" x HTTP/1.1\r\n" + HOST + b"\r\n",
    "a version": b"GET / " + EVIL + b"\r\n" + HOST + b"\r\n",
    "a name": START + HOST + EVIL + b": 1\r\n\r\n",
    "a value": START + HOST + b"X-A: " + EVIL + b"\0\r\n\r\n",
    "a Host": START + b"Host: " + EVIL + b"\r\n\r\n",
    "a length": START + HOST + b"Content-Length: " + EVIL + b"\r\n\r\n",
    "a coding": START + HOST + b"Transfer-Encoding: " + EVIL + b"\r\n\r\n",
    "a chunk size": START + HOST + TE + b"\r\n" + EVIL + b"\r\n",
    "a trailer": START + HOST + TE + b"\r\n0\r\n" + EVIL + b"\r\n\r\n",
    "a request id": START + HOST + b"X-Request-Id: " + EVIL + b"\r\nX A: 1\r\n\r\n",
    "a protocol": START + HOST + b"Connection: Upgrade\r\nUpgrade: h2c, " + EVIL + b"\r\n\r\n",
    "a model": START + HOST + b"X-Model: " + EVIL + b"\r\n\r\n",
    "a version that is asked for": START + HOST + b"X-Model-Version: " + EVIL + b"\r\n\r\n",
    "a tenant": START + HOST + b"X-Tenant: " + EVIL + b"\r\nX-Model-Version: v9\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTE_BY_BYTE])
@pytest.mark.parametrize("request_", ECHOED.values(), ids=ECHOED.keys())
async def test_no_refusal_says_what_the_client_said(log: Path, request_: bytes, how: Feed) -> None:
    async with chain(log) as (proxy, upstream), proxy.client() as client:
        await client.send(request_, how)
        answer = await client.answer()

        said = answer.body + b"".join(value for _, value in answer.fields) + answer.line
        assert 400 <= answer.status < 502
        assert b"evil" not in said
        assert b"script" not in said
        assert upstream.received == []


async def test_a_malformed_request_is_recorded(log: Path) -> None:
    async with chain(log) as (proxy, _):
        await proxy.ask(b"GET / HTTP/1.1\r\nHost h\r\n\r\n")

        record = (await proxy.recorded())[0]
        assert (record["status"], record["code"]) == (400, "malformed-request")
