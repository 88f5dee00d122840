"""When a worker is taken to hang, and that its place is never given up."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sidecar.runtime.processes import MAX_BACKOFF_S, Patience, Place, Worker, Workers
from sidecar.runtime.questions import Line
from sidecar.runtime.sockets import bind
from tests.support.upstream import eventually

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Mapping

    import pytest

ASLEEP = (sys.executable, "-c", "import time; time.sleep(1000)")
NOT_THERE = ("/nowhere/python",)
QUICK = Patience(drain_s=0.0, start_s=0.1, hang_s=0.1)
SOON_S = 0.5  # to be back within 2 s, most of which is for the interpreter
SLOW = Patience(drain_s=0.0, start_s=1000.0, hang_s=1000.0)


class Sleepers:
    """Workers that never begin, or whose command is not there."""

    def __init__(self) -> None:
        self.argv: tuple[str, ...] = ASLEEP

    def environment(self, *_: socket.socket) -> Mapping[str, str]:
        return {}

    def on_started(self, line: Line) -> None:
        pass

    async def is_ready(self, _line: Line) -> bool:
        return False

    async def answers(self, _line: Line) -> bool:
        return False

    def on_gone(self, line: Line) -> None:
        pass


@asynccontextmanager
async def one_worker(crew: Sleepers, patience: Patience) -> AsyncIterator[Workers]:
    workers = Workers(crew, [bind("127.0.0.1:0")], patience, on_hopeless=lambda: None)
    workers.start()
    try:
        await eventually(lambda: len(workers.running()) == 1)
        yield workers
    finally:
        stopping = asyncio.ensure_future(workers.stop())
        await asyncio.sleep(0)
        workers.kill()
        await stopping


async def test_a_worker_that_never_begins_is_killed_and_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with one_worker(Sleepers(), QUICK) as workers:
        [first] = workers.running()

        await eventually(lambda: "worker killed: it does not begin" in caplog.text)

        await eventually(lambda: len(workers.running()) == 1 and first not in workers.running())


async def test_a_worker_that_cannot_be_started_at_the_moment_is_started_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crew = Sleepers()
    async with one_worker(crew, SLOW) as workers:
        crew.argv = NOT_THERE
        workers.kill()
        await eventually(lambda: "worker not started" in caplog.text)
        assert workers.excuses() == ["it cannot be started"]

        crew.argv = ASLEEP

        await eventually(lambda: len(workers.running()) == 1)


async def test_replacing_goes_on_after_a_worker_that_could_not_be_started(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crew = Sleepers()
    async with one_worker(crew, QUICK._replace(hang_s=1000.0)) as workers:
        crew.argv = NOT_THERE
        workers.replace()
        await eventually(lambda: "not every worker was replaced" in caplog.text)

        crew.argv = ASLEEP
        with caplog.at_level(logging.INFO):
            workers.replace()

            await eventually(lambda: "worker not replaced" in caplog.text)


async def test_a_worker_that_dies_is_followed_at_once_and_one_that_keeps_dying_ever_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def note(_place: Place, seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(Place, "_pause", note)
    crew = Sleepers()
    crew.argv = (sys.executable, "-c", "raise SystemExit(9)")
    workers = Workers(crew, [bind("127.0.0.1:0")], SLOW, on_hopeless=lambda: None)
    workers.start()
    await eventually(lambda: len(pauses) >= 8)
    await workers.stop()

    assert pauses[0] <= SOON_S
    assert pauses == sorted(pauses)
    assert pauses[6:8] == [MAX_BACKOFF_S] * 2


class Learners(Sleepers):
    """Workers that are ready when they are asked for the third time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[Line] = Counter()
        self.beginning: set[Line] = set()
        self.most = 0

    def on_started(self, line: Line) -> None:
        self.beginning.add(line)
        self.most = max(self.most, len(self.beginning))

    async def is_ready(self, line: Line) -> bool:
        self.asked[line] += 1
        if self.asked[line] < 3:
            return False
        self.beginning.discard(line)
        return True

    async def answers(self, _line: Line) -> bool:
        return True


async def test_workers_are_replaced_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    crew = Learners()
    patience = SLOW._replace(drain_s=1000.0)
    workers = Workers(crew, [bind("127.0.0.1:0") for _ in range(3)], patience, lambda: None)
    workers.start()
    await eventually(lambda: len(workers.running()) == 3)
    former = set(workers.running())
    crew.beginning.clear()
    crew.most = 0
    with caplog.at_level(logging.INFO):
        workers.replace()
        await eventually(lambda: "workers replaced" in caplog.text)

    assert crew.most == 1
    assert not former & set(workers.present())
    stopping = asyncio.ensure_future(workers.stop())
    await asyncio.sleep(0)
    workers.kill()
    await stopping


async def test_silence_lasts_from_the_first_question_without_an_answer() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    worker = Worker(process, Line("worker"))

    assert worker.silence_s(answers=True, now_s=0.0) == 0
    # Nobody has asked for an hour: that says nothing of the worker.
    assert worker.silence_s(answers=False, now_s=3600.0) == 0
    assert worker.silence_s(answers=False, now_s=3603.0) == 3
    assert worker.silence_s(answers=True, now_s=3604.0) == 0
    assert worker.silence_s(answers=False, now_s=3605.0) == 0
    await process.wait()


async def is_followed(workers: Workers, former: Line) -> None:
    """Expect that another worker comes in its place."""
    await eventually(lambda: [one for one in workers.running() if one is not former] != [])


async def test_a_place_that_meets_a_fault_is_kept_on_with_another_worker(
    monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str]
) -> None:
    monkeypatch.setattr("sidecar.runtime.processes.MAX_BACKOFF_S", 0.01)
    keep = Place._run  # noqa: SLF001
    runs = 0

    async def failing(place: Place) -> int | None:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise ZeroDivisionError
        return await keep(place)

    monkeypatch.setattr(Place, "_run", failing)
    async with one_worker(Sleepers(), SLOW) as workers:
        [former] = workers.running()
        workers.kill()

        await is_followed(workers, former)
        assert counted_faults == {"workers": 1}


async def test_a_worker_whose_end_cannot_be_told_is_followed_by_another(
    counted_faults: Counter[str],
) -> None:
    class Forgetful(Sleepers):
        def on_gone(self, line: Line) -> None:
            raise ZeroDivisionError

    async with one_worker(Forgetful(), SLOW) as workers:
        [former] = workers.running()
        workers.kill()

        await is_followed(workers, former)
        assert counted_faults["workers"] >= 1


async def test_workers_are_watched_and_replaced_after_faults(
    monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sidecar.runtime.processes.BEAT_S", 0.01)
    monkeypatch.setattr("sidecar.runtime.tasks.REST_S", 0.01)
    look_at, replace = Workers._look_at, Place.replace  # noqa: SLF001
    looks = replacements = 0

    async def failing_look(workers: Workers, worker: Worker) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise ZeroDivisionError
        await look_at(workers, worker)

    async def failing_replace(place: Place, patience: Patience) -> bool:
        nonlocal replacements
        replacements += 1
        if replacements == 1:
            raise ZeroDivisionError
        return await replace(place, patience)

    monkeypatch.setattr(Workers, "_look_at", failing_look)
    monkeypatch.setattr(Place, "replace", failing_replace)
    async with one_worker(Sleepers(), QUICK._replace(hang_s=1.0)) as workers:
        [former] = workers.running()
        workers.replace()
        await eventually(lambda: counted_faults["workers"] == 2)
        workers.replace()
        await eventually(lambda: "worker not replaced" in caplog.text)

        await eventually(lambda: "worker killed: it does not begin" in caplog.text)
        await is_followed(workers, former)
