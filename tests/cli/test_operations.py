"""Pins, kills and the view of both, by the commands an operator types."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from sidecar.cli.lookup import NO_POLICY
from tests.cli.conftest import key

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis

    from tests.cli.conftest import Rmv


def test_a_pin_is_the_key_that_the_contract_names(tumor: Rmv, redis: Redis) -> None:
    ran = tumor("pin", "tumor", "acme", "v2", "--ttl", "1h")

    assert ran == (0, "tumor: acme is pinned to v2 for 1h\n", "")
    assert redis.get(key("pin", "tumor", "acme")) == b"v2"
    assert 3_000 < int(str(redis.ttl(key("pin", "tumor", "acme")))) <= 3_600


def test_a_pin_that_replaces_another_tells_what_it_was(tumor: Rmv) -> None:
    tumor("pin", "tumor", "acme", "v1")

    moved = tumor("pin", "tumor", "acme", "v2").out
    again = json.loads(tumor("pin", "tumor", "acme", "v2", "--json").out)

    assert moved == "tumor: acme is pinned to v2, was v1\n"
    assert (again["version"], again["before"]) == ("v2", "v2")


def test_pins_are_listed_and_taken_back(tumor: Rmv) -> None:
    tumor("pin", "tumor", "globex", "v1")
    tumor("pin", "tumor", "acme", "v2")

    listed = tumor("pins", "tumor").out.splitlines()
    unpinned = tumor("unpin", "tumor", "acme")
    left = json.loads(tumor("pins", "tumor", "--json").out)

    assert [line.split()[:2] for line in listed[1:]] == [["acme", "v2"], ["globex", "v1"]]
    assert unpinned == (0, "tumor: acme is no longer pinned\n", "")
    assert left == [{"tenant": "globex", "version": "v1", "ttl_s": None, "fault": ""}]


def test_pins_of_all_models_are_listed_together(tumor: Rmv, redis: Redis) -> None:
    tumor("pin", "tumor", "acme", "v2")
    redis.set(key("pin", "fraud", "acme"), "v1")
    redis.set(key("pin", "no model", "acme"), "v1")

    listed = tumor("pins").out.splitlines()
    as_json = json.loads(tumor("pins", "--json").out)

    assert [line.split(maxsplit=3)[:3] for line in listed] == [
        ["MODEL", "TENANT", "VERSION"],
        ["fraud", "acme", "v1"],
        ["tumor", "acme", "v2"],
    ]
    assert [(one, as_json[one][0]["version"]) for one in as_json] == [
        ("fraud", "v1"),
        ("tumor", "v2"),
    ]


def test_a_pin_that_does_not_bring_its_version_is_warned_of(tumor: Rmv) -> None:
    denied = tumor("pin", "tumor", "evil", "v2")
    missing = tumor("pin", "tumor", "acme", "v22", "--force")
    tumor("kill", "tumor:v1", "--reason", "wrong dose")
    killed = tumor("pin", "tumor", "acme", "v1")

    assert denied.err.startswith("warning: evil is refused now: DENIED:not-entitled (")
    assert "acme is refused now: DENIED:unknown" in missing.err
    assert killed.err.startswith("warning: acme is refused now: DENIED:killed (")
    assert (denied.code, killed.code) == (0, 0)


def test_a_tenant_that_is_not_pinned_cannot_be_unpinned(tumor: Rmv) -> None:
    ran = tumor("unpin", "tumor", "acme")

    assert ran.code == 1
    assert ran.err == "error: tumor: acme is not pinned\n`rmv pins tumor` lists who is.\n"


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
    assert refused.err == f"error: {lacking}\nWith --force it is done all the same.\n"
    assert forced.code == 0
    assert forced.err.splitlines()[0] == f"warning: {lacking}"


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
    assert json.loads(tumor("status", "--json").out)["models"][0]["kills"] == []


def test_a_duration_that_cannot_be_read_is_a_usage_error(tumor: Rmv) -> None:
    ran = tumor("pin", "tumor", "acme", "v2", "--ttl", "tomorrow")

    assert ran.code == 2
    assert "write 30s, 15m, 1h, 2d" in ran.err


def test_status_counts_pins_and_names_kills(tumor: Rmv) -> None:
    tumor("pin", "tumor", "acme", "v2")
    tumor("kill", "tumor:v2", "--reason", "wrong dose")

    shown = tumor("status")
    (told,) = json.loads(tumor("status", "--json").out)["models"]

    assert shown.out.splitlines()[1].split(maxsplit=4) == [
        "tumor", "1", "v1,", "v2", "1     v2 (wrong dose)"
    ]  # fmt: skip
    assert told == {
        "model": "tumor",
        "revision": 1,
        "versions": ["v1", "v2"],
        "pins": 1,
        "kills": [{"version": "v2", "reason": "wrong dose", "ttl_s": None, "fault": ""}],
        "fault": "",
        "faulty_pins": 0,
        "has_policy": True,
        "is_deleted": False,
        "doubt": "",
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
    assert repaired.out == "tumor configured (revision 2, replaces a document that is not valid)\n"


def test_an_empty_store_says_how_to_fill_it(store: Rmv) -> None:
    told = (0, "", f"{NO_POLICY}\n")
    assert store("status") == told
    assert store("get") == told


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
    assert json.loads(before.out)["models"][0]["model"] == "tumor"


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
    assert ran.err == ("error: RMV_REDDIS: unknown setting; did you mean `RMV_REDIS`?\n")


@pytest.mark.parametrize(
    "command",
    [
        ("kill", "tumor:v2", "--reason", "wrong dose"),
        ("kill", "tumor", "--reason", "wrong dose"),
        ("pin", "tumor", "acme", "v2"),
    ],
)
def test_a_document_that_is_invalid_keeps_nobody_from_acting(
    tumor: Rmv, redis: Redis, command: tuple[str, ...]
) -> None:
    redis.set(key("policy", "tumor"), b'{"model": "tumor"}')

    done = tumor(*command)

    assert done.code == 0
    assert done.out
    assert done.err.startswith("warning: tumor")
    assert "is not checked: the stored document is invalid: " in done.err
    assert done.err.count("\n") == 1


def test_what_was_done_is_undone_while_the_document_is_invalid(tumor: Rmv, redis: Redis) -> None:
    tumor("kill", "tumor:v2", "--reason", "wrong dose")
    tumor("pin", "tumor", "acme", "v2")
    redis.set(key("policy", "tumor"), b"{")

    assert tumor("unkill", "tumor:v2").code == 0
    assert tumor("unpin", "tumor", "acme").code == 0


def test_pins_and_kills_that_cannot_be_followed_are_marked(tumor: Rmv, redis: Redis) -> None:
    redis.set(key("kill", "tumor", "v22"), "oops")
    redis.sadd(key("kill", "tumor", "v1"), "bad")
    redis.set(key("pin", "tumor", "acme"), "v9")
    redis.set(key("pin", "tumor", " globex"), "v1")

    shown = tumor("status")
    listed = tumor("pins", "tumor").out

    assert "2 (2 faulty)" in shown.out
    assert "v1 - not a string; v22 (oops) - no such version" in shown.out
    assert "v9 - no such version: the tenant is refused" in listed
    assert "v1 - no caller can have this tenant" in listed


def test_a_kill_that_is_no_string_is_not_explained_as_one(tumor: Rmv, redis: Redis) -> None:
    redis.sadd(key("kill", "tumor", "v1"), "bad")

    told = json.loads(tumor("explain", "tumor", "--tenant", "acme", "--json").out)

    assert told["version"] == "v1"


@pytest.mark.parametrize("model", ["tumour", "tumor "])
def test_a_kill_of_a_model_without_policy_shows_in_status(
    tumor: Rmv, redis: Redis, model: str
) -> None:
    redis.set(key("kill", model), "oops")

    shown = tumor("status")

    assert shown.code == 0
    assert "none" in shown.out
    assert f"warning: {model}: pins or kills name it" in shown.err


def test_a_model_that_the_store_has_lost_shows_in_status_while_sidecars_serve_it(
    tumor: Rmv, redis: Redis
) -> None:
    redis.hset(
        key("fleet", "host", "1"),
        mapping={
            "sidecar": "host",
            "is_stale": "1",
            "revision:fraud": "3",
            "fault:fraud": "the store has lost it",
        },
    )
    redis.pexpire(key("fleet", "host", "1"), 60_000)
    redis.zadd(key("fleet"), {"host:1": 1})

    shown = tumor("status")

    assert re.search(r"^fraud +none ", shown.out, re.MULTILINE)
    assert "fraud 3 of none" in shown.out
    assert "warning: host goes on serving fraud: the store has lost it" in shown.err
    assert "or `rmv apply` the file of it" in shown.err
    assert "stale" in shown.out
    assert "warning: fraud: sidecars serve it, but the store has no policy of it" in shown.err


def test_a_document_that_names_another_model_shows_as_invalid(tumor: Rmv, redis: Redis) -> None:
    document = redis.get(key("policy", "tumor"))
    redis.set(key("policy", "fraud"), str(document, "utf-8") if isinstance(document, bytes) else "")

    shown = tumor("status")
    (fraud, _) = json.loads(tumor("status", "--json").out)["models"]

    assert shown.code == 0
    assert shown.out.splitlines()[1].split()[:2] == ["fraud", "invalid"]
    assert 'is "tumor", but the key says "fraud"' in shown.err
    assert fraud["fault"]


@pytest.mark.parametrize("reason", ["", " "])
def test_a_kill_needs_words(tumor: Rmv, redis: Redis, reason: str) -> None:
    ran = tumor("kill", "tumor:v2", "--reason", reason)

    assert ran.code == 2
    assert "--reason needs words" in ran.err
    assert redis.get(key("kill", "tumor", "v2")) is None


def test_a_kill_of_the_last_version_is_warned_of(tumor: Rmv) -> None:
    first = tumor("kill", "tumor:v2", "--reason", "bad")
    last = tumor("kill", "tumor:v1", "--reason", "bad")

    assert first.err == ""
    assert last.code == 0
    assert "every version of tumor is switched off" in last.err


@pytest.mark.parametrize("tenant", ["\u00e4", " acme", "x" * 129, ""])
def test_a_tenant_that_no_token_can_have_is_not_pinned(tumor: Rmv, tenant: str) -> None:
    ran = tumor("pin", "tumor", tenant, "v2")

    assert ran.code == 2
    assert "no token can have the tenant" in ran.err
    assert json.loads(tumor("status", "--json").out)["models"][0]["pins"] == 0


@pytest.mark.parametrize("command", ["pins", "history"])
def test_a_list_of_a_model_that_is_not_there_fails(tumor: Rmv, command: str) -> None:
    ran = tumor(command, "nomodel")

    assert ran == (1, "", "error: the store has no policy of `nomodel`; it has tumor\n")


def test_a_store_that_is_no_url_is_a_usage_error(tumor: Rmv) -> None:
    ran = tumor("status", "--redis", "localhost:6379")

    assert ran.code == 2
    assert ran.err.startswith("error: --redis: the URL must begin with redis://")


def test_the_embedded_store_needs_a_sidecar(rmv: Rmv, tmp_path: Path) -> None:
    ran = rmv("status", "--state-dir", tmp_path)

    assert ran.code == 1
    assert "Is `rmv serve` running?" in ran.err


def test_a_document_that_is_no_string_shows_as_invalid_and_stops_no_kill(
    tumor: Rmv, redis: Redis
) -> None:
    redis.sadd(key("policy", "fraud"), "x")

    shown = tumor("status")
    killed = tumor("kill", "fraud:v1", "--reason", "bad")
    listed = tumor("get")

    assert shown.code == 0
    assert [line.split()[:2] for line in shown.out.splitlines()[1:]] == [
        ["fraud", "invalid"],
        ["tumor", "1"],
    ]
    assert "policy:fraud: not a string" in shown.err
    assert killed.code == listed.code == 0


def test_a_kill_by_a_label_that_moved_on_is_found_again(tumor: Rmv) -> None:
    tumor("label", "tumor", "canary", "v2")
    tumor("kill", "tumor:canary", "--reason", "bad")
    tumor("label", "tumor", "canary", "v1")

    ran = tumor("unkill", "tumor:canary")

    assert ran.code == 1
    assert ran.err == (
        "error: tumor:canary (the label of v1 now) is not switched off; tumor:v2 is\n"
        "`rmv unkill tumor:v2` switches it on.\n"
    )


def test_a_pin_that_is_no_string_is_listed_by_what_is_wrong_with_it(
    tumor: Rmv, redis: Redis
) -> None:
    redis.rpush(key("pin", "tumor", "acme"), "v1")

    row = tumor("pins", "tumor").out.splitlines()[1]

    assert re.fullmatch(r"acme {2,}(?! |-)\S.*string.*", row)


def test_no_line_of_a_heartbeat_begins_as_a_line_of_status(tumor: Rmv, redis: Redis) -> None:
    fault = "bad\nwarning: tumor: delete it\rnow"
    redis.hset(key("fleet", "pod:1"), mapping={"sidecar": "pod", "fault:tumor": fault})
    redis.pexpire(key("fleet", "pod:1"), 6500)
    redis.zadd(key("fleet"), {"pod:1": 1})

    shown = tumor("status")
    (pod,) = json.loads(tumor("status", "--json").out)["sidecars"]

    assert "refuses the document of tumor: bad\n  warning: tumor: delete it\\x0dnow" in shown.err
    assert pod["faults"] == {"tumor": fault}
    assert pod["age_s"] == round(pod["age_s"], 3)


def test_a_form_of_output_that_is_not_known_is_told_with_those_that_are(tumor: Rmv) -> None:
    ran = tumor("get", "tumor", "-o", "xml")

    assert ran.code == 2
    assert "`xml` is none of yaml, json" in ran.err
    assert "Value error" not in ran.err
    assert tumor("get", "tumor", "-o", "json") == tumor("get", "tumor", "--json")
