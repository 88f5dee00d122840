from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sidecar.audit.entry import decode
from sidecar.audit.files import FileSink, files_in
from sidecar.audit.log import AuditLog
from sidecar.model.audit import AuditSettings
from sidecar.runtime.clock import SystemClock
from sidecar.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from pathlib import Path


def _log(folder: Path, metrics: Metrics | None = None) -> AuditLog:
    settings, clock = AuditSettings(dir=str(folder)), SystemClock()
    sink = FileSink(settings, clock)
    return AuditLog([sink], settings, role="worker", clock=clock, metrics=metrics or Metrics())


def _lines(folder: Path) -> list[bytes]:
    return [line for path in files_in(folder) for line in path.read_bytes().splitlines()]


async def test_what_is_noted_stands_in_a_chain_of_hashes(tmp_path: Path) -> None:
    log = _log(tmp_path)
    log.note("kill", model="fraud", version="v2", reason="leaks", ttl_s=60)
    log.note("pin", model="fraud", tenant="acme", version="v1")

    await log.close()

    lines = _lines(tmp_path)
    entries = [decode(line) for line in lines]
    assert [one.seq for one in entries] == [1, 2, 3, 4]
    assert [one.kind for one in entries] == ["begin", "kill", "pin", "end"]
    assert entries[1].model == "fraud"
    assert entries[1].facts == {"ttl_s": 60}
    assert entries[-1].last
    for before, after in zip(lines, entries[1:], strict=False):
        canonical, _, digest = before.rpartition(b',"hash":"')
        assert digest.decode() == f'{after.prev}"}}'
        assert hashlib.sha256(canonical + b"}").hexdigest() == after.prev


async def test_without_a_sink_nothing_is_kept() -> None:
    log = AuditLog(
        [], AuditSettings(), role="worker", clock=SystemClock(), metrics=(metrics := Metrics())
    )

    log.note("kill", model="fraud")
    await log.close()

    assert not log.is_on
    assert not metrics.events


async def test_what_is_no_unicode_is_told_all_the_same(tmp_path: Path) -> None:
    log = _log(tmp_path)

    log.note("denied", tenant="acme", subject="\ud800")
    await log.close()

    (entry,) = (one for one in map(decode, _lines(tmp_path)) if one.kind == "denied")
    assert (entry.tenant, entry.subject) == ("acme", "?")
