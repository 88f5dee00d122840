"""Callers without a token, where settings say that they are believed."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from sidecar.identity.issuer import JWKS_FILE, create_keys, issue
from tests.support.messages import read_answer
from tests.support.sidecar import policy_flags, sidecar, spell
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

ISSUER, AUDIENCE = "https://issuer.test", "models"


def identity(folder: Path) -> str:
    """Make an issuer's keys; return the settings of a sidecar that believes it."""
    create_keys(folder, "EdDSA")
    return (
        f'[identity]\njwks_file = "{folder / JWKS_FILE}"\n'
        f'issuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n'
    )


def bearer(folder: Path, tenant: str) -> str:
    token = issue(
        folder,
        tenant=tenant,
        subject="ada",
        issuer=ISSUER,
        audience=AUDIENCE,
        lifetime_s=600.0,
        now_s=time.time(),  # noqa: TID251 -- the sidecar reads the same clock
    )
    return f"Bearer {token}"


async def test_headers_from_a_trusted_network_tell_who_calls_unless_a_token_does(
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys"
    settings = identity(keys) + '[callers]\ntrusted_networks = ["127.0.0.0/8"]\n'
    async with (
        scripted_upstream() as up,
        sidecar(*policy_flags(v1=up.url), settings=settings) as running,
    ):
        claimed = await running.ask("globex", X_Subject="bob")
        assert (claimed.status, up.received[-1].get(b"X-Tenant")) == (200, b"globex")

        shown = await running.ask("globex", Authorization=bearer(keys, "acme"))
        assert (shown.status, up.received[-1].get(b"X-Tenant")) == (200, b"acme")

        before = len(up.received)
        for field in ("Bearer forged", "Bearer", "bearer a.b.c"):
            assert (await running.ask("globex", Authorization=field)).status == 401
        assert (await running.ask()).status == 401
        assert len(up.received) == before


@pytest.mark.parametrize("networks", ["", 'trusted_networks = ["10.0.0.0/8"]\n'])
async def test_headers_from_anywhere_else_tell_nothing(tmp_path: Path, networks: str) -> None:
    settings = identity(tmp_path / "keys") + f"[callers]\n{networks}"
    async with (
        scripted_upstream() as up,
        sidecar(*policy_flags(v1=up.url), settings=settings) as running,
    ):
        answer = await running.ask("globex")

        assert answer.status == 401
        assert b"token-missing" in answer.body
        told = b"nothing else that is believed here says who calls"
        assert (told in answer.body) == bool(networks)
        assert up.received == []


async def test_who_connects_to_a_unix_socket_is_trusted_only_if_that_is_said(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rmv.sock"
    for settings, status in (("[callers]\ntrust_unix = true\n", 200), ("", 401)):
        issuer = identity(tmp_path / f"keys-{status}")
        async with (
            scripted_upstream() as up,
            sidecar(
                *policy_flags(v1=up.url),
                "--listen",
                f"unix:{file}",
                settings=issuer + settings,
                waits=False,
            ) as running,
        ):
            await running.says("msg=serving")
            reader, writer = await asyncio.open_unix_connection(str(file))
            writer.write(spell("globex"))
            assert (await read_answer(reader)).status == status
            writer.close()


async def test_without_an_issuer_every_token_is_refused(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys", "EdDSA")
    settings = '[callers]\ntrusted_networks = ["127.0.0.0/8"]\n'
    async with (
        scripted_upstream() as up,
        sidecar(*policy_flags(v1=up.url), settings=settings) as running,
    ):
        assert (await running.ask("globex")).status == 200
        shown = await running.ask("globex", Authorization=bearer(tmp_path / "keys", "acme"))
        assert shown.status == 401
        assert b"token-invalid" in shown.body
        assert (await running.ask()).status == 401
        assert "AUTH IS OFF" not in running.said()
