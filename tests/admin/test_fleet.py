"""What the control process remembers of workers that no longer answer."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.admin.fleet import WorkerFleet
from sidecar.runtime.questions import Line, serve_questions
from sidecar.runtime.tasks import spawn, stop
from sidecar.telemetry.merge import Ledger
from sidecar.telemetry.metrics import Metrics
from tests.support.upstream import eventually
from tests.telemetry.prometheus import Exposition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Team:
    """Workers in this process, each with a counter and a gauge."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.reads = 0
        self._running: list[Line] = []

    def present(self) -> list[Line]:
        return self._running[-1:]

    def excuses(self) -> list[str]:
        return [""] * len(self.present())

    def running(self) -> list[Line]:
        return self._running

    @asynccontextmanager
    async def worker(self, name: str) -> AsyncIterator[None]:
        line = Line(name)
        self._running.append(line)
        answers = await serve_questions(await line.open(), {"metrics": lambda _: self._expose()})
        answers.begin()
        await eventually(lambda: line.has_begun)
        try:
            yield
        finally:
            await answers.end("")
            await line.ended()

    def forget(self, name: str) -> None:
        self._running = [line for line in self._running if line.name != name]

    def _expose(self) -> str:
        self.reads += 1
        return self.metrics.exposition()


@pytest.fixture
def team() -> Team:
    team = Team()
    team.metrics.count("rmv_connections_total")
    team.metrics.gauges["rmv_connections"] = 1
    return team


async def test_a_worker_is_read_without_a_scrape_and_its_counts_outlive_it(team: Team) -> None:
    ledger = Ledger()
    fleet = WorkerFleet(team, ledger, ready="ready", metrics="metrics", own=str)
    reader = spawn(fleet.keep_reading(), name="reader")
    async with team.worker("one"):
        await eventually(lambda: team.reads > 0)
        await fleet.metrics()  # takes its turn after the reader
    await stop(reader)

    silent = Exposition(await fleet.metrics())
    team.forget("one")
    ledger.close("one")
    gone = Exposition(await fleet.metrics())

    for told in (silent, gone):
        assert told.value("rmv_connections_total") == 1
        assert told.find("rmv_connections") == []
        assert told.value("rmv_workers_up") == 0


async def test_a_worker_that_retires_still_counts_and_is_not_up(team: Team) -> None:
    fleet = WorkerFleet(team, Ledger(), ready="ready", metrics="metrics", own=str)
    async with team.worker("former"), team.worker("present"):
        told = Exposition(await fleet.metrics())

    assert told.value("rmv_connections_total") == 2
    assert told.value("rmv_connections") == 2
    assert told.value("rmv_workers_up") == 1
