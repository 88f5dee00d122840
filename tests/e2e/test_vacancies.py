"""A worker that died and cannot begin again leaves nobody waiting for it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from sidecar.identity.issuer import JWKS_FILE, create_keys
from tests.support.sidecar import policy_flags, sidecar

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sidecar import Sidecar

NEWCOMERS = 20  # of which the kernel would give each of two workers some
UNAUTHORIZED = 401  # is an answer, too
FLAGS = policy_flags(v1="http://127.0.0.1:9")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Return a file without which no worker can begin."""
    create_keys(tmp_path, "EdDSA")
    return tmp_path / JWKS_FILE


def believing(keys: Path) -> str:
    return f'[identity]\njwks_file = "{keys}"\nissuer = "i"\naudience = "a"\n'


async def left_by_a_worker(running: Sidecar, keys: Path) -> str:
    """Kill a worker whose successor cannot begin; return what the health check says of it."""
    keys.rename(keys.with_suffix(".away"))  # noqa: ASYNC240 -- a test's own file
    os.kill(running.workers()[0], signal.SIGKILL)

    async def is_told() -> bool:
        return "cannot begin" in (await running.asked_admin("/readyz"))[1]

    await running.until(is_told, "word of a worker that cannot begin")
    return (await running.asked_admin("/readyz"))[1]


async def test_the_others_take_all_newcomers_until_it_can_begin(keys: Path) -> None:
    async with sidecar("--workers", "2", *FLAGS, settings=believing(keys)) as running:
        assert f"{keys}: No such file" in await left_by_a_worker(running, keys)

        for _ in range(NEWCOMERS):
            assert (await running.ask()).status == UNAUTHORIZED

        keys.with_suffix(".away").rename(keys)
        await running.until(running.is_ready, "ready again")
        await running.ask_workers(2)


async def test_where_there_is_no_other_newcomers_are_refused_at_once(keys: Path) -> None:
    async with sidecar(*FLAGS, settings=believing(keys)) as running:
        await left_by_a_worker(running, keys)

        with pytest.raises(ConnectionRefusedError):
            await running.ask()
