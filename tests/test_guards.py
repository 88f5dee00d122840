"""What runs for long goes on with its next turn, whatever fails once."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from sidecar.admin.fleet import WorkerFleet
from sidecar.app import keys as key_desk
from sidecar.app.control import _announce, _renew
from sidecar.app.keys import KeyDesk
from sidecar.app.spec import KEYS
from sidecar.app.tokens import Tokens
from sidecar.app.worker import Worker
from sidecar.audit.entry import decode
from sidecar.audit.files import FileSink
from sidecar.config import Config
from sidecar.identity.holding import decode as decode_keys
from sidecar.model.audit import OnFailure
from sidecar.model.context import ContextSettings
from sidecar.model.issuer import IdentitySettings
from sidecar.runtime import tasks
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.questions import Line, UnansweredError, serve_questions
from sidecar.runtime.tasks import spawn, stop
from sidecar.store import contexts
from sidecar.store.contexts import ContextWriter
from sidecar.store.embedded import EmbeddedServer
from sidecar.store.ledger import Ledger as SignedLedger
from sidecar.store.live import SMALL_BYTES, LivePolicies
from sidecar.store.loader import Loader
from sidecar.store.memory import MemoryStore
from sidecar.store.revocations import Revocations
from sidecar.telemetry.merge import Ledger
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recorder import Recorder
from tests.audit.chains import lines_in, log_of, settings_for, verified
from tests.identity.minting import AUDIENCE, ISSUER
from tests.store.documents import document
from tests.store.test_contexts import sampling
from tests.support.upstream import eventually
from tests.telemetry.records import record

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence
    from pathlib import Path


class Faulty:
    """What is called in place of `call`, and fails the first `times`."""

    def __init__(self, call: object, times: int = 1) -> None:
        self.call = call
        self.left = times

    def __call__(self, *args: object, **kwargs: object) -> object:
        if self.left:
            self.left -= 1
            raise ZeroDivisionError
        return self.call(*args, **kwargs)  # type: ignore[operator]


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "REST_S", 0.01)


# --- of a worker ----------------------------------------------------------------------------------


async def test_large_documents_come_into_force_after_one_that_meets_a_fault(
    monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str]
) -> None:
    live, taken = LivePolicies(), list[str]()
    loader = Loader(live, lambda model, _raw, _serves: taken.append(model))
    monkeypatch.setattr(live, "taking", Faulty(live.taking))
    running = spawn(loader.run(), name="loading")
    for model in ("one", "two"):
        loader.put(model, document(model, comment="x" * SMALL_BYTES))
    await eventually(lambda: bool(taken))
    await stop(running)

    assert taken == ["two"]
    assert counted_faults == {"policies": 1}


async def test_contexts_are_written_after_a_fault(
    monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str]
) -> None:
    monkeypatch.setattr(contexts, "INTERVAL_S", 0.01)
    store, metrics, settings = MemoryStore(), Metrics(), ContextSettings()
    writer = ContextWriter(store, sampling(3), settings, metrics)
    monkeypatch.setattr(writer, "flush", Faulty(writer.flush))
    running = spawn(writer.run(), name="contexts")
    await eventually(lambda: metrics.events["rmv_contexts_total", "outcome", "kept"] == 3)
    await stop(running)

    assert counted_faults == {"contexts": 1}


async def test_signatures_are_remembered_after_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str]
) -> None:
    ledger = SignedLedger(tmp_path / "signed.db")
    monkeypatch.setattr(ledger, "_put", Faulty(ledger._put))  # noqa: SLF001
    running = spawn(ledger.run(), name="signatures")
    ledger.note("rmv:policy:m", 1, b"signed")
    await eventually(lambda: not ledger._noted)  # noqa: SLF001
    await stop(running)
    await ledger.close()

    assert counted_faults == {"signatures": 1}


def test_a_fault_of_forgetting_tokens_forgets_them_all(
    monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str]
) -> None:
    revocations, cleared = Revocations(), list[bool]()
    tokens = Tokens(Config(no_auth=True), lambda _: None, SystemClock(), revocations)
    monkeypatch.setattr(tokens, "identities", Forgetful(cleared))
    tokens._forget_now()  # noqa: SLF001

    assert cleared == [True]
    assert counted_faults == {"revocations": 1}


class Forgetful:
    """A memory of tokens that cannot forget a part of them."""

    def __init__(self, cleared: list[bool]) -> None:
        self._cleared = cleared

    def forget(self, *_: object, **__: object) -> None:
        raise ZeroDivisionError

    def clear(self) -> None:
        self._cleared.append(True)


def test_exchanges_are_counted_and_logged_after_a_fault(
    tmp_path: Path, counted_faults: Counter[str]
) -> None:
    metrics, log = Metrics(), tmp_path / "log"
    with log.open("wb") as file:
        recorder = Recorder(metrics, file.fileno())
        recorder._encode = Faulty(recorder._encode)  # type: ignore[assignment]  # noqa: SLF001
        for _ in range(2):
            recorder.add(record())
            recorder.flush()

    assert metrics.totals()["requests"] == 2
    assert len(log.read_bytes().splitlines()) == 1
    assert metrics.events["rmv_log_lines_lost_total",] == 1
    assert counted_faults == {"record": 1}


async def test_a_change_of_policy_reaches_all_who_need_it_though_one_meets_a_fault(
    monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str], tmp_path: Path
) -> None:
    worker = Worker(Config(no_auth=True, exchange_log=str(tmp_path / "log")))
    monkeypatch.setattr(worker._health, "update", Faulty(worker._health.update))  # noqa: SLF001
    assert worker.live.put_policy("fraud", document())
    plane = worker._plane  # noqa: SLF001

    assert plane.sampler.tally("fraud") is not None
    assert await worker.pulse.noticed(0.0)
    assert counted_faults == {"policies": 1}
    worker.close()


# --- of audit -------------------------------------------------------------------------------------


class FaultySink(FileSink):
    """Files whose next writes meet a fault."""

    left = 0

    async def append(self, lines: Sequence[bytes]) -> None:
        if self.left:
            self.left -= 1
            raise ZeroDivisionError
        await super().append(lines)


async def test_audit_is_written_after_a_fault_and_requests_are_refused_until_then(
    tmp_path: Path, counted_faults: Counter[str]
) -> None:
    settings = settings_for(tmp_path, on_failure=OnFailure.CLOSED)
    sink = FaultySink(settings, SystemClock())
    log, told = log_of(settings, sinks=[sink]), list[bool]()
    log.on_refusing = told.append
    await log.start()
    sink.left = 1
    log.note("kill", model="fraud")
    await eventually(lambda: told == [True, False])
    await log.close()

    assert counted_faults == {"audit": 1}
    assert [one.kind for one in map(decode, lines_in(tmp_path))].count("kill") == 1
    assert not verified(lines_in(tmp_path)).faults


async def test_what_cannot_be_encoded_or_linked_costs_no_other_entry_and_breaks_no_chain(
    tmp_path: Path, counted_faults: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tmp_path)
    log = log_of(settings, metrics=(metrics := Metrics()))
    await log.start()
    monkeypatch.setattr("sidecar.audit.log.RETRY_S", 0.01)
    [outlet] = log._outlets  # noqa: SLF001
    chain = outlet._chain  # noqa: SLF001
    links = 0
    link = chain.link

    def failing(*args: object, **kwargs: object) -> bytes:
        nonlocal links
        links += 1
        if links == 3:
            raise ZeroDivisionError
        return link(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(chain, "link", failing)
    for number in range(5):
        log.note("kill", model="fraud", reason=str(number))
    log.note("kill", strange=object())  # type: ignore[arg-type]
    await eventually(lambda: metrics.events["rmv_audit_entries_total", "sink", "files"] >= 6)
    await log.close()

    entries = [decode(line) for line in lines_in(tmp_path)]
    assert [one.reason for one in entries if one.kind == "kill"] == ["0", "1", "2", "3", "4"]
    assert [one.facts["entries"] for one in entries if one.kind == "lost"] == [1]
    lost = "rmv_audit_lost_total", "sink", "files", "cause", "fault"
    assert metrics.events[lost] == 1
    assert counted_faults == {"audit": 2}
    assert not verified(lines_in(tmp_path)).faults


# --- between processes ----------------------------------------------------------------------------


async def test_who_meets_a_fault_in_answering_says_so_and_answers_the_next(
    counted_faults: Counter[str],
) -> None:
    line = Line("one")
    answers = await serve_questions(await line.open(), {"ready": Faulty(lambda _: "")})  # type: ignore[dict-item]
    with pytest.raises(UnansweredError):
        await line.ask("ready")

    assert await line.ask("ready") == ""
    line.on_notice = Faulty(print)  # type: ignore[assignment]
    answers.notice("something")
    assert await line.ask("ready") == ""
    await answers.end("")
    await line.ended()
    assert counted_faults == {"answers": 2}


async def test_a_worker_that_could_not_take_keys_in_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str]
) -> None:
    monkeypatch.setattr(key_desk, "RETELL_S", 0.01)
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    settings = IdentitySettings(ISSUER, AUDIENCE, discovery=True)
    desk = KeyDesk((settings,), SystemClock(), Metrics(), log_of(settings_for(tmp_path), sinks=[]))
    told: list[str] = []

    def take(about: str) -> str:
        told.append(about)
        return ""

    taking = Faulty(take)
    line = Line("one")
    answers = await serve_questions(await line.open(), {KEYS: taking})  # type: ignore[dict-item]
    desk.follow(line)
    await eventually(lambda: bool(told))
    await desk.stop()
    await answers.end("")
    await line.ended()

    assert [one.issuer for one in decode_keys(told[0])] == [ISSUER]
    assert counted_faults == {"answers": 1}


def test_sighup_renews_what_it_can(counted_faults: Counter[str]) -> None:
    renewed: list[str] = []
    failing = Faulty(print)
    _renew((failing, lambda: renewed.append("workers")))  # type: ignore[arg-type]

    assert renewed == ["workers"]
    assert counted_faults == {"renewal": 1}


async def test_who_waits_until_all_are_ready_waits_on_after_a_fault(
    counted_faults: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Fleet:
        def __init__(self) -> None:
            self.unready = Faulty(self.ready)

        async def ready(self) -> str:
            return ""

    with caplog.at_level(logging.INFO):
        await _announce(Config(no_auth=True), Fleet())  # type: ignore[arg-type]

    assert "serving" in [one.message for one in caplog.records]
    assert counted_faults == {"workers": 1}


async def test_metrics_are_read_after_a_fault(
    monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str]
) -> None:
    class Team:
        reads = 0

        def present(self) -> list[Line]:
            return []

        def excuses(self) -> list[str]:
            return []

        def running(self) -> list[Line]:
            self.reads += 1
            if self.reads == 1:
                raise ZeroDivisionError
            return []

    monkeypatch.setattr("sidecar.admin.fleet.READ_EVERY_S", 0.01)
    team = Team()
    fleet = WorkerFleet(team, Ledger(), ready="ready", metrics="metrics", own=str)
    running = spawn(fleet.keep_reading(), name="reading")
    await eventually(lambda: team.reads > 3)
    await stop(running)

    assert counted_faults == {"metrics": 1}


async def test_the_embedded_store_is_started_again_after_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str]
) -> None:
    server, starts = EmbeddedServer(str(tmp_path)), list[bool]()

    async def ended() -> None:
        await asyncio.sleep(0.01)

    async def start() -> None:
        starts.append(True)
        if len(starts) == 1:
            raise ZeroDivisionError

    monkeypatch.setattr(server, "_ended", ended)
    monkeypatch.setattr(server, "start", start)
    monkeypatch.setattr("sidecar.store.embedded._FIRST_BACKOFF_S", 0.01)
    running = spawn(server.supervise(), name="embedded-store")
    await eventually(lambda: len(starts) > 1)
    await stop(running)

    assert counted_faults == {"store": 1}
