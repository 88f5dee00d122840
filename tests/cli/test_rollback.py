"""`rmv rollback` goes back by going on: an earlier document, committed anew."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from sidecar.cli.waiting import NotAcknowledgedError, acknowledged
from sidecar.store.base import Instance
from tests.cli.conftest import POLICY
from tests.support.clock import HandClock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv

TO_V2 = POLICY.replace("default: v1", "default: v2")


@pytest.fixture
def moved(tumor: Rmv, tmp_path: Path) -> Rmv:
    """Run the command on a store whose policy has a second revision, with another default."""
    file = tmp_path / "moved.yaml"
    file.write_text(TO_V2)
    assert tumor("apply", "-f", file).code == 0
    return tumor


def test_what_was_said_before_is_committed_as_the_next_revision(moved: Rmv) -> None:
    ran = moved("rollback", "tumor", "--actor", "ann")
    newest = json.loads(moved("history", "tumor", "--json").out)[0]

    assert ran.code == 0
    assert ran.out == ('tumor rolled back to revision 1 (revision 3)\n  ~ default: "v2" -> "v1"\n')
    assert "default: v1" in moved("get", "tumor").out
    assert (newest["actor"], newest["comment"]) == ("ann", "rollback to revision 1")


def default(rmv: Rmv) -> str:
    """Return what is the default now."""
    found = json.loads(rmv("get", "tumor", "--json").out)["default"]
    assert isinstance(found, str)
    return found


def say(rmv: Rmv, folder: Path, version: str) -> None:
    """Make files say that a version is the default."""
    file = folder / "said.yaml"
    file.write_text(
        POLICY.replace("v2: {", "v3: {endpoints: [http://127.0.0.1:9003]}\n  v2: {").replace(
            "default: v1", f"default: {version}"
        )
    )
    assert rmv("apply", "-f", file, "--force").code == 0


@pytest.mark.parametrize("comment", [(), ("--comment", "v2 is bad")])
def test_a_second_rollback_goes_one_step_further_back(
    moved: Rmv, tmp_path: Path, comment: tuple[str, ...]
) -> None:
    say(moved, tmp_path, "v3")

    first = moved("rollback", "tumor", *comment)
    second = moved("rollback", "tumor", *comment)
    third = moved("rollback", "tumor", *comment)

    assert first.out.startswith("tumor rolled back to revision 2 (revision 4)\n")
    assert second.out.startswith("tumor rolled back to revision 1 (revision 5)\n")
    assert third.code == 1
    assert "has nothing further back that says something else" in third.err
    assert default(moved) == "v1"


def test_a_rollback_to_a_rollback_does_not_lead_to_what_that_one_left(
    moved: Rmv, tmp_path: Path
) -> None:
    moved("rollback", "tumor")  # revision 3 says what 1 said; 2 was bad
    say(moved, tmp_path, "v3")

    first, second = moved("rollback", "tumor"), moved("rollback", "tumor")

    assert first.out.startswith("tumor rolled back to revision 3 (revision 5)\n")
    assert second.code == 1
    assert default(moved) == "v1"


def test_what_files_took_back_already_is_not_brought_back_unasked(
    moved: Rmv, tmp_path: Path
) -> None:
    moved("apply", "-f", tmp_path / "tumor.yaml")

    refused = moved("rollback", "tumor")
    named = moved("rollback", "tumor", "2")

    assert refused.code == 1
    assert "revision 2 was taken back already, and may be a bad one" in refused.err
    assert named.out.startswith("tumor rolled back to revision 2 (revision 4)\n")


@pytest.mark.parametrize("number", ["2", "9" * 19, "9" * 5000])
def test_a_comment_alone_makes_no_rollback(moved: Rmv, tmp_path: Path, number: str) -> None:
    file = tmp_path / "third.yaml"
    file.write_text(POLICY.replace('"yes"', '"no"'))
    comment = f"rollback to revision {number}"
    assert moved("apply", "-f", file, "--comment", comment).code == 0

    ran = moved("rollback", "tumor")

    assert ran.out.startswith("tumor rolled back to revision 2 (revision 4)\n")


def test_a_rollback_can_be_tried(moved: Rmv) -> None:
    ran = moved("rollback", "tumor", "--dry-run")
    waiting = moved("rollback", "tumor", "--dry-run", "--wait")

    assert ran.out == 'tumor rolled back to revision 1 (dry run)\n  ~ default: "v2" -> "v1"\n'
    assert len(json.loads(moved("history", "tumor", "--json").out)) == 2
    assert waiting.code == 2


def test_a_revision_can_be_named(moved: Rmv) -> None:
    named = json.loads(moved("rollback", "tumor", "1", "--json").out)
    again = moved("rollback", "tumor", "1")
    unknown = moved("rollback", "tumor", "9")

    assert named == {
        "model": "tumor",
        "revision": 3,
        "rolled_back_to": 1,
        "compared_with": None,
        "changes": [{"path": "default", "before": "v2", "after": "v1"}],
        "waited": None,
    }
    assert again.out == "tumor unchanged: it says what revision 1 says (revision 3)\n"
    assert unknown.code == 1
    assert unknown.err == (
        "error: the history of tumor has no revision 9\n`rmv history tumor` lists what it has.\n"
    )


def test_the_first_revision_has_nothing_to_go_back_to(tumor: Rmv) -> None:
    assert "nothing further back" in tumor("rollback", "tumor").err
    assert "did you mean `tumor`" in tumor("rollback", "tumour").err


def test_a_deleted_model_comes_back(tumor: Rmv, tmp_path: Path) -> None:
    other = tmp_path / "only"
    other.mkdir()
    (other / "fraud.yaml").write_text(POLICY.replace("model: tumor", "model: fraud"))
    tumor("apply", "-f", other, "--prune")

    ran = tumor("rollback", "tumor")

    assert ran.out.startswith("tumor rolled back to revision 1 (revision 2)\n")
    assert tumor("explain", "tumor").code == 0


def test_files_do_not_undo_a_rollback_until_they_say_so_too(moved: Rmv, tmp_path: Path) -> None:
    moved("rollback", "tumor", "--actor", "ann")

    refused = moved("apply", "-f", tmp_path / "moved.yaml")
    agreed = moved("apply", "-f", tmp_path / "tumor.yaml")
    anew = moved("apply", "-f", tmp_path / "moved.yaml")

    assert refused.code == 1
    assert "revision 3 by ann (rollback to revision 1)" in refused.err
    assert agreed.out == "tumor taken over (revision 4)\n"
    assert anew.out == "tumor configured (revision 5)\n"


def test_a_revision_can_be_looked_at_before(moved: Rmv) -> None:
    first = json.loads(moved("get", "tumor", "--revision", "1", "--json").out)

    assert (first["default"], first["revision"]) == ("v1", 1)
    assert "default: v2" in moved("get", "tumor", "--revision", "2").out
    assert "has no revision 9" in moved("get", "tumor", "--revision", "9").err
    assert moved("get", "--revision", "1").code == 2


def test_a_revision_too_far_back_is_said_to_be_so(tumor: Rmv, valkey_url: str) -> None:
    with Redis.from_url(valkey_url) as client:
        history = f"{os.environ['RMV_PREFIX']}:history:tumor"
        said = client.xrange(history)
        assert isinstance(said, list)
        for revision in range(2, 1002):
            client.xadd(history, said[0][1], id=f"{revision}-0")

    assert "has no revision 1 among its newest 1,000\n" in tumor("rollback", "tumor", "1").err
    assert tumor("get", "tumor", "--revision", "2").code == 0


class Sidecars:
    """Sidecars that decide by a later revision each time they are looked at."""

    def __init__(self, clock: HandClock, *looks: list[Instance]) -> None:
        self._clock = clock
        self._looks = [*looks]

    async def fleet(self, _model: str | None = None) -> list[Instance]:
        self._clock.advance(0.25)
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


def at(name: str, revision: int, fault: str = "") -> Instance:
    return Instance(name, {"tumor": revision}, faults={"tumor": fault} if fault else {})


async def test_waiting_ends_when_the_last_sidecar_has_come_along() -> None:
    clock = HandClock()
    fleet = Sidecars(clock, [at("a", 1), at("b", 2)], [at("a", 2), at("b", 3)])
    began_s = clock.monotonic_s()

    reached = await acknowledged(fleet, "tumor", 2, began_s=began_s, timeout_s=30, clock=clock)

    assert (reached.instances, reached.seconds) == (2, 0.5)


async def test_waiting_has_an_end_that_names_who_is_behind() -> None:
    clock = HandClock()
    fleet = Sidecars(clock, [at("a", 2), at("b", 1, "unknown version"), Instance("c", {})])
    began_s = clock.monotonic_s()

    with pytest.raises(NotAcknowledgedError) as raised:
        await acknowledged(fleet, "tumor", 2, began_s=began_s, timeout_s=1, clock=clock)

    text = str(raised.value)
    assert "2 of 3 sidecars do not decide by it after 1 s" in text
    assert "b (unknown version), c (it knows no such model)" in text


def test_a_direct_edit_is_taken_back(tumor: Rmv, valkey_url: str) -> None:
    with Redis.from_url(valkey_url) as client:
        client.set(f"{os.environ['RMV_PREFIX']}:policy:tumor", TO_V2)

    ran = tumor("rollback", "tumor")

    assert ran.out.startswith("tumor rolled back to revision 1 (revision 2)\n")
