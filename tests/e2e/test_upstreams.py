"""A sidecar serves from endpoints behind TLS and behind unix sockets, as its configuration says."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import write_certificate
from tests.support.sidecar import flags, sidecar
from tests.support.upstream import Received, receive, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Model:
    """Answers on whatever socket it is served on."""

    def __init__(self) -> None:
        self.connections = 0
        self.received: list[Received] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.received.append(await receive(reader, self.connections))
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()


class EchoingModel(Model):
    """Answers with what it was sent."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = (await receive(reader)).body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()


class LastingModel(Model):
    """Answers until it closes: as TLS does that, or as anybody on the way can."""

    def __init__(self, *, ends_tls: bool) -> None:
        super().__init__()
        self._ends_tls = ends_tls

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receive(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf of")
        if self._ends_tls:
            writer.write(b" it all")
            writer.close()
        else:
            writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
            await reader.read()
            writer.close()


@asynccontextmanager
async def tls_model(
    cert: Path, key: Path, model: Model | None = None
) -> AsyncIterator[tuple[Model, int]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    model = model or Model()
    server = await asyncio.start_server(model.serve, "127.0.0.1", 0, ssl=context)
    try:
        yield model, server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def unix_model(path: Path) -> AsyncIterator[Model]:
    model = Model()
    server = await asyncio.start_unix_server(model.serve, path)
    try:
        yield model
    finally:
        server.close()


async def test_one_version_is_behind_tls_and_another_behind_a_socket(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    path = tmp_path / "m.sock"
    settings = f"""
        [upstream]
        sockets = ["{tmp_path}"]
        [upstream_tls]
        ca_file = "{cert}"
        [timeouts]
        connect_s = 10
    """
    async with (
        tls_model(cert, key) as (encrypted, port),
        unix_model(path) as local,
        sidecar(
            *flags(v1=f"https://localhost:{port}", v2=f"unix:{path}"), settings=settings
        ) as running,
    ):
        for _ in range(3):
            assert (await running.ask()).status == 200
            assert (await running.ask(X_Model_Version="v2")).status == 200

        assert (len(encrypted.received), encrypted.connections) == (3, 1)
        assert (len(local.received), local.connections) == (3, 1)


@pytest.mark.parametrize("size", [20_000, 1_000_000])
async def test_large_bodies_pass_tls_both_ways(tmp_path: Path, size: int) -> None:
    cert, key = write_certificate(tmp_path)
    body = bytes(n % 251 for n in range(size))
    settings = f'[upstream_tls]\nca_file = "{cert}"'
    async with (
        tls_model(cert, key, EchoingModel()) as (_, port),
        sidecar(*flags(v1=f"https://localhost:{port}"), settings=settings) as running,
    ):
        reader, writer = await asyncio.open_connection(*running.listen)
        head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % size + body)

        answer = await reader.read()

        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.partition(b"\r\n\r\n")[2] == body


async def test_what_is_not_believed_is_a_502_that_tells_the_client_nothing(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    async with (
        tls_model(cert, key) as (model, port),
        sidecar(*flags(v1=f"https://localhost:{port}", v2="unix:/run/docker.sock")) as running,
    ):
        answers = [await running.ask(), await running.ask(X_Model_Version="v2")]

        assert [answer.status for answer in answers] == [502, 502]
        assert model.received == []
        assert all(b"certificate" not in answer.body for answer in answers)
        assert all(b"sockets" not in answer.body for answer in answers)
        assert "self-signed certificate" in running.said()
        assert "upstream.sockets" in running.said()
        assert "endpoint=unix:/run/docker.sock versions=m:v2" in running.said()


async def test_an_answer_until_close_is_whole_only_if_tls_ends_it(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    settings = f'[upstream_tls]\nca_file = "{cert}"\n[timeouts]\nconnect_s = 10\n'
    async with (
        tls_model(cert, key, LastingModel(ends_tls=True)) as (_, whole),
        tls_model(cert, key, LastingModel(ends_tls=False)) as (_, cut),
        sidecar(
            *flags(v1=f"https://localhost:{whole}", v2=f"https://localhost:{cut}"),
            settings=settings,
        ) as running,
    ):
        assert (await running.ask()).body == b"half of it all"
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await running.ask(X_Model_Version="v2")
        codes = [record["code"] for record in await running.recorded(2)]

    assert codes == ["", "upstream-failed"]


async def test_endpoints_whose_certificates_are_not_verified_are_told_of(tmp_path: Path) -> None:
    settings = "[upstream_tls]\nverify = false\n[timeouts]\nconnect_s = 10"
    async with (
        tls_model(*write_certificate(tmp_path)) as (_, port),
        sidecar(*flags(v1=f"https://localhost:{port}"), settings=settings) as running,
    ):
        assert (await running.ask()).status == 200
        assert "UPSTREAM TLS IS NOT VERIFIED" in running.said()


def leading_to(url: str) -> dict[str, object]:
    return {"model": "m", "versions": {"v1": {"endpoints": [url]}}, "default": "v1"}


async def test_no_policy_leads_where_the_configuration_does_not() -> None:
    async with scripted_upstream() as listed, scripted_upstream() as other:
        named, unlisted = (one.url.replace("127.0.0.1", "localhost") for one in (listed, other))
        port = listed.url.rpartition(":")[2]
        settings = f'[endpoints]\nallow = ["localhost", "127.0.0.1:{port}"]\n'
        async with (
            sidecar(*flags(v1=named), settings=settings) as running,
            running.editor() as editor,
        ):
            assert (await running.ask()).status == 200

            # Past every command: the address is not listed, so the former policy serves.
            await editor.put(leading_to(other.url))
            await running.says("endpoints.allow")
            assert (await running.ask()).status == 200

            # The name is listed, but what it resolves to is not with that port.
            await editor.put(leading_to(unlisted))

            async def is_refused() -> bool:
                return (await running.ask()).status == 502

            await running.until(is_refused, "answer from nowhere")
            assert other.connections == 0
            assert "in none of the networks" in running.said()
