"""Who begins a shadow test and makes a mistake is told what it is, and what to do."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest

from sidecar.model.shadow import Evidence, Ledger, Tally
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


def counted(ledger: Ledger, *pairs: Evidence, test: str = "") -> None:
    """Tell the store what a worker counted, and kept."""
    policy = codec.load(POLICY.encode(), source="here")
    test = test or id_of(policy, policy.shadows[0])

    async def tell() -> None:
        store = open_store(os.environ["RMV_REDIS"], os.environ["RMV_PREFIX"], "")
        try:
            tally = Tally("risk", "v2", test, 1_795_000_000.0, 1_795_000_100.0, ledger=ledger)
            await store.put_tally(tally, "host-1/0")
            await store.add_evidence("risk", "v2", pairs, 100)
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
