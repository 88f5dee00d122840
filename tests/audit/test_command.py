from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.audit.entry import decode
from sidecar.audit.files import files_in
from sidecar.cli.audited import record
from sidecar.cli.session import Session
from sidecar.config import Config
from sidecar.model.audit import AuditSettings, Kind
from sidecar.store.memory import MemoryStore

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_command_is_told_where_the_settings_say(tmp_path: Path) -> None:
    config = Config(audit=AuditSettings(dir=str(tmp_path), stream=True))
    session = Session(store := MemoryStore(), config, as_json=False)

    await record(session, Kind.KILL, "ann", model="fraud", version="v2", ttl_s=60)

    (file,) = files_in(tmp_path)
    (line,) = file.read_bytes().splitlines()
    ((_, streamed),) = [pair async for pair in store.audit()]
    for entry in (decode(line), decode(streamed)):
        assert (entry.kind, entry.actor, entry.model, entry.version) == (
            "kill",
            "ann",
            "fraud",
            "v2",
        )
        assert entry.facts == {"ttl_s": 60}
        assert entry.last


async def test_a_command_without_settings_is_told_where_the_fleet_is_audited() -> None:
    session = Session(store := MemoryStore(), Config(), as_json=False)
    await record(session, Kind.PIN, "ann", model="fraud", tenant="acme")
    assert not await store.is_audited()
    await store.add_audit([b"{}"], keep=10)

    await record(session, Kind.PIN, "ann", model="fraud", tenant="acme")

    assert len([one async for one in store.audit()]) == 2
