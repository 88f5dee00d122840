"""`rmv access` tells who may use what, as the sidecar decides it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from sidecar.cli.matchers import any_of, in_words
from sidecar.model.context import Context, ContextSettings
from sidecar.model.policy import Operators
from sidecar.store.connect import open_store
from tests.cli.test_explain import rows

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.model.context import Values
    from sidecar.model.policy import Matcher
    from tests.cli.conftest import Rmv

SCANS = """\
model: scans
default_access: deny
deny: [{tenant: hooli}]
labels: {stable: v1}
versions:
  v1: {endpoints: ["http://127.0.0.1:9001"], allow: [{tenant: {exists: true}}]}
  v2: {endpoints: ["http://127.0.0.1:9002"], state: draining,
       allow: [{scope: preview}, {header.x-beta: "yes"}]}
  v3: {endpoints: ["http://127.0.0.1:9003"]}
default: v1
"""
OPEN = """\
model: open
versions:
  v1: {endpoints: ["http://127.0.0.1:9001"], deny: [{tenant: [globex, initech]}]}
  v2.1.0: {endpoints: ["http://127.0.0.1:9002"]}
default: v1
"""


@pytest.fixture
def models(store: Rmv, tmp_path: Path) -> Rmv:
    for name, text in (("scans", SCANS), ("open", OPEN)):
        (tmp_path / f"{name}.yaml").write_text(text)
        assert store("apply", "-f", tmp_path / f"{name}.yaml").code == 0
    return store


def judged(out: str) -> list[list[str]]:
    return rows(out.split("\n\n")[1])


def test_a_model_is_told_version_by_version(models: Rmv) -> None:
    ran = models("access", "scans")

    assert ran.code == 0
    assert rows(ran.out) == [
        ["v1", "active", "stable", "tenant is there", "tenant is hooli"],
        ["v2", "draining", "-", "scope is preview | header.x-beta is yes", "tenant is hooli"],
        ["v3", "active", "-", "nobody", "tenant is hooli"],
    ]
    assert rows(models("access", "open").out)[1] == ["v2.1.0", "active", "-", "everybody", "-"]


def test_a_caller_is_told_what_it_may_use_of_all_models_and_why(models: Rmv) -> None:
    ran = models("access", "--tenant", "acme", "--scope", "preview", "--grant", ">=2 <3")

    assert judged(ran.out) == [
        ["open", "v1", "active", "no", "the token does not grant it"],
        ["open", "v2.1.0", "active", "yes", "the token grants it"],
        ["scans", "v1", "active", "no", "the token does not grant it"],
        ["scans", "v2", "draining", "yes", "its allow[0], the token grants it"],
        ["scans", "v3", "active", "no", "default_access is deny"],
    ]
    assert "scans also hangs on header.x-beta of the request" in ran.err


def test_segments_of_a_token_are_the_callers_and_not_the_requests(
    store: Rmv, tmp_path: Path
) -> None:
    (tmp_path / "open.yaml").write_text(
        OPEN.replace("deny: [{tenant: [globex, initech]}]", "allow: [{segment: vips}]")
        + "segments: {vips: {claimed: true}}\n"
    )
    assert store("apply", "-f", tmp_path / "open.yaml").code == 0

    ran = store("access", "open", "--tenant", "acme", "--segment", "vips")

    assert judged(ran.out)[0][3:] == ["yes", "its allow[0]"]
    assert "hangs on" not in ran.err


def test_what_keeps_a_caller_out_is_told(models: Rmv) -> None:
    out = models("access", "scans", "--tenant", "hooli", "-H", "X-Beta: yes").out
    other = models("access", "open", "--tenant", "initech").out
    anybody = models("access", "scans", "--subject", "s", "-H", "X-Beta: yes").out

    assert [row[3:] for row in judged(out)] == [["no", "deny[0] of the model"]] * 3
    assert [row[3:] for row in judged(other)] == [
        ["no", "its deny[0]"],
        ["yes", "open to everybody"],
    ]
    assert [row[3:] for row in judged(anybody)] == [
        ["no", "no allow of it fits"],
        ["yes", "its allow[1]"],
        ["no", "default_access is deny"],
    ]


def test_access_is_for_programs_too(models: Rmv) -> None:
    doors = json.loads(models("access", "scans", "--json").out)
    caller = json.loads(models("access", "scans", "--tenant", "acme", "--json").out)

    assert doors["default_access"] == "deny"
    assert doors["versions"][1]["allow"] == [{"scope": "preview"}, {"header.x-beta": "yes"}]
    assert caller["models"][0]["versions"][2] == {
        "version": "v3",
        "state": "active",
        "labels": [],
        "may": False,
        "by": [],
        "barrier": {"by": "default-access"},
        "untold": [],
    }


def believing(rmv: Rmv, tmp_path: Path, *more: str) -> tuple[Path, Path]:
    """Return settings that believe a token with these flags, and a file with it."""
    keys, settings, file = tmp_path / "keys", tmp_path / "rmv.toml", tmp_path / "token"
    file.write_text(rmv("token", "--tenant", "acme", "--keys", keys, *more).out)
    settings.write_text(
        f'[identity]\njwks_file = "{keys}/jwks.json"\nissuer = "rmv-development"\n'
        'audience = "rmv"\ngrants_claim = "models"\n'
    )
    return settings, file


def test_a_token_is_told_what_it_may_use(
    models: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = '{"open": ["v2.1.0"], "*": ["label:stable"]}'
    settings, file = believing(models, tmp_path, "--claim", f"models={granted}", "--claim", "jti=t")

    by_file = models("access", "--token", file, "--config", settings)
    monkeypatch.setattr(sys, "stdin", io.StringIO(file.read_text()))
    by_stdin = models("access", "--token", "-", "--config", settings)

    assert by_file.code == 0
    assert by_file.out == by_stdin.out
    assert "open: v2.1.0; *: label:stable" in by_file.out
    assert [row[:2] for row in judged(by_file.out) if row[3] == "yes"] == [
        ["open", "v2.1.0"],
        ["scans", "v1"],
    ]
    models("revoke", "jti", "t")
    revoked = models("access", "--token", file, "--config", settings)
    assert (revoked.code, revoked.out) == (1, "")
    assert "the token has been revoked" in revoked.err
    models("unrevoke", "jti", "t")
    models("revoke", "tenant", "acme")
    assert models("access", "--token", file, "--config", settings).code == 1


def test_a_token_with_grants_that_cannot_be_read_may_use_nothing(
    models: Rmv, tmp_path: Path
) -> None:
    settings, file = believing(models, tmp_path, "--claim", 'models={"open": ["v1, v2"]}')

    ran = models("access", "--token", file, "--config", settings)

    assert ran.code == 1
    assert "claim 'models' has a grant that is no version, label or range" in ran.err


def sampled(tenant: str, attributes: dict[str, Values], *, stands_for: float = 10.0) -> Context:
    return Context(
        request_id="r",
        at_s=1000.0,
        model="scans",
        tenant=tenant,
        version="v1",
        reason="DEFAULT",
        revision=1,
        duration_s=0.1,
        instance="here",
        attributes=attributes,
        stands_for=stands_for,
    )


def add(*contexts: Context) -> None:
    async def write() -> None:
        store = open_store(os.environ["RMV_REDIS"], os.environ["RMV_PREFIX"])
        await store.add_contexts("scans", contexts, ContextSettings())
        await store.close()

    asyncio.run(write())


def test_callers_of_late_are_told_each(models: Rmv) -> None:
    nobody = models("access", "scans", "--sampled").out
    plain: dict[str, Values] = {"scope": (), "header.x-beta": ()}
    granted: dict[str, Values] = {"scope": ("preview",), "header.x-beta": (), "granted": ("v2",)}
    add(
        *[sampled("acme", plain)] * 2,
        sampled("hooli", plain),
        sampled("globex", granted, stands_for=5.0),
        sampled("initech", {"scope": ()}, stands_for=1.0),
    )

    found = rows(models("access", "scans", "--sampled").out)
    since = models("access", "scans", "--sampled", "--since", "1d").out

    assert "no request was sampled" in nobody
    assert "no request was sampled" in since
    assert [(row[0], *row[2:4]) for row in found] == [
        ("acme", "20", "v1"),
        ("hooli", "10", "-"),
        ("globex", "5", "v2"),
        ("initech", "1", "-"),
    ]
    assert "v2 (no allow of it fits), v3 (default_access is deny)" in found[0][4]
    assert "v1 (the token does not grant it)" in found[2][4]
    assert "v1 (not told: header.x-beta)" in found[3][4]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name the model"),
        (("--sampled",), "name the model"),
        (("scans", "--sampled", "--tenant", "acme"), "leave out what says who calls"),
        (("--token", "-", "--tenant", "acme"), "--token says who calls"),
        (("--token", "nosuch"), "--token: nosuch: No such file"),
        (("--tenant", "acme", "--grant", "v1, v2"), "--grant: "),
        (("scanz",), "did you mean `scans`?"),
    ],
)
def test_what_is_not_understood_is_told(models: Rmv, arguments: tuple[str, ...], said: str) -> None:
    ran = models("access", *arguments)

    assert ran.code in {1, 2}
    assert said in ran.err


@pytest.mark.parametrize(
    ("matcher", "words"),
    [
        ({}, "everybody"),
        ({"tenant": "acme", "app": ("a", "b")}, "tenant is acme and app is a or b"),
        ({"tenant": tuple("abcdefgh")}, "tenant is a or b or c or d or e or 3 more"),
        ({"claim.paid": True, "claim.name": "true"}, 'claim.paid is true and claim.name is "true"'),
        (
            {"scope": Operators(exists=True, not_in=("x", "y z"), prefix="m:", gte=2)},
            'scope is there, is not x nor "y z", begins with m:, is at least 2',
        ),
        (
            {"header.ip": Operators(cidr=("10.0.0.0/8",)), "claim.v": Operators(semver=">=2 <3")},
            'header.ip is in 10.0.0.0/8 and claim.v is in the range ">=2 <3"',
        ),
        ({"time": Operators(until="2026-11-23T13:00:00Z")}, "time is before 2026-11-23T13:00:00Z"),
    ],
)
def test_matchers_are_told_in_words(matcher: Matcher, words: str) -> None:
    assert in_words(matcher) == words


def test_of_many_matchers_some_are_told() -> None:
    assert any_of([{"app": str(n)} for n in range(7)]).endswith("app is 4 | 2 more matchers")
