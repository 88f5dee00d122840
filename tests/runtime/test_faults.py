"""What is done with errors that nobody foresaw: counted each, told once a minute, and outlived."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sidecar.runtime import faults, tasks
from sidecar.runtime.faults import MAX_KINDS, Faults
from sidecar.runtime.tasks import repeat, spawn, stop
from sidecar.telemetry.metrics import Metrics
from tests.docs.markdown import first_column, page
from tests.support.clock import HandClock
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from collections import Counter

SOURCES = "".join(path.read_text("utf-8") for path in Path("sidecar").rglob("*.py"))


def fault(over: int = 1) -> ZeroDivisionError:
    """Return an error with a trace, always of this line."""
    with pytest.raises(ZeroDivisionError) as raised:
        _ = over // 0
    return raised.value


def another() -> ZeroDivisionError:
    """Return one of another line."""
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 2 // 0
    return raised.value


def test_faults_are_counted_each_and_told_once_a_minute_by_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = HandClock()
    met = Faults(clock.monotonic_s)
    for number in range(3):
        met.note("sweep", fault(number), step="clients")
    met.note("sweep", another())
    met.note("sweep", TypeError())
    met.note("health", fault())
    clock.advance(60.0)
    met.note("sweep", fault())

    assert met.counted == {"sweep": 6, "health": 1}
    told = [vars(one) for one in caplog.records]
    assert [(one["part"], one["exc_info"][0].__name__, one["faults"]) for one in told] == [
        ("sweep", "ZeroDivisionError", 1),
        ("sweep", "ZeroDivisionError", 1),
        ("sweep", "TypeError", 1),
        ("health", "ZeroDivisionError", 1),
        ("sweep", "ZeroDivisionError", 3),
    ]
    assert told[0]["step"] == "clients"


def test_kinds_without_end_take_no_memory_without_end() -> None:
    met = Faults(HandClock().monotonic_s)
    for number in range(3 * MAX_KINDS):
        met.note(f"part {number}", fault())

    assert len(met._told_s) <= MAX_KINDS  # noqa: SLF001


def test_the_metrics_of_a_process_tell_of_its_faults() -> None:
    faults.note("sweep", fault())

    assert 'rmv_faults_total{part="sweep"} 1\n' in Metrics().exposition()


async def test_an_error_of_a_callback_is_a_fault_and_a_message_without_one_is_logged(
    counted_faults: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    faults.outlive(loop)
    loop.call_soon(lambda: 1 // 0)
    await asyncio.sleep(0)
    loop.call_exception_handler({"message": "something is odd"})
    loop.call_exception_handler({"message": "no route", "exception": OSError()})

    assert counted_faults == {"callback": 1}
    said = [(one.name, one.message) for one in caplog.records if one.levelno >= logging.ERROR]
    assert [name for name, _ in said] == ["sidecar.faults", "asyncio", "asyncio"]
    assert said[1][1] == "something is odd"


async def test_what_is_repeated_goes_on_after_a_fault(
    counted_faults: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "REST_S", 0.0)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        await asyncio.sleep(0)
        if turns < 3:
            raise ZeroDivisionError

    running = spawn(repeat(turn, part="contexts"), name="turns")
    await eventually(lambda: turns > 5)
    await stop(running)

    assert counted_faults == {"contexts": 2}


def test_every_part_that_meets_faults_has_a_row() -> None:
    noted = re.findall(r'\bfaults\.note\(\s*"([a-z]+)"', SOURCES)
    repeated = re.findall(r'\bpart="([a-z]+)"', SOURCES)
    of_callbacks = re.findall(r'^    +note\("([a-z]+)", error', SOURCES, re.MULTILINE)

    named = set(first_column(page("operations.md"), "part"))
    assert named == {*noted, *repeated, *of_callbacks}
