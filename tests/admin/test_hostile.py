"""What clients of the admin listener do to it that none should."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from sidecar.model.admin import AdminSettings
from tests.admin.desk import WITH_TOKENS, desk, token_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.valkey import Valkey

FRAUD = "/api/v1/policies/fraud"


async def test_who_does_not_read_answers_is_cut_off_and_fills_no_memory(
    valkey: Valkey, tmp_path: Path
) -> None:
    config = replace(WITH_TOKENS, admin_api=AdminSettings(timeout_s=0.3, connections=4))
    ask = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
    async with desk(valkey, tmp_path, config) as at:
        deaf = [await asyncio.open_connection("127.0.0.1", at.port, limit=1) for _ in range(4)]

        async def keep_asking(writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while True:
                    writer.write(ask)
                    await writer.drain()

        async with asyncio.timeout(30):
            await asyncio.gather(*(keep_asking(writer) for _, writer in deaf))
            health = await at.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _, writer in deaf:
            writer.close()
    assert health.status == 200


async def test_no_packed_body_is_unpacked(valkey: Valkey, tmp_path: Path) -> None:
    body = gzip.compress(b'{"tenant": "acme"}')
    head = (
        f"POST {FRAUD}/explain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token_of('viewer')}\r\nContent-Encoding: gzip\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    async with desk(valkey, tmp_path) as at:
        told = await at.send(head.encode() + body)
    assert told.status == 400


async def test_a_body_that_is_nested_too_deeply_is_told_as_that(
    valkey: Valkey, tmp_path: Path
) -> None:
    body = b'{"claims":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    head = (
        f"POST {FRAUD}/explain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token_of('viewer')}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with desk(valkey, tmp_path) as at:
        told = await at.send(head.encode() + body)
    assert told.status == 400
    assert b"nested too deeply" in told.body


@pytest.mark.parametrize("name", ["{b2c1}", "a/b", "..", "a:b", "*", "a b", "50%"])
async def test_tenants_and_tokens_of_any_name_are_pinned_and_taken_back(
    valkey: Valkey, tmp_path: Path, name: str
) -> None:
    spelled = quote(name, safe="").replace(".", "%2E")
    paths = {
        f"{FRAUD}/pins/{spelled}": {"version": "v1"},
        f"/api/v1/revocations/tenants/{spelled}": {"before_s": 1},
        f"/api/v1/revocations/tokens/{spelled}": {"reason": "stolen"},
    }
    async with desk(valkey, tmp_path) as at:
        done = [await at.call("PUT", path, body, role="admin") for path, body in paths.items()]
        pinned = await at.store.pins_of("fraud", [name])
        cutoffs = [one.tenant for one in await at.store.cutoffs()]
        tokens = [one.jti async for one in at.store.revoked()]
    assert [one.status for one in done] == [200, 200, 200]
    assert pinned == {name: "v1"}
    assert cutoffs == [name]
    assert tokens == [name]
