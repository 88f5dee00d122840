"""A worker that died and cannot begin again leaves nobody waiting for it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.sidecar import flags, sidecar

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sidecar import Sidecar

NEWCOMERS = 20  # of which the kernel would give each of two workers some
BAD_GATEWAY = 502  # is an answer, too
FLAGS = flags(v1="http://127.0.0.1:9")


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Return a folder without which no worker can begin."""
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def logging_to(logs: Path) -> tuple[str, str]:
    return "--exchange-log", str(logs / "exchanges.log")


async def left_by_a_worker(running: Sidecar, logs: Path) -> str:
    """Kill a worker whose successor cannot begin; return what the health check says of it."""
    logs.rename(logs.with_suffix(".away"))  # noqa: ASYNC240 -- a test's own folder
    os.kill(running.workers()[0], signal.SIGKILL)

    async def is_told() -> bool:
        return "cannot begin" in (await running.asked_admin("/readyz"))[1]

    await running.until(is_told, "word of a worker that cannot begin")
    return (await running.asked_admin("/readyz"))[1]


async def test_the_others_take_all_newcomers_until_it_can_begin(logs: Path) -> None:
    async with sidecar("--workers", "2", *FLAGS, *logging_to(logs)) as running:
        assert f"{logs}/exchanges.log: No such file" in await left_by_a_worker(running, logs)

        for _ in range(NEWCOMERS):
            assert (await running.ask()).status == BAD_GATEWAY

        logs.with_suffix(".away").rename(logs)
        await running.until(running.is_ready, "ready again")
        await running.ask_workers(2)


async def test_where_there_is_no_other_newcomers_are_refused_at_once(logs: Path) -> None:
    async with sidecar(*FLAGS, *logging_to(logs)) as running:
        await left_by_a_worker(running, logs)

        with pytest.raises(ConnectionRefusedError):
            await running.ask()
