"""TLS as its peers choose it: versions, certificates that may be, a PROXY header first."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from sidecar.model.tls import TlsSettings
from sidecar.runtime.tls import ServerTls
from tests.support.certificates import write_certificate
from tests.support.messages import PATIENCE_S, Answer, read_answer
from tests.support.proxy import chain
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from pathlib import Path

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
PROXY = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"


def trusting(cert_file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cert_file))


async def ask(port: int, context: ssl.SSLContext, before: bytes = b"") -> Answer:
    """Ask by TLS; `before` goes first, in the clear."""
    loop = asyncio.get_running_loop()
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setblocking(False)  # noqa: FBT003 -- the name is Python's
    await loop.sock_sendall(plain, before)
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(
            sock=plain, ssl=context, server_hostname="localhost"
        )
        try:
            writer.write(GET)
            return await read_answer(reader)
        finally:
            writer.close()


async def test_a_client_certificate_may_be_optional_yet_is_never_a_bad_one(
    log: Path, tmp_path: Path
) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    known, unknown = write_certificate(tmp_path, "known"), write_certificate(tmp_path, "unknown")
    settings = TlsSettings(
        str(cert_file), str(key_file), client_certs="optional", client_ca_file=str(known[0])
    )
    async with chain(log, tls=ServerTls(settings)) as (proxy, upstream):
        assert (await ask(proxy.port, trusting(cert_file))).status == 200

        context = trusting(cert_file)
        context.load_cert_chain(*known)
        assert (await ask(proxy.port, context)).status == 200

        context = trusting(cert_file)
        context.load_cert_chain(*unknown)
        with pytest.raises((OSError, EOFError)):
            await ask(proxy.port, context)
        await eventually(lambda: proxy.counted("rmv_tls_handshake_failures_total") == 1)
        assert len(upstream.received) == 2


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", ["TLSv1_1", "TLSv1_2", "TLSv1_3"])
async def test_nothing_older_than_tls_1_2_is_spoken(
    log: Path, tmp_path: Path, version: str
) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    context = trusting(cert_file)
    context.set_ciphers("ALL:@SECLEVEL=0")  # or OpenSSL itself would not even ask by TLS 1.1
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    tls = ServerTls(TlsSettings(str(cert_file), str(key_file)))
    async with chain(log, tls=tls) as (proxy, _):
        if version != "TLSv1_1":
            assert (await ask(proxy.port, context)).status == 200
            return
        with pytest.raises(OSError, match=r".*") as refused:  # an alert, or just the end
            await ask(proxy.port, context)
        assert "NO_PROTOCOLS" not in str(refused.value)  # it did ask
        await eventually(lambda: proxy.counted("rmv_tls_handshake_failures_total") == 1)


async def test_a_balancers_header_goes_before_tls(log: Path, tmp_path: Path) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    tls = ServerTls(TlsSettings(str(cert_file), str(key_file)))
    async with chain(log, tls=tls, reads_proxy_header=True) as (proxy, upstream):
        assert (await ask(proxy.port, trusting(cert_file), before=PROXY)).status == 200

        assert upstream.received[0].get(b"X-Forwarded-For") == b"203.0.113.9"
        assert upstream.received[0].get(b"X-Forwarded-Proto") == b"https"
