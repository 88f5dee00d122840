"""A sidecar that cannot begin says why in one line; one that must wait says so and waits."""

from __future__ import annotations

import asyncio
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.support.sidecar import editor, flags, sidecar
from tests.support.upstream import scripted_upstream
from tests.support.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.sidecar import Sidecar

NOWHERE = "http://127.0.0.1:9"
POLICY = flags(v1=NOWHERE)
IDENTITY = '[identity]\njwks_file = "{}"\nissuer = "i"\naudience = "a"\n'


async def refusal(running: Sidecar) -> tuple[int, str]:
    """Return how it ended, and the one line that says why: all others are log lines."""
    status = await running.ended()
    lines = running.said().splitlines()
    [why] = [line for line in lines if not line.startswith("at=")]
    return status, why


@pytest.mark.parametrize("flag", ["--listen", "--admin"])
async def test_an_address_that_is_taken_is_named(flag: str) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    taken = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]  # noqa: UP031 -- a port
    try:
        async with sidecar(*POLICY, flag, taken, waits=False) as running:
            status, why = await refusal(running)
    finally:
        server.close()

    assert status == 1
    assert why == f"error: cannot listen on {taken}: Address already in use"


async def test_a_second_sidecar_does_not_take_every_other_connection_of_the_first() -> None:
    async with sidecar(*POLICY) as first:
        taken = f"127.0.0.1:{first.listen[1]}"
        async with sidecar(*POLICY, "--listen", taken, waits=False) as second:
            status, why = await refusal(second)

    assert status == 1
    assert f"cannot listen on {taken}" in why


async def test_without_redis_it_answers_503_and_heals_when_redis_comes(late: Valkey) -> None:
    async with (
        scripted_upstream() as up,
        sidecar("--no-auth", "--model", "m", "--redis", late.url, waits=False) as running,
    ):
        await running.says("policies are not loaded")
        await running.until(lambda: answers_not_ready(running), "503")
        assert await running.asked_admin("/livez") == (200, "ok\n")
        status, why = await running.asked_admin("/readyz")
        assert (status, why) == (503, "worker 0: policies are not loaded\n")

        await late.start()
        document = {"model": "m", "versions": {"v1": {"endpoints": [up.url]}}, "default": "v1"}
        async with editor(late.url) as plain:
            await plain.put({**document})

        await running.until(running.is_ready, "ready")
        await running.until(lambda: is_served(running), "200")
        await running.says("msg=serving")


@pytest.fixture
async def late() -> AsyncIterator[Valkey]:
    """A server that does not run yet."""
    with tempfile.TemporaryDirectory(prefix="rmv-") as folder:
        server = Valkey(folder)
        yield server
        await server.client.aclose()
        await server.stop()


async def answers_not_ready(running: Sidecar) -> bool:
    await running.located()
    answer = await running.ask()
    return answer.status == 503 and answer.code == "not-ready" and bool(answer.get(b"Retry-After"))


async def is_served(running: Sidecar) -> bool:
    return (await running.ask()).status == 200


async def test_flags_that_cannot_be_stored_end_it(late: Valkey) -> None:
    async with sidecar(*POLICY, "--redis", late.url, waits=False) as running:
        status, why = await refusal(running)

    assert status == 1
    assert why.startswith("error: the policy of the flags cannot be stored: ")


async def test_a_setting_that_is_unknown_is_named_with_its_line() -> None:
    async with sidecar(settings="no_auth = true\nlisen = ''\n", waits=False) as running:
        status, why = await refusal(running)

    assert status == 2
    assert why.endswith("rmv.toml:2: lisen: unknown setting; did you mean `listen`?")


async def test_a_key_set_that_is_not_there_is_named() -> None:
    async with sidecar(settings=IDENTITY.format("no.json"), waits=False) as running:
        status, why = await refusal(running)

    assert status == 2
    assert "identity.jwks_file: no such file: " in why


async def test_a_key_set_that_cannot_be_used_ends_it(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    settings = IDENTITY.format(tmp_path / "jwks.json")
    async with sidecar(settings=settings, waits=False) as running:
        status = await running.ended()
        said = running.said()

    assert status == 1
    assert f"error: identity.jwks_file: {tmp_path / 'jwks.json'}: no usable key" in said
    assert "Traceback" not in said


async def test_an_exchange_log_that_cannot_be_opened_ends_it(tmp_path: Path) -> None:
    log = tmp_path / "no" / "exchanges.log"
    async with sidecar(*POLICY, "--exchange-log", str(log), waits=False) as running:
        status = await running.ended()
        said = running.said()

    assert status == 1
    assert f"error: exchange_log: {log}: No such file or directory" in said
    assert "Traceback" not in said


async def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with sidecar(
        *POLICY, "--state-dir", str(tmp_path / "file" / "x"), waits=False
    ) as running:
        status, why = await refusal(running)

    assert status == 1
    assert why.startswith("error: state_dir: ")
    assert "Not a directory" in why


async def test_a_state_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    async with sidecar(*POLICY, "--state-dir", str(folder), waits=False) as running:
        status, why = await refusal(running)

    assert status == 1
    assert why == (
        f"error: state_dir: {folder} must belong to this user and be writable by none else"
    )
