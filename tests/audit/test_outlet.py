"""What becomes of events while their sink cannot be written."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sidecar.audit.entry import decode
from sidecar.audit.files import FileSink
from sidecar.audit.stream import StreamSink
from sidecar.errors import AuditUnwritableError
from sidecar.model.audit import AuditSettings, OnFailure
from sidecar.runtime.clock import SystemClock
from sidecar.store.redis import RedisStore
from sidecar.telemetry.metrics import Metrics
from tests.audit.chains import lines_in, log_of, settings_for, verified
from tests.support.clock import HandClock
from tests.support.upstream import eventually
from tests.support.valkey import running_valkey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sidecar.audit.log import AuditLog


class BrokenSink:
    """Files that can be written or not, in time or not, and brought to the disk or not."""

    name = "files"

    def __init__(self, folder: Path) -> None:
        self.is_broken = False
        self.is_unsettled = False
        self.opened = asyncio.Event()  # nothing comes to its end before
        self.opened.set()
        self._files = FileSink(settings_for(folder), SystemClock())

    async def append(self, lines: Sequence[bytes]) -> None:
        await self.opened.wait()
        if self.is_broken:
            raise AuditUnwritableError("no space left on device")
        await self._files.append(lines)

    async def settle(self) -> None:
        if self.is_unsettled:
            raise AuditUnwritableError("input/output error")
        await self._files.settle()

    async def close(self) -> None:
        await self._files.close()


def _note(log: AuditLog, number: int) -> None:
    for _ in range(number):
        log.note("denied", model="fraud")


async def test_what_waits_is_written_once_it_can_be(tmp_path: Path) -> None:
    sink = BrokenSink(tmp_path)
    log = log_of(settings_for(tmp_path), sinks=[sink], metrics=(metrics := Metrics()))
    sink.is_broken = True
    await log.start()
    _note(log, 300)
    await eventually(lambda: metrics.events["rmv_audit_write_errors_total", "sink", "files"] > 0)

    sink.is_broken = False
    await log.close()

    faults, (chain,), _ = verified(lines_in(tmp_path))
    assert not faults
    assert chain.is_ended
    assert sum(decode(line).kind == "denied" for line in lines_in(tmp_path)) == 300
    assert not any(name[0] == "rmv_audit_lost_total" for name in metrics.events)


async def test_what_is_lost_is_counted_and_told_in_its_place(tmp_path: Path) -> None:
    sink = BrokenSink(tmp_path)
    settings = settings_for(tmp_path, buffer_entries=256)
    log = log_of(settings, sinks=[sink], metrics=(metrics := Metrics()))
    sink.is_broken = True
    await log.start()
    _note(log, 1024)

    sink.is_broken = False
    await eventually(lambda: any(decode(line).kind == "lost" for line in lines_in(tmp_path)))
    _note(log, 1)
    await log.close()

    lines = lines_in(tmp_path)
    assert not verified(lines).faults
    kinds = [decode(line).kind for line in lines]
    lost = next(decode(line) for line in lines if decode(line).kind == "lost")
    counted = metrics.events["rmv_audit_lost_total", "sink", "files", "cause", "failing"]
    assert lost.facts["entries"] == counted == 1024 - 256
    assert kinds.count("denied") == 256 + 1
    assert kinds.index("lost") > 256


async def test_what_waits_at_the_end_is_lost_and_counted(tmp_path: Path) -> None:
    sink = BrokenSink(tmp_path)
    log = log_of(settings_for(tmp_path), sinks=[sink], metrics=(metrics := Metrics()))
    await log.start()
    sink.is_broken = True
    _note(log, 5)

    await log.close()

    assert metrics.events["rmv_audit_lost_total", "sink", "files", "cause", "end"] == 5
    faults, (chain,), _ = verified(lines_in(tmp_path))
    assert not faults
    assert not chain.is_ended


@pytest.mark.parametrize("on_failure", OnFailure)
async def test_requests_are_refused_only_if_the_settings_say_so(
    tmp_path: Path, on_failure: OnFailure
) -> None:
    sink = BrokenSink(tmp_path)
    log = log_of(settings_for(tmp_path, on_failure=on_failure), sinks=[sink])
    told: list[bool] = []
    log.on_refusing = told.append
    sink.is_broken = True

    await log.start()  # known before the first request
    was_refusing = log.is_refusing
    sink.is_broken = False
    await eventually(lambda: bool(lines_in(tmp_path)))
    await eventually(lambda: not log.is_refusing)
    await log.close()

    assert was_refusing is (on_failure is OnFailure.CLOSED)
    assert told == ([True, False] if was_refusing else [])


async def test_requests_are_refused_before_entries_are_lost_to_a_sink_that_hangs(
    tmp_path: Path,
) -> None:
    sink = BrokenSink(tmp_path)
    settings = settings_for(tmp_path, on_failure=OnFailure.CLOSED, buffer_entries=256)
    log = log_of(settings, sinks=[sink], metrics=(metrics := Metrics()))
    await log.start()
    sink.opened.clear()

    _note(log, 256)
    was_refusing = log.is_refusing
    sink.opened.set()
    await eventually(lambda: not log.is_refusing)
    await log.close()

    assert was_refusing
    assert not any("rmv_audit_lost_total" in name for name in metrics.events)
    assert sum(decode(line).kind == "denied" for line in lines_in(tmp_path)) == 256


async def test_a_disk_that_failed_once_is_believed_again(tmp_path: Path) -> None:
    """With nothing to write meanwhile: requests that are refused leave nothing to write."""
    sink = BrokenSink(tmp_path)
    log = log_of(settings_for(tmp_path, on_failure=OnFailure.CLOSED), sinks=[sink])
    await log.start()
    sink.is_unsettled = True
    await eventually(lambda: log.is_refusing)

    sink.is_unsettled = False
    await eventually(lambda: not log.is_refusing)
    await log.close()

    assert not verified(lines_in(tmp_path)).faults


async def test_what_is_lost_in_bursts_is_counted_exactly(tmp_path: Path) -> None:
    sink = BrokenSink(tmp_path)
    settings = settings_for(tmp_path, buffer_entries=256)
    log = log_of(settings, sinks=[sink], metrics=(metrics := Metrics()))
    for number in (300, 1, 700, 513):
        sink.is_broken = True
        _note(log, number)
        await log.start() if number == 300 else None
        sink.is_broken = False
        await asyncio.sleep(0)
    await log.close()

    entries = [decode(line) for line in lines_in(tmp_path)]
    told = sum(one.facts["entries"] for one in entries if one.kind == "lost")  # type: ignore[misc]
    counted = sum(n for name, n in metrics.events.items() if name[0] == "rmv_audit_lost_total")
    denied = sum(one.kind == "denied" for one in entries)
    assert told == counted
    assert denied + told == 300 + 1 + 700 + 513
    assert not verified(lines_in(tmp_path)).faults


async def test_one_sink_that_works_is_enough(tmp_path: Path) -> None:
    sinks = [BrokenSink(tmp_path / "a"), BrokenSink(tmp_path / "b")]
    settings = settings_for(tmp_path, on_failure=OnFailure.CLOSED, buffer_entries=256)
    log = log_of(settings, sinks=list(sinks))
    sinks[0].is_broken = True

    await log.start()
    _note(log, 200)
    is_refusing = log.is_refusing
    await log.close()

    assert not is_refusing
    assert sum(decode(line).kind == "denied" for line in lines_in(tmp_path / "b")) == 200


async def test_checkpoints_come_by_count_and_by_time(tmp_path: Path) -> None:
    clock = HandClock()
    log = log_of(settings_for(tmp_path, checkpoint_s=60), clock=clock)
    await log.start()
    _note(log, 25)
    await eventually(lambda: len(lines_in(tmp_path)) == 1 + 25 + 2)

    clock.advance(61)
    await eventually(lambda: len(lines_in(tmp_path)) == 29)
    await log.close()

    signed = [one.seq for one in map(decode, lines_in(tmp_path)) if one.signature]
    assert signed == [1, 11, 21, 29, 30]


async def test_a_server_that_dies_costs_no_entry() -> None:
    """A batch that may have been taken is given again: it is there twice, and no fault."""
    async with running_valkey() as valkey:
        store = RedisStore(valkey.url)
        sink = StreamSink(store, keep=100_000)
        settings = AuditSettings(stream=True, checkpoint_entries=100)
        log = log_of(settings, sinks=[sink], metrics=(metrics := Metrics()))
        await log.start()
        _note(log, 500)
        await valkey.kill()
        _note(log, 500)
        errors = "rmv_audit_write_errors_total", "sink", "stream"
        await eventually(lambda: metrics.events[errors] > 0)
        await valkey.start()
        await eventually(lambda: metrics.events["rmv_audit_entries_total", "sink", "stream"] > 1000)
        await log.close()
        lines = [line async for _, line in store.audit()]
        await store.close()

    faults, (chain,), _ = verified(lines, is_whole=False)
    assert not faults
    assert chain.is_ended


async def test_a_server_that_hangs_is_not_waited_for_without_end() -> None:
    async with running_valkey() as valkey:
        store = RedisStore(valkey.url)
        settings = AuditSettings(stream=True, on_failure=OnFailure.CLOSED)
        log = log_of(settings, sinks=[StreamSink(store, keep=1000)])
        await log.start()
        valkey.pause()
        try:
            _note(log, 3)
            await eventually(lambda: log.is_refusing)
        finally:
            valkey.resume()
        await eventually(lambda: not log.is_refusing)
        await log.close()
        lines = [line async for _, line in store.audit()]
        await store.close()

    kinds = {one.seq: one.kind for one in map(decode, lines)}  # a batch may be there twice
    assert list(kinds.values()) == ["begin", "denied", "denied", "denied", "end"]
    assert not verified(lines, is_whole=False).faults
