"""Who begins a shadow test and makes a mistake is told what it is, and what to do."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sidecar.model.shadow import Evidence, Ledger, Pairs, Tally
from sidecar.policy import codec
from sidecar.shadow.naming import test_of as id_of
from sidecar.store.connect import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv

POLICY = """\
model: risk
versions:
  v1: {endpoints: ["http://127.0.0.1:9001"]}
  v2: {endpoints: ["http://127.0.0.1:9002"]}
default: v1
shadows:
  - {version: v2, compare: {}}
"""


@pytest.fixture
def rmv(store: Rmv, tmp_path: Path) -> Rmv:
    """Run the command on a store whose policy has a shadow, but no methods."""
    file = tmp_path / "risk.yaml"
    file.write_text(POLICY)
    assert store("apply", "-f", file).code == 0
    return store


def counted(ledger: Ledger, *kept: Evidence, test: str = "", pairs: Pairs | None = None) -> None:
    """Tell the store what a worker counted, and kept."""
    policy = codec.load(POLICY.encode(), source="here")
    test = test or id_of(policy, policy.shadows[0])

    async def tell() -> None:
        store = open_store(os.environ["RMV_REDIS"], os.environ["RMV_PREFIX"], "")
        try:
            tally = Tally("risk", "v2", test, 1_795_000_000.0, 1_795_000_100.0, ledger=ledger)
            tally.pairs.update({} if pairs is None else {"v1": pairs})
            await store.put_tally(tally, "host-1/0")
            await store.add_evidence("risk", "v2", kept, 100)
        finally:
            await store.close()

    asyncio.run(tell())


@pytest.mark.parametrize(
    ("ledger", "why"),
    [
        (
            Ledger(eligible=30, skipped={"method": 30}),
            "none of 30 requests was copied: 30 skipped for its method",
        ),
        (
            Ledger(eligible=30, mirrored=30, failed={"connect": 29}, uncompared={"size": 1}),
            "none of 30 copies was compared: no connection (29)",
        ),
        (
            Ledger(eligible=3, mirrored=3, uncompared={"malformed": 3}),
            "none of 3 copies was compared: a body is not what its type, or the policy, says (3)",
        ),
        (Ledger(eligible=30, mirrored=30), ""),
    ],
)
def test_a_test_that_comes_to_nothing_says_why(rmv: Rmv, ledger: Ledger, why: str) -> None:
    counted(ledger)

    (row,) = json.loads(rmv("shadow", "list", "--json").out)

    assert row["why"] == "; ".join(filter(None, ("0 answers of the 1,000 that it needs", why)))
    assert row["why"] in rmv("shadow", "report", "risk@v2").out


def test_a_test_that_is_over_is_not_said_to_be_of_no_shadow(rmv: Rmv) -> None:
    counted(Ledger(eligible=30, sampled_out=30), test="0123456789ab")

    assert "has no such shadow" not in rmv("shadow", "list", "--all").out
    report = rmv("shadow", "report", "risk@v2", "--test", "0123456789ab").out
    assert "the test is over: the policy has another one of this shadow, or none" in report


def pair(number: int, field: str = "/score") -> Evidence:
    policy = codec.load(POLICY.encode(), source="here")
    return Evidence(
        at_s=1_795_000_000.0 + number,
        model="risk",
        version="v2",
        primary="v1",
        test=id_of(policy, policy.shadows[0]),
        request_id=f"r{number}",
        shadow_request_id=f"s{number}",
        tenant="acme",
        kind="json",
        fields=(field,),
        differences=(),
        primary_status=200,
        shadow_status=200,
        primary_s=0.01,
        shadow_s=0.02,
    )


def test_a_list_of_one_model_is_not_said_to_be_of_all(rmv: Rmv, tmp_path: Path) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text("model: plain\nversions: {v1: {endpoints: [http://127.0.0.1:1]}}\ndefault: v1")
    rmv("apply", "-f", plain)

    assert "the policy of plain has no shadows" in rmv("shadow", "list", "plain").err
    unknown = rmv("shadow", "list", "rsik")
    assert unknown.code == 1
    assert "no policy of `rsik`" in unknown.err


def test_a_field_that_nothing_differs_in_is_answered_with_those_that_differ(rmv: Rmv) -> None:
    counted(Ledger(), pair(1), pair(2, "/label"))

    said = rmv("shadow", "diffs", "risk@v2", "--field", "score").err

    assert "none of 2 pairs that are kept fits; they differ in /label, /score" in said


def test_pairs_of_a_test_that_is_over_are_not_said_to_be_uncompared(rmv: Rmv) -> None:
    counted(Ledger(eligible=1, sampled_out=1), test="0123456789ab")

    said = rmv("shadow", "diffs", "risk@v2").err

    assert "nothing is compared" not in said


def test_an_export_says_how_much_was_not_kept(rmv: Rmv, tmp_path: Path) -> None:
    tally = Pairs(number=40, agreed=8)
    counted(Ledger(eligible=40, mirrored=40, compared=40), pair(1), pair(2), pairs=tally)
    file = tmp_path / "pairs.jsonl"

    said = rmv("shadow", "export", "risk@v2", "-o", file).err

    assert "2 pairs of risk@v2 written, of 32 that disagreed" in said
    assert "give a name that is free" in rmv("shadow", "export", "risk@v2", "-o", file).err


def test_a_version_to_replay_to_may_be_spelled_as_a_shadow_is(rmv: Rmv, tmp_path: Path) -> None:
    counted(Ledger(), pair(1))
    file = tmp_path / "pairs.jsonl"
    rmv("shadow", "export", "risk@v2", "-o", file)

    assert "1 requests to risk:v2" in rmv("replay", file, "--against", "risk@v2").out
    other = rmv("replay", file, "--against", "other@v2")
    assert other.code == 2
    assert "is of another model than the requests: they are of risk" in other.err
    file.write_text("")
    assert "`rmv shadow export MODEL@VERSION`" in rmv("replay", file, "--against", "v2").err


def test_a_watch_on_a_terminal_spells_figures_as_a_report_does(rmv: Rmv) -> None:
    assert rmv("shadow", "list").code == 0
    counted(
        Ledger(eligible=2000, mirrored=2000, compared=2000),
        pairs=Pairs(number=2000, agreed=1990, answers=2000),
    )
    terminal, its_end = os.openpty()
    watch = [sys.executable, "-m", "sidecar", "shadow", "watch", "risk@v2", "--rounds", "1"]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    ran = subprocess.run(watch, stdout=its_end, env=env, check=False, timeout=60)
    os.close(its_end)

    drawn = os.read(terminal, 65_536).decode()

    os.close(terminal)
    assert ran.returncode == 0
    assert "  agreement: 99.5% in " in drawn
    assert "  error increase: 0 pp in -0.44 pp to +0.44 pp, bound +1 pp: pass" in drawn
    assert "  1 worker\r\n" in drawn


def test_no_report_is_not_taken_for_a_verdict(rmv: Rmv, tmp_path: Path) -> None:
    assert rmv("shadow", "report", "risk@v1", "--check").code == 2
    file = tmp_path / "file"
    file.write_text("{}")
    taken = rmv("shadow", "report", "risk@v2", "-o", file)
    assert (taken.code, "give the name of one" in taken.err) == (2, True)
    assert rmv("replay", file, "--against", "v2").code == 2


def test_a_control_that_does_not_answer_is_told(rmv: Rmv, tmp_path: Path) -> None:
    policy = POLICY.replace("compare: {}", "compare: {control: v1}")
    (tmp_path / "risk.yaml").write_text(policy)
    assert rmv("apply", "-f", tmp_path / "risk.yaml").code == 0
    (shadow,) = codec.load(policy.encode(), source="here").shadows
    counted(
        Ledger(eligible=2000, mirrored=2000, compared=2000),
        test=id_of(codec.load(policy.encode(), source="here"), shadow),
        pairs=Pairs(number=2000, agreed=1990, answers=2000),
    )

    (row,) = json.loads(rmv("shadow", "list", "--json").out)

    assert "the control has answered 0 of 2,000" in row["why"]


def test_an_export_of_nothing_takes_no_name(rmv: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"

    ran = rmv("shadow", "export", "risk@v2", "-o", file)

    assert (ran.code, "nothing is written" in ran.err) == (0, True)
    assert not file.exists()


def test_pairs_without_values_say_what_keeps_them(rmv: Rmv) -> None:
    counted(Ledger(), pair(1))

    assert "`compare.keep.values` of the policy keeps it" in rmv("shadow", "diffs", "risk@v2").err
    assert rmv("shadow", "diffs", "risk@v2", "--json").err == ""


def test_a_shadow_that_is_begun_with_is_led_to_comparing(rmv: Rmv, tmp_path: Path) -> None:
    versions = ("--version", "v1=http://127.0.0.1:1", "--version", "v2=http://127.0.0.1:2")
    rmv("init", "fraud", *versions, "--shadow", "v2=10", "--folder", tmp_path)
    file = tmp_path / "policies" / "fraud.yaml"
    assert "`compare: {}`" in file.read_text()
    rmv("apply", "-f", file)

    assert "as the shadow has no compare" in rmv("shadow", "report", "fraud@v2").out
