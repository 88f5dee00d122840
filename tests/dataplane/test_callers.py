"""Who calls over a connection without a token: told by the connection, and by no request."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.errors import Code
from sidecar.identity.cache import IdentityCache
from sidecar.identity.callers import Callers
from sidecar.identity.refusal import TokenRefused
from sidecar.model.caller import CallerSettings
from sidecar.model.identity import Identity
from sidecar.model.tls import TlsSettings
from sidecar.runtime.tls import ServerTls
from tests.support.certificates import write_certificate
from tests.support.messages import PATIENCE_S, Answer, read_answer
from tests.support.proxy import policy, proxy
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.proxy import Proxy
    from tests.support.upstream import ScriptedUpstream

TRUSTING = CallerSettings(trusted_networks=("127.0.0.0/8",))
GET = b"GET / HTTP/1.1\r\nHost: h\r\n%b\r\n"


class OneToken:
    """Believes the token `good`, which is of the tenant acme."""

    def verify(self, token: bytes, _now_s: float) -> Identity:
        if token != b"good":
            raise TokenRefused(Code.TOKEN_INVALID, "it is another")
        return Identity("acme")


@asynccontextmanager
async def running(
    log: Path,
    settings: CallerSettings,
    *,
    tls: ServerTls | None = None,
    reads_proxy_header: bool = False,
) -> AsyncIterator[tuple[Proxy, ScriptedUpstream]]:
    identities = IdentityCache(OneToken(), 10, 8192)
    async with (
        scripted_upstream() as upstream,
        proxy(
            policy({"v1": upstream.url}),
            log,
            identities=identities,
            tls=tls,
            reads_proxy_header=reads_proxy_header,
            callers=Callers(settings),
        ) as one,
    ):
        yield one, upstream


def seen(upstream: ScriptedUpstream) -> bytes | None:
    """Return the tenant that the upstream saw last."""
    return upstream.received[-1].get(b"X-Tenant")


async def test_a_token_comes_before_headers_on_one_connection(log: Path) -> None:
    async with running(log, TRUSTING) as (one, upstream), one.client() as client:
        claimed = await client.ask(GET % b"X-Tenant: globex\r\n")
        assert (claimed.status, seen(upstream)) == (200, b"globex")

        shown = await client.ask(GET % b"X-Tenant: globex\r\nAuthorization: Bearer good\r\n")
        assert (shown.status, seen(upstream)) == (200, b"acme")

        forged = await client.ask(GET % b"X-Tenant: globex\r\nAuthorization: Bearer bad\r\n")
        assert forged.status == 401
        nobody = await client.ask(GET % b"")
        assert nobody.status == 401
        basic = await client.ask(GET % b"X-Tenant: globex\r\nAuthorization: Basic YTpi\r\n")
        assert (basic.status, seen(upstream)) == (200, b"globex")
        twice = await client.ask(GET % b"X-Tenant: a\r\nX-Subject: b\r\nX-Subject: c\r\n")
        assert twice.status == 400


@pytest.mark.parametrize(
    ("source", "status"), [(b"127.0.0.9", 200), (b"203.0.113.9", 401), (b"10.0.0.1", 401)]
)
async def test_behind_a_balancer_the_client_has_to_be_trusted_as_well(
    log: Path, source: bytes, status: int
) -> None:
    before = b"PROXY TCP4 %b 198.51.100.1 4711 443\r\n" % source
    async with running(log, TRUSTING, reads_proxy_header=True) as (one, _):
        answer = await one.ask(before + GET % b"X-Tenant: globex\r\n")

    assert answer.status == status


async def test_nobody_is_trusted_by_naming_an_address(log: Path) -> None:
    settings = CallerSettings(trusted_networks=("10.0.0.0/8",))
    async with running(log, settings, reads_proxy_header=True) as (one, _):
        answer = await one.ask(
            b"PROXY TCP4 10.0.0.1 198.51.100.1 4711 443\r\n"
            + GET % b"X-Tenant: globex\r\nX-Forwarded-For: 10.0.0.1\r\n"
        )

    assert answer.status == 401


@pytest.mark.parametrize(
    "before",
    [
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x00\x00\x00",
        b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
    ],
)
async def test_whom_a_balancer_does_not_name_is_not_trusted_in_its_place(
    log: Path, before: bytes
) -> None:
    async with running(log, TRUSTING, reads_proxy_header=True) as (one, _):
        answer = await one.ask(before + GET % b"X-Tenant: globex\r\n")

    assert answer.status == 401


async def test_a_certificate_tells_who_calls_unless_a_token_does(log: Path, tmp_path: Path) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    known = write_certificate(tmp_path, "globex")
    tls = ServerTls(
        TlsSettings(
            str(cert_file), str(key_file), client_certs="optional", client_ca_file=str(known[0])
        )
    )
    async with running(log, CallerSettings("cn"), tls=tls) as (one, upstream):
        bare, certified = trusting(cert_file), trusting(cert_file)
        certified.load_cert_chain(*known)

        assert (await ask(one.port, bare, b"X-Tenant: globex\r\n")).status == 401
        assert (await ask(one.port, certified, b"X-Tenant: hooli\r\n")).status == 200
        assert seen(upstream) == b"globex"
        assert (await ask(one.port, certified, b"Authorization: Bearer good\r\n")).status == 200
        assert seen(upstream) == b"acme"
        assert (await ask(one.port, certified, b"Authorization: Bearer bad\r\n")).status == 401


def trusting(cert_file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cert_file))


async def ask(port: int, context: ssl.SSLContext, fields: bytes) -> Answer:
    plain = socket.create_connection(("127.0.0.1", port))
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(
            sock=plain, ssl=context, server_hostname="localhost"
        )
        try:
            writer.write(GET % fields)
            return await read_answer(reader)
        finally:
            writer.close()
