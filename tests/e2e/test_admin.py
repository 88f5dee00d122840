"""The admin listener speaks for all workers at once."""

from __future__ import annotations

from tests.support.sidecar import WORKER_DIGITS, flags, sidecar
from tests.support.upstream import scripted_upstream

REQUESTS = 60
EACH = 2


async def test_health_and_readiness_are_told_apart_from_the_data_plane() -> None:
    async with scripted_upstream() as up, sidecar(*flags(v1=up.url)) as running:
        assert await running.asked_admin("/healthz") == (200, "ok\n")
        assert await running.asked_admin("/livez") == (200, "ok\n")
        assert await running.asked_admin("/readyz") == (200, "ready\n")
        assert (await running.asked_admin("/nothing"))[0] == 404
        assert up.received == []
        assert (await running.ask(path="/healthz")).status == 200
        assert len(up.received) == 1  # on the data plane the path is the model's


async def test_metrics_are_the_sum_over_all_workers() -> None:
    async with (
        scripted_upstream() as up,
        sidecar("--workers", "2", *flags(v1=up.url)) as running,
    ):
        workers: list[bytes] = []
        while len(workers) < REQUESTS or len(set(workers)) < EACH:
            answer = await running.ask()
            workers.append((answer.get(b"X-Request-Id") or b"")[:WORKER_DIGITS])
        await running.ask(X_Model_Version="v9")

        served = {"model": "m", "version": "v1", "reason": "DEFAULT", "status": "200"}
        assert await running.counted("rmv_requests_total", **served) == len(workers)
        assert await running.counted("rmv_requests_total", code="no-such-version") == 1
        histogram = await running.counted("rmv_request_duration_seconds_count", version="v1")
        assert histogram == len(workers)
        assert await running.counted("rmv_workers_up") == 2
        assert await running.counted("rmv_policies") == 1  # not added up: it is one store


async def test_without_an_admin_listener_it_serves_all_the_same() -> None:
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url), "--admin", "off", waits=False) as running,
    ):
        await running.says("msg=serving")
        await running.located()

        assert (await running.ask()).status == 200
