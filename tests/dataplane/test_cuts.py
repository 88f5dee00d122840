"""An answer that an upstream cuts short looks cut short to every kind of client."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest

from sidecar.model.tls import TlsSettings
from sidecar.runtime.tls import ServerTls
from tests.support.certificates import write_certificate
from tests.support.messages import PATIENCE_S
from tests.support.proxy import chain
from tests.support.upstream import reset

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.upstream import Received

PARTS = {
    "by length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\npart",
    "between chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    "malformed chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nx\r\n",
}


class Cut:
    """Sends a part of an answer, and leaves when it is told that the client has it."""

    def __init__(self, part: bytes, end: str) -> None:
        self.is_seen = asyncio.Event()
        self._part = part.removesuffix(b"x\r\n")
        self._rest = part[len(self._part) :]
        self._end = end

    async def script(self, _request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(self._part)
        await self.is_seen.wait()
        writer.write(self._rest)
        writer.close() if self._end == "close" else reset(writer)


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
async def test_http_1_0_does_not_take_a_part_for_a_whole_body(
    log: Path, part: bytes, end: str
) -> None:
    cut = Cut(part, end)
    async with chain(log, cut.script) as (running, _), running.client() as client:
        await client.send(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        await client.until(b"part")
        cut.is_seen.set()

        assert await client.reset()
        assert (await running.recorded())[0]["code"] == "upstream-failed"


async def ends_by_tls(port: int, context: ssl.SSLContext, saw: asyncio.Event) -> bool:
    """Ask, tell of the first part, read on; return whether the end was one of TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seen, is_asked = b"", False
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    if not is_asked:
                        session.do_handshake()
                        session.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                        is_asked = True
                    data = session.read(65_536)
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    got = await reader.read(65_536)
                    incoming.write(got) if got else incoming.write_eof()
                    continue
                if not data:
                    return True
                seen += data
                if seen.endswith((b"part", b"part\r\n")):
                    saw.set()
    except (ConnectionResetError, ssl.SSLEOFError):
        assert b"part" in seen
        return False
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
async def test_a_client_by_tls_gets_no_end_of_tls_for_a_part(
    log: Path, tmp_path: Path, part: bytes
) -> None:
    certificate, key = write_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(certificate))
    tls = ServerTls(TlsSettings(str(certificate), str(key)))
    cut = Cut(part, "close")
    async with chain(log, cut.script, tls=tls) as (running, _):
        assert not await ends_by_tls(running.port, context, cut.is_seen)
        assert (await running.recorded())[0]["code"] == "upstream-failed"


async def test_a_client_by_tls_gets_the_end_of_tls_after_a_whole_answer(
    log: Path, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(certificate))
    tls = ServerTls(TlsSettings(str(certificate), str(key)))
    whole = Cut(b"HTTP/1.1 200 OK\r\n\r\npart", "close")
    async with chain(log, whole.script, tls=tls) as (running, _):
        assert await ends_by_tls(running.port, context, whole.is_seen)
