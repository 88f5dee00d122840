"""`rmv explain` decides as the sidecar does; `rmv token` makes tokens that it believes."""

from __future__ import annotations

import io
import json
import re
import sys
from typing import TYPE_CHECKING

import pytest

from sidecar.cli.callers import read_claims
from sidecar.errors import ConfigError
from tests.cli.conftest import POLICY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv


def test_the_default_is_explained(tumor: Rmv) -> None:
    ran = tumor("explain", "--model", "tumor", "--tenant", "acme", "--brief")

    assert ran.code == 0
    assert dict(line.split(maxsplit=1) for line in ran.out.splitlines()) == {
        "model": "tumor",
        "tenant": "acme",
        "version": "v1",
        "reason": "DEFAULT",
        "revision": "1",
    }


def test_every_step_is_told(tumor: Rmv) -> None:
    tumor("label", "tumor", "next", "v2")
    ran = tumor("explain", "tumor", "--tenant", "evil", "-H", "X-Beta: yes")

    facts, versions, steps = ran.out.split("\n\n")
    assert "rejected  v2 (not-entitled)" in facts
    assert rows(versions) == [
        ["v1", "active", "-", "may serve"],
        ["v2", "active", "next", "may not serve (not-entitled: its deny[0])"],
    ]
    assert rows(steps) == [
        ["kill", "no", "the model is on"],
        ["explicit", "no", "no version is asked for"],
        ["pin", "no", "evil is not pinned"],
        ["rule beta", "passed over", 'header.x-beta is "yes"; the caller is not entitled to v2'],
        ["default", "serves v1", "the default is v1"],
    ]


def test_a_condition_that_fails_is_told_with_the_value_seen(tumor: Rmv) -> None:
    absent = tumor("explain", "tumor").out
    other = tumor("explain", "tumor", "-H", "X-Beta: no").out

    assert 'no header.x-beta, wanted "yes"' in absent
    assert 'header.x-beta is "no", wanted "yes"' in other


def test_what_ends_the_search_early_leaves_rules_unasked(tumor: Rmv) -> None:
    tumor("pin", "tumor", "acme", "v2")
    pinned = tumor("explain", "tumor", "--tenant", "acme").out
    tumor("kill", "tumor", "--reason", "recall")
    killed = tumor("explain", "tumor", "--tenant", "acme").out

    assert rows(pinned.split("\n\n")[2])[2:] == [
        ["pin", "serves v2", "acme is pinned to v2"],
        ["1 more rule", "not asked", "-"],
    ]
    assert rows(killed.split("\n\n")[2])[0] == ["kill", "refuses", "recall"]


def test_many_rules_that_do_not_match_are_counted(store: Rmv, tmp_path: Path) -> None:
    rules = "".join(f"  - {{id: r{n}, when: {{tenant: t{n}}}, serve: v1}}\n" for n in range(300))
    file = tmp_path / "many.yaml"
    file.write_text(POLICY.replace("default: v1", f"{rules}default: v1"))
    store("apply", "-f", file)

    steps = rows(store("explain", "tumor", "--tenant", "t250").out.split("\n\n")[2])

    assert steps[103:] == [
        ["151 more rules", "no", "--json tells why"],
        ["rule r250", "serves v1", 'tenant is "t250"'],
        ["49 more rules", "not asked", "-"],
    ]
    assert len(json.loads(store("explain", "tumor", "--json").out)["steps"]) == 305


def test_steps_are_told_to_programs(tumor: Rmv) -> None:
    told = json.loads(tumor("explain", "tumor", "--tenant", "acme", "--json").out)

    assert [step["asked"] for step in told["steps"]] == [
        "kill", "explicit", "pin", "rule", "default"
    ]  # fmt: skip
    assert told["steps"][3]["conditions"] == [
        {"attribute": "header.x-beta", "wanted": "yes", "seen": [], "holds": False}
    ]
    assert told["versions"][0]["by_rule"] is None


def test_another_time_and_readiness_can_be_supposed(store: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "window.yaml"
    file.write_text(POLICY.replace('header.x-beta: "yes"', "time: {from: 2027-01-01T00:00:00Z}"))
    store("apply", "-f", file)

    before = store("explain", "tumor", "--at", "2026-12-31T23:59:59Z", "--json")
    after = store("explain", "tumor", "--at", "2027-01-01T00:00:00Z", "--json")
    unready = store(
        "explain", "tumor", "--at", "2027-01-01T00:00:00Z", "--not-ready", "v2", "--json"
    )

    assert json.loads(before.out)["version"] == "v1"
    assert json.loads(after.out)["version"] == "v2"
    assert json.loads(unready.out)["rejected"] == [{"version": "v2", "cause": "not-ready"}]
    assert store("explain", "tumor", "--at", "tomorrow").code == 2
    assert store("explain", "tumor", "--not-ready", "v9").code == 1


def rows(table: str) -> list[list[str]]:
    """Return the cells of a table, without its header."""
    return [re.split(r" {2,}", line.strip()) for line in table.strip().splitlines()[1:]]


def test_a_rule_sees_the_headers(tumor: Rmv) -> None:
    ran = tumor("explain", "--model", "tumor", "--tenant", "acme", "-H", "X-Beta: yes", "--json")

    told = json.loads(ran.out)
    assert (told["version"], told["reason"]) == ("v2", "RULE:beta")


def test_a_pin_and_a_kill_are_seen(tumor: Rmv) -> None:
    tumor("pin", "tumor", "acme", "v2")
    pinned = tumor("explain", "--model", "tumor", "--tenant", "acme", "--json")
    tumor("kill", "tumor:v2", "--reason", "wrong dose")
    killed = tumor("explain", "--model", "tumor", "--tenant", "acme", "--json")

    assert json.loads(pinned.out)["reason"] == "PINNED"
    told = json.loads(killed.out)
    assert told["version"] is None
    assert told["rejected"] == [{"version": "v2", "cause": "killed"}]
    assert told["refusal"]["code"] == "version-unavailable"


def test_a_refusal_is_told_with_its_status(tumor: Rmv) -> None:
    ran = tumor("explain", "--model", "tumor", "--tenant", "evil", "--asked-version", "v2")

    assert ran.code == 0
    assert "refused   403 version-forbidden: " in ran.out
    assert "rejected  v2 (not-entitled)" in ran.out


def test_a_path_that_can_be_read_as_another_version_is_refused_as_a_sidecar_does(
    tumor: Rmv,
) -> None:
    ran = tumor("explain", "tumor", "--path", "/v2/models/tumor/./versions/v2/infer")

    assert ran.code != 0
    assert "--path names another model or version once it is decoded" in ran.err


def test_a_version_in_the_path_is_asked_for(tumor: Rmv) -> None:
    path = "/v2/models/tumor/versions/v2/infer"

    ran = tumor("explain", "--model", "tumor", "--path", path, "--json")
    both = tumor("explain", "--model", "tumor", "--path", path, "--asked-version", "v1")

    told = json.loads(ran.out)
    assert (told["version"], told["reason"]) == ("v2", "EXPLICIT")
    assert both.code == 2


def test_a_token_of_the_development_issuer_is_believed(
    tumor: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    made = tumor("token", "--tenant", "acme", "--keys", keys, "--claim", "plan=gold")
    settings = dict(line.split(" = ") for line in made.err.splitlines() if " = " in line)
    for name, value in settings.items():
        monkeypatch.setenv(f"RMV_IDENTITY__{name.strip().upper()}", json.loads(value))

    again = tumor("token", "--tenant", "acme")
    (tmp_path / "token").write_text(made.out)
    ran = tumor("explain", "--model", "tumor", "--token", tmp_path / "token", "--json")

    as_json = json.loads(tumor("--json", "token", "--tenant", "acme").out)
    assert as_json["token"].count(".") == 2
    assert made.out.count("\n") == 1
    assert made.out.count(".") == 2
    assert again.err == ""  # the same keys, found beside the key set that the settings name
    assert json.loads(ran.out)["tenant"] == "acme"


def test_claims_are_put_where_the_settings_look_for_them(tumor: Rmv, tmp_path: Path) -> None:
    tumor("token", "--tenant", "first", "--keys", tmp_path / "keys")
    file = tmp_path / "rmv.toml"
    file.write_text(
        '[identity]\njwks_file = "keys/jwks.json"\nissuer = "me"\naudience = "models"\n'
        'tenant_claim = "org.tenant"\n'
    )

    token = tmp_path / "token"
    token.write_text(tumor("token", "--tenant", "acme", "--config", file).out)
    ran = tumor("explain", "--model", "tumor", "--token", token, "--config", file, "--json")

    assert json.loads(ran.out)["tenant"] == "acme"


def test_a_token_that_is_not_believed_is_refused(
    tumor: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tumor("token", "--tenant", "acme", "--keys", tmp_path / "keys").out.strip()
    monkeypatch.setenv("RMV_IDENTITY__JWKS_FILE", str(tmp_path / "keys" / "jwks.json"))
    monkeypatch.setenv("RMV_IDENTITY__ISSUER", "somebody else")
    monkeypatch.setenv("RMV_IDENTITY__AUDIENCE", "rmv")

    (tmp_path / "token").write_text(token)
    ran = tumor("explain", "--model", "tumor", "--token", tmp_path / "token")

    assert ran.code == 1
    assert "issuer" in ran.err
    assert token not in ran.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--token", __file__), "--token needs the settings of [identity]"),
        (("--token", "nosuch"), "--token: nosuch: No such file"),
        (("--token", "x", "--tenant", "acme"), "--token says who calls"),
        (("--header", "nonsense"), "--header nonsense: write 'NAME: VALUE'"),
        (("--claim", "nonsense"), "--claim nonsense: write NAME=VALUE"),
    ],
)
def test_a_caller_that_cannot_be_read_is_a_usage_error(
    tumor: Rmv, arguments: tuple[str, ...], told: str
) -> None:
    ran = tumor("explain", "--model", "tumor", *arguments)

    assert ran.code == 2
    assert ran.err.startswith(f"error: {told}")


def test_claims_are_json_where_they_can_be() -> None:
    claims = read_claims(["plan=gold", "seats=3", "org.id=7", 'org.tags=["a"]', "empty="])

    assert claims == {"plan": "gold", "seats": 3, "org": {"id": 7, "tags": ["a"]}, "empty": ""}


def test_a_claim_inside_a_plain_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="`plan` is not an object"):
        read_claims(["plan=gold", "plan.name=gold"])


def test_the_model_is_named_as_of_other_commands_or_by_the_option(tumor: Rmv) -> None:
    plain = tumor("explain", "tumor", "--tenant", "acme")
    by_option = tumor("explain", "--model", "tumor", "--tenant", "acme")
    both = tumor("explain", "tumor", "--model", "other")

    assert plain == by_option
    assert plain.code == 0
    assert tumor("explain").code == both.code == 2


def believed(rmv: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> str:
    """Return a token of acme with these flags, and have the settings believe it."""
    token = rmv("token", "--tenant", "acme", "--keys", tmp_path / "keys", *more).out
    monkeypatch.setenv("RMV_IDENTITY__JWKS_FILE", str(tmp_path / "keys" / "jwks.json"))
    monkeypatch.setenv("RMV_IDENTITY__ISSUER", "rmv-development")
    monkeypatch.setenv("RMV_IDENTITY__AUDIENCE", "rmv")
    return token


def test_a_token_is_read_from_standard_input(
    tumor: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = believed(tumor, tmp_path, monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.StringIO(token))

    ran = tumor("explain", "tumor", "--token", "-", "--json")

    assert json.loads(ran.out)["tenant"] == "acme"


def test_a_token_that_was_taken_back_is_told_so_and_gets_no_version(
    tumor: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(believed(tumor, tmp_path, monkeypatch, "--claim", "jti=t"))
    tumor("revoke", "jti", "t")

    ran = tumor("explain", "tumor", "--token", file)

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: the token has been revoked\n"
    tumor("unrevoke", "jti", "t")
    assert tumor("explain", "tumor", "--token", file).code == 0


@pytest.mark.parametrize("command", ["explain", "access"])
def test_a_token_in_the_place_of_its_file_is_not_repeated(
    tumor: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    token = believed(tumor, tmp_path, monkeypatch).strip()

    ran = tumor(command, "tumor", "--token", token)

    assert ran.code == 2
    assert "--token names a file; - reads from stdin." in ran.err
    assert token[:80] not in ran.err


def test_what_is_drawn_for_each_request_is_named(store: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(
        "model: m\n"
        "versions:\n  v1: {endpoints: ['http://127.0.0.1:9001']}\n"
        "  v2: {endpoints: ['http://127.0.0.1:9002']}\n"
        "rules:\n  - {id: kept, when: {app: web}, split: {key: tenant, arms: {v1: 1, v2: 1}}}\n"
        "  - {id: ab, split: {key: request, arms: {v1: 1, v2: 1}}}\n"
        "default: v1\nshadows: [{version: v2, percent: 10}]\n"
    )
    assert store("apply", "-f", file).code == 0

    ran = store("explain", "m")

    drawn = "note: drawn anew for each request, so another may differ: rule ab, shadow v2\n"
    assert ran.err == drawn


def test_a_version_that_a_header_asks_for_is_asked_for(tumor: Rmv) -> None:
    asked = tumor("explain", "tumor", "-H", "X-Model-Version: v2")
    both = tumor("explain", "tumor", "-H", "x-model-version: v2", "--asked-version", "v1")

    assert "reason    EXPLICIT" in asked.out
    assert (both.code, both.err) == (2, "error: two versions are asked for: v1 and v2\n")


@pytest.mark.parametrize(("header", "by"), [("X-Tenant", "--tenant"), ("x-model", "MODEL")])
def test_a_header_that_no_rule_sees_is_not_ignored(tumor: Rmv, header: str, by: str) -> None:
    ran = tumor("explain", "tumor", "-H", f"{header}: globex")

    assert (ran.code, ran.err) == (2, f"error: --header {header}: globex: say it by {by}\n")


def test_an_id_of_another_spelling_is_pointed_to_the_option(tumor: Rmv) -> None:
    ran = tumor("explain", "q1498-1795444946")

    assert ran.code == 1
    assert "rmv explain --request q1498-1795444946" in ran.err


def test_who_is_excluded_from_a_segment_is_told_so(store: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "tumor.yaml"
    file.write_text(
        POLICY.replace('when: {header.x-beta: "yes"}', "when: {segment: beta}")
        + "segments: {beta: {exclude: [hooli], when: [{app: web}]}}\n"
    )
    assert store("apply", "-f", file).code == 0

    excluded = store("explain", "tumor", "--tenant", "hooli").out
    another = store("explain", "tumor", "--tenant", "acme").out

    told = 'in none of these segments{}, wanted "beta"'
    assert told.format(" (the tenant is in the exclude list of beta)") in excluded
    assert told.format("") in another


def test_a_segment_that_the_token_lists_is_said_by_an_option(store: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(
        "model: m\n"
        "versions:\n  v1: {endpoints: ['http://127.0.0.1:9001']}\n"
        "  v2: {endpoints: ['http://127.0.0.1:9002']}\n"
        "segments:\n  beta: {exclude: [globex], claimed: true}\n"
        "rules:\n  - {id: beta, when: {segment: beta}, serve: v2}\n"
        "default: v1\n"
    )
    assert store("apply", "-f", file).code == 0

    def version(*who: str) -> str:
        return str(json.loads(store("explain", "m", *who, "--json").out)["version"])

    assert version("--tenant", "acme") == "v1"
    assert version("--tenant", "acme", "--segment", "other", "--segment", "beta") == "v2"
    assert version("--tenant", "globex", "--segment", "beta") == "v1"
    assert store("explain", "m", "--token", "x", "--segment", "beta").code == 2
