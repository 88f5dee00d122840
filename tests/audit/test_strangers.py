"""Whoever cannot say who they are does not say what is in audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.audit.decisions import Decisions
from sidecar.audit.entry import Entry, decode
from sidecar.audit.files import files_in
from sidecar.audit.strangers import WINDOW_S, Strangers
from sidecar.errors import Code
from sidecar.model.decision import Decision
from sidecar.model.identity import ANONYMOUS, Identity
from sidecar.telemetry.metrics import Metrics
from tests.audit.chains import lines_in, log_of, settings_for, verified
from tests.audit.requests import record_of
from tests.policy.examples import make_head
from tests.support.clock import HandClock

if TYPE_CHECKING:
    from pathlib import Path

FLOOD = 10_000


def deny(decisions: Decisions, identity: Identity, code: Code, requests: int = 1) -> None:
    """Tell of requests that got no version."""
    head = make_head()
    decision = Decision("", "", f"DENIED:{code.slug}", 0, refusal=code)
    record = record_of(identity, head, decision)
    for _ in range(requests):
        decisions.take(record, identity, head, None, None)


def denied_in(folder: Path) -> list[Entry]:
    return [one for one in map(decode, lines_in(folder)) if one.kind == "denied"]


async def test_a_flood_of_strangers_drives_no_pin_out_of_the_files(tmp_path: Path) -> None:
    log = log_of(settings_for(tmp_path, file_bytes=65_536, files=2))
    log.note("pin", model="fraud", tenant="acme", version="v1")

    deny(Decisions(log), ANONYMOUS, Code.TOKEN_INVALID, FLOOD)
    await log.close()

    lines = lines_in(tmp_path)
    assert "pin" in {decode(line).kind for line in lines}
    assert not verified(lines).faults
    assert len(files_in(tmp_path)) == 1


async def test_what_is_not_told_one_by_one_is_in_the_sum_and_in_the_metric(tmp_path: Path) -> None:
    clock, metrics = HandClock(), Metrics()
    log = log_of(settings_for(tmp_path, strangers_per_minute=5), clock=clock, metrics=metrics)
    decisions = Decisions(log)

    began_s = clock.now_s()
    deny(decisions, ANONYMOUS, Code.TOKEN_INVALID, 8)
    clock.advance(0.5)
    deny(decisions, ANONYMOUS, Code.TOKEN_MISSING, 4)
    clock.advance(0.5)
    await log.close()

    *told, counted = denied_in(tmp_path)
    codes = {"token-invalid": 3, "token-missing": 4}
    assert [one.code for one in told] == ["token-invalid"] * 5
    assert counted.facts == {"requests": 7, "codes": codes, "since_s": began_s}
    assert (counted.at_s, counted.request_id) == (began_s + 1, "")
    name = "rmv_audit_denials_summed_total"
    assert {code: metrics.events[name, "code", code] for code in codes} == codes


async def test_each_denial_of_who_is_known_is_told(tmp_path: Path) -> None:
    log = log_of(settings_for(tmp_path, strangers_per_minute=0))
    decisions = Decisions(log)

    deny(decisions, Identity(tenant="acme"), Code.TENANT_DENIED, 100)
    await log.close()

    assert [one.tenant for one in denied_in(tmp_path)] == ["acme"] * 100


async def test_a_name_that_nobody_checked_makes_nobody_known(tmp_path: Path) -> None:
    log = log_of(settings_for(tmp_path, strangers_per_minute=1))
    decisions = Decisions(log, are_callers_known=False)

    for number in range(9):
        deny(decisions, Identity(tenant=f"tenant-{number}"), Code.NO_SUCH_VERSION)
    await log.close()

    first, counted = denied_in(tmp_path)
    assert first.tenant == "tenant-0"
    assert counted.facts["requests"] == 8


def test_each_window_has_its_entries_and_its_sum() -> None:
    clock = HandClock()
    strangers = Strangers(2, clock=clock, metrics=Metrics())

    for _ in range(3):
        assert [strangers.admit("token-missing") for _ in range(4)] == [True, True, False, False]
        clock.advance(WINDOW_S - 1)
        assert strangers.sum_up() is None
        clock.advance(1)
        # Nothing comes before the sum of what came before: a window has one sum at most.
        assert not strangers.admit("token-missing")
        counted = strangers.sum_up()
        assert counted is not None
        assert counted.facts["requests"] == 3
        assert strangers.sum_up() is None


def test_without_strangers_there_is_no_sum() -> None:
    clock = HandClock()
    strangers = Strangers(2, clock=clock, metrics=Metrics())

    assert strangers.admit("token-missing")
    clock.advance(WINDOW_S)

    assert strangers.sum_up() is None
    assert strangers.sum_up(is_last=True) is None
