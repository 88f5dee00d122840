"""Whatever happens to a shadow, callers of the primary notice nothing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.load import steady_load
from tests.support.origin import origin
from tests.support.proxy import policy
from tests.support.sidecar import flags, sidecar
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from sidecar.model.identity import JSON
    from tests.support.sidecar import Sidecar

DOWN = b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n"
ROUNDS = 100
UNTOUCHED_S = 1.0  # a copy may take ten; an exchange of this test takes a millisecond or two


async def test_copies_reach_the_shadow_and_are_counted() -> None:
    async with (
        scripted_upstream() as primary,
        scripted_upstream() as shadow,
        sidecar(*flags(v1=primary.url, v2=shadow.url), "--shadow", "v2") as running,
    ):
        for _ in range(10):
            assert (await running.ask("acme")).get(b"X-Model-Version") == b"v1"

        copies = await shadow.until(10)
        assert {copy.get(b"X-Shadow") for copy in copies} == {b"1"}
        assert {copy.get(b"X-Tenant") for copy in copies} == {b"acme"}
        await running.until(lambda: is_accounted(running, 10), "sum of outcomes")
        assert await counted(running, "uncompared-off") == 10
        assert (await running.recorded(10))[0]["shadows"] == ["v2"]


async def test_an_endpoint_that_fails_copies_is_left_alone_by_copies_only() -> None:
    async with (
        scripted_upstream() as primary,
        scripted_upstream(DOWN) as failing,
        sidecar(*flags(v1=primary.url), "--workers", "1") as running,
        running.editor() as editor,
    ):
        v2: JSON = {"endpoints": [failing.url, primary.url]}
        document = policy({"v1": primary.url, "v2": v2}, shadows=[{"version": "v2"}])
        await editor.set("policy:m", document.decode())

        async def is_ejected() -> bool:
            await running.ask("acme")
            return await running.counted("rmv_endpoints_ejected", traffic="copies") == 1

        await running.until(is_ejected, "endpoint ejected")
        assert await running.counted("rmv_endpoints_ejected", traffic="requests") == 0
        assert await running.counted("rmv_ejections_total", model="m", version="v2") == 1


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_shadow_that_hangs_or_dies_under_load_costs_callers_nothing(
    number: signal.Signals,
) -> None:
    async with (
        scripted_upstream() as primary,
        origin() as shadow,
        sidecar(*flags(v1=primary.url, v2=shadow.url), "--shadow", "v2") as running,
    ):
        async with steady_load(running.listen) as load:
            await load.more(ROUNDS)
            assert await running.counted("rmv_mirrors_total", outcome="uncompared-off") > 0
            before = len(load.samples)

            shadow.signal(number)
            await load.more(ROUNDS)

            after_s = load.p50_s(since=before)
            assert load.unserved() == []
        assert after_s < UNTOUCHED_S

        shadow.signal(signal.SIGKILL)  # lost for good: every copy comes to its end
        sent = len(load.samples)
        assert len(primary.received) == sent
        await running.until(lambda: is_accounted(running, sent), "sum of outcomes")
        assert await running.counted("rmv_mirrors_total", outcome="uncompared-off") < sent


async def counted(running: Sidecar, outcome: str) -> float:
    return await running.counted("rmv_mirrors_total", model="m", version="v2", outcome=outcome)


async def is_accounted(running: Sidecar, requests: int) -> bool:
    every = await running.counted("rmv_mirrors_total", model="m", version="v2")
    ends = every - await counted(running, "eligible") - await counted(running, "mirrored")
    return ends == requests
