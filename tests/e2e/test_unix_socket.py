"""Clients of the same host may come by a socket file."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.messages import read_answer
from tests.support.sidecar import flags, sidecar, spell
from tests.support.upstream import ANSWER, scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_sidecar_serves_on_a_socket_file_and_removes_it(
    workers: int, tmp_path: Path
) -> None:
    file = tmp_path / "rmv.sock"
    async with scripted_upstream(ANSWER) as upstream:
        named = (*flags(v1=upstream.url), "--listen", f"unix:{file}", "--workers", str(workers))
        async with sidecar(*named, waits=False) as running:
            await running.says("msg=serving")
            reader, writer = await asyncio.open_unix_connection(str(file))
            writer.write(spell())
            assert (await read_answer(reader)).status == 200
            writer.close()

        assert upstream.received[0].fields.get(b"X-Forwarded-For") == b"unix"
    assert not file.exists()


async def test_a_worker_that_somebody_ends_leaves_the_socket_file_to_the_next(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rmv.sock"
    async with scripted_upstream(ANSWER) as upstream:
        named = (*flags(v1=upstream.url), "--listen", f"unix:{file}")
        async with sidecar(*named, waits=False) as running:
            await running.says("msg=serving")
            [worker] = running.workers()

            os.kill(worker, signal.SIGTERM)
            await running.says("worker died")

            reader, writer = await asyncio.open_unix_connection(str(file))
            writer.write(spell())
            assert (await read_answer(reader)).status == 200
            writer.close()
