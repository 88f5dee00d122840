"""A loop that stands still is told of, with the place."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from sidecar.runtime.watchdog import STALL_S, Watchdog
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from collections import Counter

    import pytest


def stand_still(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_blocking_call_is_measured_and_its_place_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stalls: list[float] = []
    with closing(Watchdog(stalls.append)):
        stand_still(5 * STALL_S)
        await eventually(lambda: bool(stalls))

    assert max(stalls) > STALL_S
    told = [one for one in caplog.records if one.message == "event loop stalled"]
    assert any("stand_still" in str(vars(one)["where"]) for one in told)


async def test_stalls_are_told_on_though_their_place_cannot_be_found_once(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    counted_faults: Counter[str],
) -> None:
    where, faults = Watchdog._where, 1  # noqa: SLF001

    def failing(watchdog: Watchdog) -> str:
        nonlocal faults
        if faults:
            faults -= 1
            raise ZeroDivisionError
        return where(watchdog)

    monkeypatch.setattr(Watchdog, "_where", failing)
    stalls: list[float] = []
    with closing(Watchdog(stalls.append)):
        stand_still(5 * STALL_S)
        await eventually(lambda: bool(stalls))
        stand_still(5 * STALL_S)
        await eventually(lambda: len(stalls) > 1)

    told = [vars(one)["where"] for one in caplog.records if one.message == "event loop stalled"]
    assert told[0] == "a fault of the sidecar: ZeroDivisionError"
    assert len(told) >= 2
    assert counted_faults == {"watchdog": 1}
