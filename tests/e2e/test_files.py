"""The limit of open files is raised as far as it goes."""

from __future__ import annotations

import resource

import pytest

from tests.support.sidecar import flags, sidecar


@pytest.mark.parametrize("more", [0, 1])
async def test_a_limit_that_clients_may_meet_is_told_once(more: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("there is no limit here")
    settings = f"workers = 2\n[limits]\nconnections = {hard // 2 + more}\n"

    async with sidecar(*flags(v1="http://127.0.0.1:9"), settings=settings) as running:
        for worker in running.workers():
            assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (hard, hard)

        assert running.said().count("the limit of open files is low") == more
