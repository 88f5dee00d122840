"""What others wrote into files and stores is shown, and neither steers a terminal nor fails."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.cli.conftest import POLICY, key

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis

    from tests.cli.conftest import Rmv

NASTY = "x\033[2J\x9b\u202ey"
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.mark.parametrize(
    "command",
    [
        ("history", "tumor"),
        ("get", "tumor"),
        ("get",),
        ("status",),
        ("pins", "tumor"),
        ("apply", "-f", "back.yaml"),
        ("validate", "-f", "bad.yaml"),
        ("apply", "-f", "bad.yaml"),
        ("diff", "-f", "back.yaml"),
        ("explain", "tumor", "-H", "X-Beta: no"),
    ],
    ids=ascii,
)
def test_no_text_of_others_steers_the_terminal(
    tumor: Rmv,
    redis: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "back.yaml").write_text(POLICY)
    (tmp_path / "bad.yaml").write_text(POLICY + json.dumps(NASTY) + ": 1\n")
    edited = json.loads(tumor("get", "tumor", "--json").out)
    edited |= {"actor": NASTY, "comment": NASTY, "revision": 9}
    edited["rules"][0]["when"] = {"header.x-beta": NASTY}
    edited["versions"]["v2"]["deny"] = [{"tenant": NASTY}, {"tenant": "evil"}]
    file = tmp_path / "edited.json"
    file.write_text(json.dumps(edited))
    assert tumor("apply", "-f", file, "--comment", NASTY, "--actor", NASTY).code == 0
    edited["rules"][0]["when"] = {"header.x-beta": f"{NASTY}!"}
    redis.set(key("policy", "tumor"), json.dumps(edited))
    redis.set(key("pin", "tumor", NASTY), NASTY)
    redis.set(key("kill", "tumor", "v2"), NASTY)

    ran = tumor(*command)

    assert not STEERING.search(ran.out + ran.err)
    assert "[2J" in ran.out + ran.err  # it is told, all the same


def test_a_document_with_odd_characters_is_printed_as_the_same_document(
    tumor: Rmv, redis: Redis
) -> None:
    document = json.loads(tumor("get", "tumor", "--json").out)
    document["comment"] = NASTY
    redis.set(key("policy", "tumor"), json.dumps(document))

    printed = tumor("get", "tumor").out

    assert yaml.safe_load(printed)["comment"] == NASTY
    assert not STEERING.search(printed)


@pytest.mark.parametrize("at", ["nan", "1e999", "1e15", "-1e12"])
def test_a_revision_of_no_day_is_listed(tumor: Rmv, redis: Redis, at: str) -> None:
    redis.xadd(
        key("history", "tumor"),
        {"document": "{}", "actor": "x", "comment": "y", "at": at, "digest": "z"},
        id="2-0",
    )

    ran = tumor("history", "tumor")

    assert ran.code == 0, ran.err
    assert len(ran.out.splitlines()) == 3


@pytest.mark.parametrize(
    "command",
    [
        ("explain", "tumor", "--tenant", "\udcff"),
        ("kill", "tumor", "--reason", "\udcff"),
        ("pins", "\udcff"),
    ],
)
def test_an_argument_that_is_no_text_is_refused(tumor: Rmv, command: tuple[str, ...]) -> None:
    ran = tumor(*command)

    assert ran.code == 2
    assert "is not UTF-8" in ran.err


def test_a_problem_is_one_line_whatever_a_document_names(rmv: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "forged.yaml"
    file.write_text(POLICY.replace("default: v1", r'default: "v9\nforged.yaml: is valid"'))

    told = rmv("validate", "-f", file)

    assert told.code == 1
    assert len(told.out.splitlines()) == 1
    assert r'"v9\nforged.yaml: is valid"' in told.out
