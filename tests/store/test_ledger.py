"""What was signed last is remembered over restarts, and shared by all who run."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import pytest

from sidecar.errors import ConfigError
from sidecar.policy import codec
from sidecar.policy.address import AllowList
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.keys import Keys, PinKey
from sidecar.store.ledger import Ledger
from sidecar.store.live import LivePolicies
from tests.store.documents import default_of, eventually, pin_of, policy
from tests.support.clock import HandClock
from tests.support.signing import signer, trust_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sidecar.policy.address import AllowList as Allowed
    from sidecar.store.seal import Signer

ANN, BOB = signer(), signer()
ACME = PinKey("fraud", "acme")
T = 1_800_000_000_000
ANYWHERE = AllowList(())


def signed(default: str, revision: int, by: Signer = ANN) -> bytes:
    return codec.encode(by.policy(policy(default=default, revision=revision)))


@asynccontextmanager
async def worker(
    file: Path, *trusted: Signer, clock: HandClock | None = None, allowed: Allowed = ANYWHERE
) -> AsyncIterator[LivePolicies]:
    """Live as a worker does: restored at first, written while it runs."""
    trust = trust_in(*(trusted or (ANN,)), clock=clock)
    live = LivePolicies(trust=trust, allowed=allowed)
    ledger = Ledger(file)
    await ledger.restore(live, trust, Keys())
    writing = spawn(ledger.run(), name="ledger under test")
    yield live
    await stop(writing)
    await ledger.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "signed.db"


async def test_a_worker_that_starts_has_what_was_signed_last(file: Path) -> None:
    async with worker(file) as live:
        live.put_policy("fraud", signed("v2", 7))
        live.put_pin("fraud", "acme", ANN.mark(ACME, "v2", T))

    async with worker(file) as live:
        assert (default_of(live), pin_of(live, "acme")) == ("v2", "v2")
        assert not live.put_policy("fraud", signed("v1", 6))
        live.put_pin("fraud", "acme", ANN.mark(ACME, "v1", T - 1))
        assert (default_of(live), pin_of(live, "acme")) == ("v2", "v2")


async def test_an_end_is_remembered_too(file: Path) -> None:
    early = ANN.mark(ACME, "v2", T)
    async with worker(file) as live:
        live.put_policy("fraud", signed("v1", 7))
        live.put_pin("fraud", "acme", early)
        live.put_pin("fraud", "acme", ANN.mark(ACME, "", T + 1))

    async with worker(file) as live:
        live.put_pin("fraud", "acme", early)
        assert pin_of(live, "acme") is None


async def test_a_pin_that_has_expired_meanwhile_still_outranks_those_before_it(file: Path) -> None:
    early, clock = ANN.mark(ACME, "v2", T), HandClock()
    async with worker(file) as live:
        live.put_policy("fraud", signed("v1", 7))
        live.put_pin("fraud", "acme", ANN.mark(ACME, "v1", T + 1, T + 1_000))

    clock.advance(10.0)
    async with worker(file, clock=clock) as live:
        live.put_pin("fraud", "acme", early)
        assert pin_of(live, "acme") is None


async def test_workers_share_the_file_and_the_newest_wins(file: Path) -> None:
    async with worker(file) as one, worker(file) as other:
        one.put_policy("fraud", signed("v1", 6))
        other.put_policy("fraud", signed("v2", 7))
    async with worker(file) as late:  # one that was slow writes what is older by then
        late.put_policy("fraud", signed("v2", 7))

    async with worker(file) as live:
        assert default_of(live) == "v2"


async def test_an_older_note_never_overwrites_a_newer_one(file: Path) -> None:
    for rank in (7, 6):
        ledger = Ledger(file)
        ledger.note("rmv:policy:fraud", rank, b"%d" % rank)
        await ledger.close()

    with closing(sqlite3.connect(file)) as base:
        assert base.execute("SELECT rank, value FROM signed").fetchall() == [(7, b"7")]


async def test_a_key_that_is_no_longer_trusted_has_signed_nothing(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(file, ANN, BOB) as live:
        live.put_policy("fraud", signed("v2", 1_000_000, BOB))
        live.put_pin("fraud", "acme", BOB.mark(ACME, "v2", T))

    with caplog.at_level(logging.WARNING, "sidecar.store"):
        async with worker(file, ANN) as live:
            assert live.snapshots == {}
            assert live.put_policy("fraud", signed("v1", 8))
            assert pin_of(live, "acme") is None
    assert "signatures forgotten" in caplog.text

    async with worker(file, ANN) as live:
        assert default_of(live) == "v1"


async def test_a_policy_that_the_settings_refuse_by_now_keeps_its_rank(file: Path) -> None:
    async with worker(file) as live:
        live.put_policy("fraud", signed("v2", 7))

    async with worker(file, allowed=AllowList(["other.example"])) as live:
        assert live.snapshots == {}
    async with worker(file) as live:
        assert not live.put_policy("fraud", signed("v1", 6))
        assert default_of(live) == "v2"


def test_the_file_is_its_owners_alone(file: Path) -> None:
    Ledger(file)

    assert file.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_is_told(file: Path) -> None:
    file.parent.write_text("a file, not a folder")

    with pytest.raises(ConfigError, match="state_dir: "):
        Ledger(file)


def test_a_file_that_is_none_is_told_by_its_name(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"not a database, and longer than the header of one" * 9)

    with pytest.raises(ConfigError, match=r"state_dir: .*signed\.db: file is not a database"):
        Ledger(file)


async def test_what_cannot_be_written_is_told_once_and_written_later(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.store.ledger._BUSY_S", 0.01)
    monkeypatch.setattr("sidecar.store.ledger._RETRY_S", 0.01)
    with caplog.at_level(logging.ERROR, "sidecar.store"):
        async with worker(file) as live:
            with closing(sqlite3.connect(file)) as other:
                other.execute("BEGIN EXCLUSIVE")
                live.put_policy("fraud", signed("v2", 7))
                await eventually(lambda: "signatures not remembered" in caplog.text)

    assert caplog.text.count("signatures not remembered") == 1
    async with worker(file) as live:
        assert default_of(live) == "v2"
