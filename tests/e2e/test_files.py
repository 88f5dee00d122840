"""The limit of open files is raised as far as it goes, and nobody dies of it."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import ExitStack

import pytest

from tests.support.sidecar import flags, sidecar

SPARE = 8
CLIENTS = 40
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
