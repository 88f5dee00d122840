"""`rmv recall` finds who got answers of what was made from something, and says what it cannot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sidecar.audit.entry import Event
from sidecar.policy import codec
from sidecar.policy.lineage import digest
from tests.cli.conftest import key
from tests.cli.test_why import kept

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis

    from tests.cli.conftest import Ran, Rmv

SHA = f"sha256:{'a' * 64}"
CREDIT = f"""\
model: credit
audit: decisions
versions:
  v1:
    endpoints: ["http://127.0.0.1:9001"]
    lineage:
      run: r1
      git: {"8d" * 20}
      training_data: [{{name: loans, digest: "{SHA}"}}]
  v2:
    endpoints: ["http://127.0.0.1:9002"]
    lineage: {{run: r2, image: "{SHA}"}}
default: v1
"""
T0 = 1763902800.0  # 2025-11-23T13:00:00Z


def applied(rmv: Rmv, folder: Path, text: str = CREDIT) -> None:
    file = folder / "credit.yaml"
    file.write_text(text)
    assert rmv("apply", "-f", file).code == 0


@pytest.fixture
def credit(store: Rmv, tmp_path: Path) -> Rmv:
    applied(store, tmp_path)
    return store


def served(rmv: Rmv, tenant: str, version: str, at_s: float, **more: object) -> Event:
    """Return what a worker tells of an answer by the stored policy."""
    policy = codec.decode(rmv("get", "credit", "--json").out.encode(), source="")
    said = {
        "at_s": at_s,
        "kind": "decision",
        "request_id": f"{tenant}-{at_s}",
        "tenant": tenant,
        "model": "credit",
        "version": version,
        "revision": policy.revision,
        "lineage": digest(policy.versions[version]),
        "status": 200,
    }
    return Event(**{**said, **more})  # type: ignore[arg-type]  # members by name


def recalled(rmv: Rmv, audit: Path, what: str, *more: str) -> Ran:
    return rmv("recall", "--lineage", what, "--file", audit, *more)


def test_tenants_are_listed_with_how_many_answers_and_when(credit: Rmv, tmp_path: Path) -> None:
    audit = kept(
        tmp_path,
        served(credit, "acme", "v1", T0),
        served(credit, "globex", "v2", T0 + 1),
        served(credit, "acme", "v1", T0 + 60),
        served(credit, "initech", "v1", T0 + 30),
    )

    ran = recalled(credit, audit, f"training_data={SHA}")

    assert ran.code == 0, ran.err
    assert [line.split() for line in ran.out.splitlines()] == [
        ["VERSION", "REVISIONS", "DIGEST"],
        ["credit@v1", "1", served(credit, "a", "v1", T0).lineage[:19]],
        [],
        ["TENANT", "VERSION", "ANSWERS", "FIRST", "LAST", "LINEAGE"],
        ["acme", "credit@v1", "2", "2025-11-23T13:00:00Z", "2025-11-23T13:01:00Z", "told"],
        ["initech", "credit@v1", "1", "2025-11-23T13:00:30Z", "2025-11-23T13:00:30Z", "told"],
        ["3", "answers", "to", "2", "tenants"],
    ]
    assert "has 4 decisions of that time, from 2025-11-23T13:00:00Z to 2025-11-23T13:01:00Z; " in (
        ran.err
    )


@pytest.mark.parametrize(
    ("what", "versions"),
    [
        ("training_data=loans", ["v1"]),
        (f"image={SHA}", ["v2"]),
        ("run=r2", ["v2"]),
        ("git=8d8d8d8", ["v1"]),
        ("git=9999999", []),
        ("config=" + SHA, []),
    ],
)
def test_a_version_is_found_by_whatever_it_was_made_from(
    credit: Rmv, tmp_path: Path, what: str, versions: list[str]
) -> None:
    audit = kept(tmp_path, served(credit, "acme", "v1", T0), served(credit, "acme", "v2", T0))

    told = json.loads(recalled(credit, audit, what, "--json").out)

    assert [one["version"] for one in told["versions"]] == versions
    assert [one["version"] for one in told["answers"]] == versions


def test_any_of_several_things_is_enough(credit: Rmv, tmp_path: Path) -> None:
    audit = kept(tmp_path, served(credit, "acme", "v1", T0), served(credit, "acme", "v2", T0))

    ran = recalled(credit, audit, "run=r1", "--lineage", f"image={SHA}", "--json")

    assert len(json.loads(ran.out)["answers"]) == 2


def test_the_digest_of_a_whole_lineage_is_enough(credit: Rmv, tmp_path: Path) -> None:
    event = served(credit, "acme", "v2", T0)

    told = json.loads(
        recalled(credit, kept(tmp_path, event), f"digest={event.lineage}", "--json").out
    )

    assert [one["tenant"] for one in told["answers"]] == ["acme"]


def test_only_answers_within_the_time_count(credit: Rmv, tmp_path: Path) -> None:
    audit = kept(tmp_path, *(served(credit, "acme", "v1", T0 + n) for n in range(4)))

    ran = recalled(
        credit, audit, "run=r1",
        "--since", "2025-11-23T13:00:01Z", "--until", "2025-11-23T13:00:03Z", "--json",
    )  # fmt: skip

    (one,) = json.loads(ran.out)["answers"]
    assert one["span"] == {"answers": 2, "first_s": T0 + 1, "last_s": T0 + 2}


def test_an_entry_that_was_written_twice_is_one_answer(credit: Rmv, tmp_path: Path) -> None:
    audit = kept(tmp_path, served(credit, "acme", "v1", T0), served(credit, "acme", "v1", T0 + 1))
    (file,) = audit.glob("*.jsonl")
    file.write_bytes(file.read_bytes() * 2 + b'{"kind":"decision","tenant":"\xff"}\n')

    (one,) = json.loads(recalled(credit, audit, "run=r1", "--json").out)["answers"]

    assert one["span"]["answers"] == 2


def test_all_files_that_are_named_are_looked_through(credit: Rmv, tmp_path: Path) -> None:
    one = kept(tmp_path / "a", served(credit, "acme", "v1", T0))
    other = kept(tmp_path / "b", served(credit, "acme", "v1", T0 + 1))

    ran = recalled(credit, one, "run=r1", "--file", str(other), "--json")

    assert json.loads(ran.out)["answers"][0]["span"]["answers"] == 2


def test_a_request_that_failed_got_no_answer_of_the_version(credit: Rmv, tmp_path: Path) -> None:
    failed = served(credit, "acme", "v1", T0, status=502, code="upstream-failed")

    told = json.loads(recalled(credit, kept(tmp_path, failed), "run=r1", "--json").out)

    assert told["answers"] == []
    assert told["known"]["span"]["answers"] == 1


@pytest.mark.parametrize(
    ("status", "code", "answers"),
    [
        (200, "client-gone", 1),
        (200, "upstream-failed", 1),
        (200, "upstream-timeout", 1),
        (101, "drained", 1),
        (500, "", 1),  # the version's own
        (499, "client-gone", 0),
        (504, "upstream-timeout", 0),
        (503, "overloaded", 0),
    ],
)
def test_an_answer_that_was_cut_short_is_one_and_an_error_in_its_place_is_none(
    credit: Rmv, tmp_path: Path, status: int, code: str, answers: int
) -> None:
    event = served(credit, "acme", "v1", T0, status=status, code=code)

    told = json.loads(recalled(credit, kept(tmp_path, event), "run=r1", "--json").out)

    assert sum(one["span"]["answers"] for one in told["answers"]) == answers


def test_answers_from_before_the_lineage_was_told_are_told_apart(
    store: Rmv, tmp_path: Path
) -> None:
    before = CREDIT.replace("lineage: {run: r2", "rewrite: {path: /a}  # {run: r2")
    applied(store, tmp_path, before)
    early = served(store, "acme", "v2", T0)
    applied(store, tmp_path)
    late = served(store, "acme", "v2", T0 + 5)

    ran = recalled(store, kept(tmp_path, early, late), "run=r2")

    rows = [line.split() for line in ran.out.splitlines() if line.startswith("acme")]
    assert [row[2] for row in rows] == ["1", "1"]
    assert [row[5:] for row in rows] == [["not", "told", "then"], ["told"]]


def test_revisions_of_which_no_decision_was_audited_are_named(store: Rmv, tmp_path: Path) -> None:
    applied(store, tmp_path, CREDIT.replace("audit: decisions\n", ""))
    applied(store, tmp_path)

    ran = recalled(store, kept(tmp_path, served(store, "acme", "v1", T0)), "run=r1")

    assert "credit@v1: without `audit: decisions` in revision 1: " in ran.err


def test_entries_that_were_lost_are_told(credit: Rmv, tmp_path: Path) -> None:
    lost = Event(at_s=T0, kind="lost", facts={"entries": 7})

    ran = recalled(credit, kept(tmp_path, served(credit, "a", "v1", T0), lost), "run=r1")

    assert "audit lost 7 entries of that time" in ran.err


def test_answers_whose_lineage_no_history_tells_are_told(
    credit: Rmv, redis: Redis, tmp_path: Path
) -> None:
    event = served(credit, "acme", "v1", T0)
    redis.delete(key("history", "credit"))

    ran = recalled(credit, kept(tmp_path, event), "run=r1")

    assert "no version of any model was made from it" in ran.out
    assert "1 answer of versions whose lineage no history tells any more may belong here" in ran.err


def test_a_model_that_was_deleted_is_found_by_its_history(credit: Rmv, tmp_path: Path) -> None:
    event = served(credit, "acme", "v1", T0)
    assert credit("delete", "credit").code == 0, credit("delete", "--help").out

    assert "1 answer to 1 tenant" in recalled(credit, kept(tmp_path, event), "run=r1").out


def test_an_audit_without_decisions_says_that_nothing_is_known(credit: Rmv, tmp_path: Path) -> None:
    denied = Event(at_s=T0, kind="denied", request_id="r")

    ran = recalled(credit, kept(tmp_path, denied), "run=r1")

    assert "has no decisions of that time: nothing is known of who got what" in ran.err


@pytest.mark.parametrize("what", ["run", "run=", "owner=risk", "git=888", "=x"])
def test_what_cannot_be_looked_for_is_refused(credit: Rmv, tmp_path: Path, what: str) -> None:
    assert recalled(credit, tmp_path, what).code == 2
