from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from sidecar.app.auditing import record, telling
from sidecar.audit.entry import Entry, decode
from sidecar.audit.files import files_in
from sidecar.errors import AuditUnwritableError
from sidecar.model.audit import AuditSettings
from sidecar.model.policy import Policy, Version
from sidecar.store.memory import MemoryStore
from tests.audit.chains import verified

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.store.base import Store

STREAMED = AuditSettings(stream=True)


def _policy(**labels: str) -> Policy:
    version = Version(endpoints=("http://127.0.0.1:9001",))
    return Policy(model="fraud", versions={"v1": version, "v2": version}, labels=labels)


def _telling(store: Store, settings: AuditSettings, actor: str) -> Store:
    return telling(store, partial(record, settings, store, actor))


async def _entries(store: Store) -> list[Entry]:
    return [decode(line) async for _, line in store.audit()]


async def test_what_a_command_changes_is_told_where_the_settings_say(tmp_path: Path) -> None:
    store = MemoryStore()
    settings = AuditSettings(dir=str(tmp_path), stream=True)

    await _telling(store, settings, "ann").set_kill("fraud", "v2", "leaks", ttl_s=60)

    (file,) = files_in(tmp_path)
    (line,) = file.read_bytes().splitlines()
    for entry in (decode(line), *await _entries(store)):
        assert (entry.kind, entry.actor) == ("kill", "ann")
        assert (entry.model, entry.version, entry.reason) == ("fraud", "v2", "leaks")
        assert entry.facts == {"ttl_s": 60}
    assert not verified([line], key=None).faults


async def test_every_control_action_is_told() -> None:
    plain = MemoryStore()
    store = _telling(plain, STREAMED, "ann")

    first = await store.commit(_policy(), expected=None, actor="bob", comment="first")
    raw = await store.get_document("fraud")
    await store.commit(_policy(canary="v2"), expected=raw, actor="bob", comment="")
    await store.set_pin("fraud", "acme", "v1")
    await store.delete_pin("fraud", "acme")
    await store.delete_pin("fraud", "acme")
    await store.set_kill("fraud", "", "broken")
    await store.delete_kill("fraud")
    await store.set_revoked("token-1", "stolen")
    await store.delete_revoked("token-1")
    await store.set_cutoff("acme", 1_800_000_000.0)
    await store.delete_cutoff("acme")
    await store.delete_policy("fraud")

    entries = await _entries(plain)
    assert [one.kind for one in entries] == [
        "commit", "label", "pin", "unpin", "kill", "revive",
        "revoke", "unrevoke", "revoke", "unrevoke", "delete",
    ]  # fmt: skip
    assert (entries[0].actor, entries[0].revision) == ("bob", first.revision)
    assert entries[0].facts["comment"] == "first"
    assert entries[1].facts["labels"] == {"canary": "v2"}
    assert entries[2].actor == "ann"
    assert entries[6].facts == {"jti": "token-1"}
    assert entries[8].facts == {"before_s": 1_800_000_000.0}


async def test_a_command_without_settings_is_told_where_the_fleet_is_audited() -> None:
    plain = MemoryStore()
    store = _telling(plain, AuditSettings(), "ann")
    await store.set_pin("fraud", "acme", "v1")
    assert not await plain.is_audited()
    await _telling(plain, STREAMED, "bob").set_pin("fraud", "acme", "v2")

    await store.set_pin("fraud", "acme", "v1")

    assert [one.actor for one in await _entries(plain)] == ["bob", "ann"]


async def test_an_action_that_audit_does_not_take_is_done_and_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    plain = MemoryStore()
    store = _telling(plain, AuditSettings(dir=str(tmp_path / "file")), "ann")

    with pytest.raises(AuditUnwritableError, match=r"it is done \(pin\), but audit"):
        await store.set_pin("fraud", "acme", "v1")

    assert await plain.pins_of("fraud", ["acme"]) == {"acme": "v1"}
