"""The limit of open files is raised as far as it goes, and nobody dies of it."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from contextlib import ExitStack

import pytest

from tests.support.messages import read_answer
from tests.support.sidecar import flags, sidecar, spell
from tests.support.upstream import scripted_upstream

SPARE = 8
CLIENTS = 40
REQUESTS = 8  # failures of an endpoint that would eject it
DEAD_END = flags(v1="http://127.0.0.1:9")


@pytest.mark.parametrize("more", [0, 1])
async def test_a_limit_that_clients_may_meet_is_told_once(more: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("there is no limit here")
    settings = f"workers = 2\n[limits]\nconnections = {hard // 2 + more}\n"

    async with sidecar(*DEAD_END, settings=settings) as running:
        for worker in running.workers():
            assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (hard, hard)

        assert running.said().count("the limit of open files is low") == more


async def test_a_worker_without_a_file_descriptor_left_is_known_to_live() -> None:
    settings = "[timeouts]\nworker_hang_s = 0.1\n"
    async with sidecar(*DEAD_END, settings=settings) as running:
        [worker] = running.workers()
        files = [int(name) for name in os.listdir(f"/proc/{worker}/fd")]
        _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (max(files) + SPARE, hard))

        with ExitStack() as clients:
            for _ in range(CLIENTS):
                clients.enter_context(socket.create_connection(running.listen))
            await running.says("no file descriptor left")

            assert await running.asked_admin("/readyz") == (200, "ready\n")
            assert await running.counted("rmv_workers_up") == 1
            assert await running.counted("rmv_limits_hit_total", limit="files") > 0
            assert running.workers() == [worker]


async def test_without_a_file_for_an_endpoint_requests_are_shed_and_no_endpoint_is_blamed() -> None:
    async with (
        scripted_upstream() as one,
        scripted_upstream() as other,
        sidecar(*flags(v1=one.url)) as running,
    ):
        async with running.editor() as editor:
            document = await editor.document()
            document["versions"] = {"v1": {"endpoints": [one.url, other.url]}}
            await editor.put(document)
        [worker] = running.workers()
        reader, writer = await asyncio.open_connection(*running.listen)
        before = resource.prlimit(worker, resource.RLIMIT_NOFILE)

        async def is_admitted() -> bool:
            return await running.counted("rmv_connections_total") > 0

        await running.until(is_admitted, "a client")
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (0, before[1]))
        for _ in range(REQUESTS):
            writer.write(spell())
            shed = await read_answer(reader)
            assert (shed.status, shed.code) == (503, "overloaded")
            assert shed.get(b"Retry-After") == b"1"
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
        for _ in range(REQUESTS):
            writer.write(spell())
            assert (await read_answer(reader)).status == 200
        writer.close()

        assert (
            await running.counted("rmv_limits_hit_total", limit="files", version="v1") == REQUESTS
        )
        assert await running.counted("rmv_ejections_total") == 0
        assert await running.counted("rmv_retries_total") == 0
