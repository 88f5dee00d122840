"""Pins, kills and the view of both, by the commands an operator types."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Rmv


@pytest.fixture
def redis(valkey_url: str) -> Iterator[Redis]:
    """A client as plain as redis-cli."""
    with Redis.from_url(valkey_url) as client:
        yield client


def key(*parts: str) -> str:
    """Return a key below the prefix of this test."""
    return ":".join((os.environ["RMV_PREFIX"], *parts))


def test_a_pin_is_the_key_that_the_contract_names(tumor: Rmv, redis: Redis) -> None:
    ran = tumor("pin", "tumor", "acme", "v2", "--ttl", "1h")

    assert ran == (0, "tumor: acme is pinned to v2 for 1h\n", "")
    assert redis.get(key("pin", "tumor", "acme")) == b"v2"
    assert 3_000 < int(str(redis.ttl(key("pin", "tumor", "acme")))) <= 3_600


def test_pins_are_listed_and_taken_back(tumor: Rmv) -> None:
    tumor("pin", "tumor", "globex", "v1")
    tumor("pin", "tumor", "acme", "v2")

    listed = tumor("pins", "tumor").out.splitlines()
    unpinned = tumor("unpin", "tumor", "acme")
    left = json.loads(tumor("pins", "tumor", "--json").out)

    assert [line.split()[:2] for line in listed[1:]] == [["acme", "v2"], ["globex", "v1"]]
    assert unpinned == (0, "tumor: acme is no longer pinned\n", "")
    assert left == [{"tenant": "globex", "version": "v1", "ttl_s": None}]


def test_a_tenant_that_is_not_pinned_cannot_be_unpinned(tumor: Rmv) -> None:
    ran = tumor("unpin", "tumor", "acme")

    assert ran.code == 1
    assert ran.err == "error: tumor: acme is not pinned; `rmv pins tumor` lists who is\n"


@pytest.mark.parametrize(
    "command", [("pin", "tumor", "acme", "v22"), ("kill", "tumor", "v22", "--reason", "bad")]
)
def test_a_version_that_the_policy_lacks_must_be_forced(
    tumor: Rmv, command: tuple[str, ...]
) -> None:
    refused = tumor(*command)
    forced = tumor(*command, "--force")

    lacking = "the policy of tumor has no version `v22`; did you mean `v2`?"
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == f"error: {lacking}; --force does it all the same\n"
    assert forced.code == 0
    assert forced.err == f"warning: {lacking}\n"


@pytest.mark.parametrize("target", [("tumor:v2",), ("tumor", "v2")])
def test_a_version_is_killed_and_brought_back(
    tumor: Rmv, redis: Redis, target: tuple[str, ...]
) -> None:
    killed = tumor("kill", *target, "--reason", "wrong dose")
    stored = redis.get(key("kill", "tumor", "v2"))
    back = tumor("unkill", *target)

    assert killed.out == "tumor:v2 is switched off: wrong dose\n"
    assert stored == b"wrong dose"
    assert back.out == "tumor:v2 is on again\n"
    assert tumor("unkill", *target).code == 1


def test_a_kill_without_a_version_is_of_the_whole_model(tumor: Rmv, redis: Redis) -> None:
    ran = tumor("kill", "tumor", "--reason", "recall", "--ttl", "2d")

    assert ran.out == "tumor (the whole model) is switched off for 2d: recall\n"
    assert redis.get(key("kill", "tumor")) == b"recall"


@pytest.mark.parametrize("arguments", [("tumor:",), ("tumor:v1", "v2")])
def test_an_unclear_target_is_not_killed(tumor: Rmv, arguments: tuple[str, ...]) -> None:
    ran = tumor("kill", *arguments, "--reason", "x")

    assert ran.code == 2
    assert json.loads(tumor("status", "--json").out)[0]["kills"] == []


def test_a_duration_that_cannot_be_read_is_a_usage_error(tumor: Rmv) -> None:
    ran = tumor("pin", "tumor", "acme", "v2", "--ttl", "tomorrow")

    assert ran.code == 2
    assert "write 30s, 15m, 1h, 2d" in ran.err


def test_status_counts_pins_and_names_kills(tumor: Rmv) -> None:
    tumor("pin", "tumor", "acme", "v2")
    tumor("kill", "tumor:v2", "--reason", "wrong dose")

    shown = tumor("status")
    (told,) = json.loads(tumor("status", "--json").out)

    assert shown.out.splitlines()[1].split(maxsplit=4) == [
        "tumor", "1", "v1,", "v2", "1     v2 (wrong dose)"
    ]  # fmt: skip
    assert told == {
        "model": "tumor",
        "revision": 1,
        "versions": ["v1", "v2"],
        "pins": 1,
        "kills": [{"version": "v2", "reason": "wrong dose", "ttl_s": None}],
        "fault": "",
    }


def test_a_broken_document_shows_in_status_and_apply_repairs_it(
    tumor: Rmv, redis: Redis, tmp_path: Path
) -> None:
    redis.set(key("policy", "tumor"), b'{"model": "tumor"}')

    shown = tumor("status")
    listed = tumor("get")
    repaired = tumor("apply", "-f", tmp_path / "tumor.yaml")

    assert "invalid" in shown.out
    assert "warning: tumor: the stored document is not valid" in shown.err
    assert "versions" in shown.err
    assert "warning: tumor" in listed.err
    assert repaired.out == "tumor configured (revision 2)\n"


def test_an_empty_store_says_how_to_fill_it(store: Rmv) -> None:
    assert store("status") == (
        0,
        "",
        "the store has no policy yet; `rmv apply -f policies/` commits some\n",
    )


def test_the_store_may_be_named_before_or_after_the_command(
    tumor: Rmv, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = os.environ["RMV_PREFIX"]
    monkeypatch.delenv("RMV_REDIS")
    monkeypatch.delenv("RMV_PREFIX")

    before = tumor("--redis", valkey_url, "--prefix", prefix, "--json", "status")
    after = tumor("status", "--json", "--redis", valkey_url, "--prefix", prefix)

    assert before.code == 0
    assert before == after
    assert json.loads(before.out)[0]["model"] == "tumor"


def test_a_password_is_not_told(rmv: Rmv, tmp_path: Path) -> None:
    ran = rmv("status", "--redis", f"unix://:hunter2@{tmp_path}/none.sock")

    assert ran.code == 1
    assert "hunter2" not in ran.err


def test_a_model_name_that_cannot_stand_in_a_key_is_refused(tumor: Rmv) -> None:
    ran = tumor("pins", "tu*mor")

    assert ran.code == 1
    assert ran.err.startswith("error: ")


def test_a_setting_that_nobody_knows_stops_every_command(
    tumor: Rmv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMV_REDDIS", "x")

    ran = tumor("status")

    assert ran.code == 2
    assert ran.err == ("error: RMV_REDDIS: reddis: unknown setting; did you mean `RMV_REDIS`?\n")
