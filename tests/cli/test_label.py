"""`rmv label` moves a label in a commit; whatever takes a version takes a label."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from redis import Redis

from tests.cli.conftest import POLICY, key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv


def test_a_label_is_set_moved_and_removed(tumor: Rmv) -> None:
    ran = [
        tumor("label", "tumor", "stable", "v1"),
        tumor("label", "tumor", "stable", "v2"),
        tumor("label", "tumor", "next", "stable"),
        tumor("label", "tumor", "stable", "--remove"),
    ]

    assert [one.out for one in ran] == [
        "tumor: stable is v1 (revision 2)\n",
        "tumor: stable is v2, was v1 (revision 3)\n",
        "tumor: next is v2 (revision 4)\n",
        "tumor: label stable removed, was v2 (revision 5)\n",
    ]
    assert json.loads(tumor("get", "tumor", "--json").out)["labels"] == {"next": "v2"}
    assert json.loads(tumor("history", "tumor", "--json").out)[0]["comment"] == (
        "label stable removed"
    )


def test_a_label_that_is_there_already_is_no_new_revision(tumor: Rmv) -> None:
    tumor("label", "tumor", "stable", "v1")

    again = json.loads(tumor("label", "tumor", "stable", "v1", "--json").out)
    said = tumor("label", "tumor", "stable", "v1").out

    assert said == "tumor: stable is v1 already (revision 2)\n"
    assert (again["revision"], again["before"], again["version"]) == (2, "v1", "v1")


def test_a_label_of_nothing_is_refused(tumor: Rmv) -> None:
    assert "did you mean" in tumor("label", "tumor", "stable", "v22").err
    assert "has no label `stable`" in tumor("label", "tumor", "stable", "--remove").err
    assert tumor("label", "tumor", "stable").code == 2
    assert tumor("label", "tumor", "v1", "v2").code == 1  # the name of a version


def test_a_label_in_use_cannot_be_removed(tumor: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "labelled.yaml"
    file.write_text(
        POLICY.replace("default: v1", "default: stable\nlabels: {stable: v1}").replace(
            "serve: v2", "serve: stable"
        )
    )
    tumor("apply", "-f", file)

    ran = tumor("label", "tumor", "stable", "--remove")

    assert ran == (1, "", "error: tumor: label stable is used by rule beta, default\n")
    assert tumor("explain", "tumor", "--json").code == 0


def test_what_a_label_breaks_is_told_by_the_rule_and_not_by_a_line(
    tumor: Rmv, tmp_path: Path
) -> None:
    file = tmp_path / "labelled.yaml"
    retired = '  v3: {endpoints: ["http://127.0.0.1:9003"], state: retired}\nrules:'
    labelled = POLICY.replace("rules:", retired).replace("serve: v2", "serve: canary")
    file.write_text(f"{labelled}labels: {{canary: v2}}\n")
    assert tumor("apply", "-f", file).code == 0

    ran = tumor("label", "tumor", "canary", "v3")

    assert ran.code == 1
    assert ran.err == (
        f'error: {key("policy", "tumor")}: rules[0].serve: "canary" (v3) is retired: name another '
        'version here, or none (rule "beta")\n'
    )


def test_pins_follow_a_label_and_kills_do_not(tumor: Rmv, valkey_url: str) -> None:
    tumor("label", "tumor", "canary", "v2")

    pinned = tumor("pin", "tumor", "acme", "canary")
    killed = tumor("kill", "tumor:canary", "--reason", "wrong dose")

    with Redis.from_url(valkey_url) as redis:
        prefix = os.environ["RMV_PREFIX"]
        assert redis.get(f"{prefix}:pin:tumor:acme") == b"canary"
        assert redis.get(f"{prefix}:kill:tumor:v2") == b"wrong dose"
    back = tumor("unkill", "tumor:canary")
    assert back.out == "tumor:v2 is on again\n"
    assert "(the label of v2 now) is not switched off" in tumor("unkill", "tumor:canary").err
    assert pinned.out == "tumor: acme is pinned to canary\n"
    assert killed.out == "tumor:v2 is switched off: wrong dose\n"
    assert "faulty" not in tumor("status").out


def test_one_sidecar_that_was_waited_for_is_told_as_one(tumor: Rmv, valkey_url: str) -> None:
    tumor("label", "tumor", "stable", "v1")
    prefix = os.environ["RMV_PREFIX"]
    with Redis.from_url(valkey_url) as client:
        client.hset(f"{prefix}:fleet:host:1", mapping={"sidecar": "host", "revision:tumor": "2"})
        client.pexpire(f"{prefix}:fleet:host:1", 60_000)
        client.zadd(f"{prefix}:fleet", {"host:1": 1})

    ran = tumor("label", "tumor", "stable", "v1", "--wait")

    assert "\n1 sidecar decides by it, after " in ran.out
