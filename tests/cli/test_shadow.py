"""`rmv shadow` tells what sidecars counted of the shadows that the policies have."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

import msgspec
import pytest

from sidecar.model.shadow import Difference, Evidence, Tally
from sidecar.policy import codec
from sidecar.shadow.naming import test_of as id_of
from sidecar.store.connect import open_store
from tests.cli.conftest import key
from tests.shadow.tallies import planted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from redis import Redis

    from sidecar.store.base import Store
    from tests.cli.conftest import Rmv

POLICY = """\
model: tumor
versions:
  v1: {endpoints: ["http://127.0.0.1:9001"]}
  v2: {endpoints: ["http://127.0.0.1:9002"], price: {per_request: 0.01, currency: EUR}}
  v3: {endpoints: ["http://127.0.0.1:9003"]}
labels: {next: v2}
default: v1
shadows:
  - {version: next, percent: 25, methods: [POST], compare: {}}
  - {version: v3, methods: [POST]}
"""


@pytest.fixture
def rmv_shadows(store: Rmv, tmp_path: Path) -> Rmv:
    """Run the command on a store whose policy has two shadows."""
    file = tmp_path / "tumor.yaml"
    file.write_text(POLICY)
    assert store("apply", "-f", file).code == 0
    return store


def in_store(work: Callable[[Store], Awaitable[object]]) -> None:
    """Do something in the store that the commands see, as a sidecar does it."""

    async def visit() -> None:
        store = open_store(os.environ["RMV_REDIS"], os.environ["RMV_PREFIX"], "")
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(visit())


def current(version: str = "v2") -> str:
    """Return the id of the test that the policy asks for."""
    policy = codec.load(POLICY.encode(), source="here")
    shadow = next(one for one in policy.shadows if one.version in {version, "next"})
    return id_of(policy, shadow)


def counted(score: float = 0.0, *, test: str | None = None, workers: int = 2) -> Sequence[Tally]:
    """Return what so many workers counted, with scores that differ at this rate."""
    plain = msgspec.to_builtins(planted(600, {"/score": score}), str_keys=True)
    stored = json.dumps(plain, ensure_ascii=False).encode(errors="replace")  # as sidecars write it
    made = msgspec.json.decode(stored, type=Tally)
    return [msgspec.structs.replace(made, test=test or current()) for _ in range(workers)]


def told(tallies: Sequence[Tally]) -> None:
    async def put(store: Store) -> None:
        for number, one in enumerate(tallies):
            await store.put_tally(one, f"host-1/{number}")

    in_store(put)


def pair(number: int, *, tenant: str = "acme", field: str = "/score") -> Evidence:
    return Evidence(
        at_s=1_795_000_000.0 + number,
        model="tumor",
        version="v2",
        primary="v1",
        test=current(),
        request_id=f"r{number}",
        shadow_request_id=f"s{number}",
        tenant=tenant,
        kind="json",
        fields=(field,),
        differences=(Difference(field, "value", "0.5", "0.75", 0.25),),
        primary_status=200,
        shadow_status=200,
        primary_s=0.01,
        shadow_s=0.02,
    )


def kept(*pairs: Evidence) -> None:
    in_store(lambda store: store.add_evidence("tumor", "v2", pairs, 100))


def test_a_shadow_is_listed_before_a_sidecar_has_told_of_it(rmv_shadows: Rmv) -> None:
    rows = json.loads(rmv_shadows("shadow", "list", "--json").out)

    assert [(row["version"], row["eligible"], row["outcome"]) for row in rows] == [
        ("v2", 0, "inconclusive"),
        ("v3", 0, "inconclusive"),
    ]
    assert "no sidecar has told of copies yet" in rmv_shadows("shadow", "list").out


def test_what_workers_counted_is_added_up(rmv_shadows: Rmv) -> None:
    one, other = counted(0.2)
    told([one, other])

    row = json.loads(rmv_shadows("shadow", "list", "tumor", "--json").out)[0]

    assert row["eligible"] == 2 * one.ledger.eligible
    pairs = one.pairs["v1"]
    assert row["agreement"] == pytest.approx(pairs.agreed / pairs.number)
    assert row["outcome"] == "fail"


def test_a_test_that_the_policy_no_longer_asks_for_is_listed_with_all(rmv_shadows: Rmv) -> None:
    told(counted(test="0123456789ab"))

    assert "0123456789ab" not in rmv_shadows("shadow", "list").out
    assert "0123456789ab (ended)" in rmv_shadows("shadow", "list", "--all").out
    ended = rmv_shadows("shadow", "report", "tumor@v2", "--test", "0123456789ab", "--json")
    assert json.loads(ended.out)["test"] == "0123456789ab"


@pytest.mark.parametrize("name", ["tumor@v2", "tumor:v2", "tumor@next"])
def test_a_report_is_found_by_version_and_label(rmv_shadows: Rmv, name: str) -> None:
    told(counted(0.1))

    ran = rmv_shadows("shadow", "report", name)

    assert ran.code == 0
    assert ran.out.startswith("# Shadow test of tumor v2")
    assert "/score" in ran.out
    assert "EUR" in ran.out


def test_a_report_is_written_with_its_plots(rmv_shadows: Rmv, tmp_path: Path) -> None:
    told(counted(0.1))

    assert rmv_shadows("shadow", "report", "tumor@v2", "-o", tmp_path / "out").code == 0

    page = (tmp_path / "out" / "report.md").read_text()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    plots = sorted((tmp_path / "out").glob("*.svg"))
    assert report["model"] == "tumor"
    assert len(plots) >= 3
    for plot in plots:
        assert plot.name in page
        Xml.fromstring(plot.read_text())  # noqa: S314 -- our own


@pytest.mark.parametrize(("workers", "status"), [(2, 1), (1, 3)], ids=["fails", "too few pairs"])
def test_a_check_says_the_verdict_by_its_exit_status(
    rmv_shadows: Rmv, workers: int, status: int
) -> None:
    told(counted(0.2, workers=workers))

    assert rmv_shadows("shadow", "report", "tumor@v2", "--check").code == status
    assert rmv_shadows("shadow", "report", "tumor@v2").code == 0


def test_pairs_are_shown_the_newest_first(rmv_shadows: Rmv) -> None:
    kept(*(pair(number) for number in range(5)))

    ran = rmv_shadows("shadow", "diffs", "tumor@v2", "-n", "2")

    assert ran.out.index("r4") < ran.out.index("r3")
    assert "r2" not in ran.out
    assert "0.5" in ran.out
    assert "+0.25" in ran.out


@pytest.mark.parametrize(
    "narrowed",
    [("--tenant", "globex"), ("--field", "/label"), ("--request-id", "s2")],
    ids=lambda one: one[0],
)
def test_pairs_are_narrowed(rmv_shadows: Rmv, narrowed: tuple[str, str]) -> None:
    kept(pair(1), pair(2, tenant="globex", field="/label"), pair(3))

    found = json.loads(rmv_shadows("shadow", "diffs", "tumor@v2", "--json", *narrowed).out)

    assert [one["request_id"] for one in found] == ["r2"]


def test_no_pairs_are_explained(rmv_shadows: Rmv) -> None:
    assert "no pair that disagreed is kept" in rmv_shadows("shadow", "diffs", "tumor@v2").err
    assert "nothing is compared" in rmv_shadows("shadow", "diffs", "tumor@v3").err


def test_entries_that_are_no_evidence_are_told(rmv_shadows: Rmv, redis: Redis) -> None:
    kept(pair(1))
    redis.xadd(key("evidence", "tumor", "v2"), {"evidence": "{"})

    ran = rmv_shadows("shadow", "diffs", "tumor@v2", "--json")

    assert [one["request_id"] for one in json.loads(ran.out)] == ["r1"]
    assert "1 entries are no evidence" in ran.err


def test_pairs_are_exported_the_oldest_first(rmv_shadows: Rmv, tmp_path: Path) -> None:
    pairs = [pair(1), pair(2)]
    kept(*pairs)
    file = tmp_path / "pairs.jsonl"

    ran = rmv_shadows("shadow", "export", "tumor@v2", "-o", file)

    lines = file.read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=Evidence) for line in lines] == pairs
    assert "keep.bodies" in ran.err
    again = rmv_shadows("shadow", "export", "tumor@v2", "-o", file)
    assert again.code == 1
    assert "File exists" in again.err


def test_a_watch_prints_a_line_a_look(rmv_shadows: Rmv) -> None:
    told(counted(0.2))

    ran = rmv_shadows("shadow", "watch", "tumor@v2", "--rounds", "1")

    assert len(ran.out.splitlines()) == 1
    assert "fail" in ran.out


def test_a_reset_forgets_counts_and_pairs(rmv_shadows: Rmv) -> None:
    told(counted())
    kept(pair(1))

    assert rmv_shadows("shadow", "reset", "tumor@v2").code == 0

    assert json.loads(rmv_shadows("shadow", "list", "--json").out)[0]["eligible"] == 0
    assert json.loads(rmv_shadows("shadow", "diffs", "tumor@v2", "--json").out) == []


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("tumor", "names no version"),
        ("tumor@v1", "is no shadow"),
        ("tumor@v9", "is no shadow"),
        ("tumour@v2", "did you mean `tumor`"),
    ],
)
def test_a_target_that_is_no_shadow_is_refused(rmv_shadows: Rmv, target: str, said: str) -> None:
    ran = rmv_shadows("shadow", "report", target)

    assert ran.code in {1, 2}
    assert said in ran.err


def test_what_a_tenant_is_called_steers_no_terminal(rmv_shadows: Rmv) -> None:
    kept(pair(1, tenant="\x1b[31mred", field="/\x1b]0;title\x07"))

    out = rmv_shadows("shadow", "diffs", "tumor@v2").out

    assert "\x1b" not in out
    assert "\\x1b[31mred" in out
