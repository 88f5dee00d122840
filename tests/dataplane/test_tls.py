"""Clients speak TLS, with the newest certificate, and failures trouble nobody else."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest

from sidecar.dataplane.acceptor import LOG_EVERY_S
from sidecar.model.limits import Limits, Timeouts
from sidecar.model.tls import TlsSettings
from sidecar.runtime.tls import ServerTls
from tests.support.certificates import write_certificate
from tests.support.clock import HandClock
from tests.support.messages import Answer, read_answer
from tests.support.proxy import chain
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from pathlib import Path

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def served(folder: Path, **settings: str) -> ServerTls:
    cert_file, key_file = write_certificate(folder)
    return ServerTls(
        TlsSettings(str(cert_file), str(key_file), **settings)  # type: ignore[arg-type]
    )


def trusting(cert_file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(cert_file))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def ask(port: int, context: ssl.SSLContext) -> tuple[Answer, str | None]:
    """Ask by TLS; return the answer and the protocol agreed on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(GET)
        agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        return await read_answer(reader), agreed
    finally:
        writer.close()


async def test_a_request_by_tls_is_served_and_http_1_1_agreed_on(log: Path, tmp_path: Path) -> None:
    async with chain(log, tls=served(tmp_path)) as (proxy, upstream):
        answer, agreed = await ask(proxy.port, trusting(tmp_path / "localhost.pem"))

        assert (answer.status, answer.body, agreed) == (200, b"ok", "http/1.1")
        assert upstream.received[0].fields.get(b"X-Forwarded-Proto") == b"https"


async def test_a_renewed_certificate_holds_for_new_connections(log: Path, tmp_path: Path) -> None:
    async with chain(log, tls=served(tmp_path)) as (proxy, _):
        write_certificate(tmp_path)
        await eventually(lambda: proxy.counted("rmv_tls_reloads_total", outcome="loaded") >= 1)

        answer, _ = await ask(proxy.port, trusting(tmp_path / "localhost.pem"))
        assert answer.status == 200


async def test_a_broken_certificate_leaves_the_former_one(log: Path, tmp_path: Path) -> None:
    async with chain(log, tls=served(tmp_path)) as (proxy, _):
        context = trusting(tmp_path / "localhost.pem")
        (tmp_path / "localhost.pem").write_text("nothing")
        await eventually(lambda: proxy.counted("rmv_tls_reloads_total", outcome="refused") == 1)

        answer, _ = await ask(proxy.port, context)
        assert answer.status == 200


async def test_a_required_client_certificate_is_checked(log: Path, tmp_path: Path) -> None:
    (tmp_path / "clients").mkdir()
    known = write_certificate(tmp_path / "clients", "known")
    tls = served(tmp_path, client_certs="required", client_ca_file=str(known[0]))
    async with chain(log, tls=tls) as (proxy, _):
        context = trusting(tmp_path / "localhost.pem")
        with pytest.raises((OSError, EOFError)):
            await ask(proxy.port, context)
        await eventually(lambda: proxy.counted("rmv_tls_handshake_failures_total") == 1)

        context.load_cert_chain(*known)
        answer, _ = await ask(proxy.port, context)
        assert answer.status == 200


async def test_renewed_authorities_for_clients_hold_for_new_connections(
    log: Path, tmp_path: Path
) -> None:
    (tmp_path / "clients").mkdir()
    former, later = (write_certificate(tmp_path / "clients", name) for name in ("former", "later"))
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(former[0].read_bytes())
    tls = served(tmp_path, client_certs="required", client_ca_file=str(trusted))
    async with chain(log, tls=tls) as (proxy, _):
        trusted.write_bytes(later[0].read_bytes())
        await eventually(lambda: proxy.counted("rmv_tls_reloads_total", outcome="loaded") == 1)

        context = trusting(tmp_path / "localhost.pem")
        context.load_cert_chain(*former)
        with pytest.raises((OSError, EOFError)):
            await ask(proxy.port, context)
        context.load_cert_chain(*later)
        answer, _ = await ask(proxy.port, context)
        assert answer.status == 200


async def test_failed_handshakes_are_told_with_peer_and_reason_but_not_each(
    log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HandClock()
    async with chain(log, tls=served(tmp_path), clock=clock) as (proxy, _):

        async def fail(times: int) -> None:
            failed = proxy.counted("rmv_tls_handshake_failures_total")
            for _ in range(times):
                async with proxy.client() as client:
                    await client.send(GET)
                    await client.reset()
            await eventually(
                lambda: proxy.counted("rmv_tls_handshake_failures_total") == failed + times
            )

        await fail(3)
        clock.advance(LOG_EVERY_S)
        await fail(1)

    told = [vars(record) for record in caplog.records]
    assert {one["msg"] for one in told} == {"connection refused: no TLS handshake"}
    assert {(one["peer"], one["reason"]) for one in told} == {("127.0.0.1", "http request")}
    assert [one["failures"] for one in told] == [1, 3]


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00"])
async def test_who_leaves_in_a_handshake_is_counted_and_no_news(
    said: bytes, log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with chain(log, tls=served(tmp_path)) as (proxy, _):
        async with proxy.client() as client:
            await client.send(said)
        await eventually(lambda: proxy.counted("rmv_tls_handshake_failures_total") == 1)

    assert not caplog.records


async def test_a_handshake_has_the_time_of_a_head(log: Path, tmp_path: Path) -> None:
    timeouts = Timeouts(head_s=0.05)
    async with (
        chain(log, tls=served(tmp_path), timeouts=timeouts) as (proxy, _),
        proxy.client() as client,
    ):
        assert await client.rest() == b""
        await eventually(lambda: proxy.counted("rmv_tls_handshake_failures_total") == 1)


async def test_handshakes_that_never_end_are_bounded_by_the_connections(
    log: Path, tmp_path: Path
) -> None:
    async with chain(log, tls=served(tmp_path), limits=Limits(connections=2)) as (proxy, _):
        context = trusting(tmp_path / "localhost.pem")
        async with proxy.client(), proxy.client():
            async with proxy.client() as third:
                assert await third.rest() == b""
            await proxy.swept()
            assert proxy.metrics.gauges["rmv_connections"] == 2
            assert proxy.counted("rmv_limits_hit_total", limit="connections") == 1
        await eventually(lambda: proxy.counted("rmv_tls_handshake_failures_total") == 2)

        answer, _ = await ask(proxy.port, context)
        assert answer.status == 200


async def test_a_drain_does_not_wait_for_those_who_say_nothing(log: Path, tmp_path: Path) -> None:
    async with chain(log, tls=served(tmp_path)) as (proxy, _), proxy.client() as silent:
        assert await proxy.listener.drain() == 0
        assert await silent.rest() == b""


async def test_an_older_version_than_agreed_is_refused(log: Path, tmp_path: Path) -> None:
    async with chain(log, tls=served(tmp_path, min_version="1.3")) as (proxy, _):
        context = trusting(tmp_path / "localhost.pem")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError, match=r".*"):  # an alert, or just the end
            await ask(proxy.port, context)
