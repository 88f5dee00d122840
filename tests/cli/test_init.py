"""`rmv init` writes what the other commands take, and overwrites nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sidecar import config
from sidecar.model.policy import Shadow
from sidecar.policy import codec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv

V1, V2 = "v1=http://127.0.0.1:9001", "v2=unix:/run/models/fraud.sock"


def test_what_it_writes_can_be_served_and_applied(store: Rmv, tmp_path: Path) -> None:
    ran = store("init", "fraud", "--version", V1, "--version", V2, "--folder", tmp_path)
    applied = store("apply", "-f", tmp_path / "policies")
    settings = config.load(tmp_path / "rmv.toml", {}, {})

    assert ran.code == 0
    assert ran.out.splitlines() == [
        f"wrote {tmp_path}/{one}"
        for one in ("policies/fraud.yaml", "rmv.toml", "policy.schema.json")
    ]
    assert f"rmv serve --config {tmp_path}/rmv.toml" in ran.err
    assert applied.out == "fraud created (revision 1)\n"
    assert settings.model == "fraud"
    assert settings == config.load(None, {}, {"model": "fraud", "no_auth": True})


def test_the_settings_say_that_requests_are_sampled_and_how_to_stop_it(
    rmv: Rmv, tmp_path: Path
) -> None:
    rmv("init", "fraud", "--version", V1, "--folder", tmp_path)
    file = tmp_path / "rmv.toml"
    text = file.read_text().replace("# [contexts]", "[contexts]")

    file.write_text(text.replace("# per_second = 10", "per_second = 10"))
    as_it_is = config.load(file, {}, {})
    file.write_text(text.replace("# per_second = 10", "per_second = 0"))

    assert as_it_is == config.load(None, {}, {"model": "fraud", "no_auth": True})
    assert config.load(file, {}, {}).contexts.per_second == 0


def test_every_commented_line_can_be_put_to_use(rmv: Rmv, tmp_path: Path) -> None:
    rmv("init", "fraud", "--version", V1, "--version", "v2=http://h:1", "--folder", tmp_path)
    text = (tmp_path / "policies" / "fraud.yaml").read_text()

    head, _, rest = text.partition("model: fraud")
    lines = [line.replace("# ", "", 1) if _is_example(line) else line for line in rest.splitlines()]
    policy = codec.load("\n".join([head, "model: fraud", *lines]).encode(), source="fraud.yaml")

    assert [rule.id for rule in policy.rules] == ["globex", "canary"]
    assert policy.labels == {"stable": "v1"}
    assert policy.shadows[0].version == "v2"
    assert policy.versions["v2"].health is not None


def _is_example(line: str) -> bool:
    words = line.strip().removeprefix("# ").lstrip(" -").split(":")
    return line.strip().startswith("# ") and " " not in words[0] and len(words) > 1


def test_a_second_model_is_added_to_a_folder_as_it_is(store: Rmv, tmp_path: Path) -> None:
    store("init", "fraud", "--version", V1, "--folder", tmp_path)
    settings = (tmp_path / "rmv.toml").read_text() + "# mine"
    (tmp_path / "rmv.toml").write_text(settings)

    ran = store("init", "churn", "--version", V1, "--folder", tmp_path)

    assert (ran.code, ran.out) == (0, f"wrote {tmp_path}/policies/churn.yaml\n")
    assert f"kept {tmp_path}/rmv.toml, which was there" in ran.err
    assert (tmp_path / "rmv.toml").read_text() == settings
    assert store("apply", "-f", tmp_path / "policies").code == 0


def test_editors_find_the_schema_that_a_policy_names(rmv: Rmv, tmp_path: Path) -> None:
    rmv("init", "fraud", "--version", V1, "--folder", tmp_path)

    written = tmp_path / "policies" / "fraud.yaml"
    line = next(one for one in written.read_text().splitlines() if "$schema=" in one)
    named = written.parent / line.partition("$schema=")[2]

    assert line.startswith("# yaml-language-server: ")
    assert named.read_text() == rmv("schema").out


def test_what_is_there_stays_and_nothing_else_is_written(rmv: Rmv, tmp_path: Path) -> None:
    kept = tmp_path / "policies" / "fraud.yaml"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")

    ran = rmv("init", "fraud", "--version", V1, "--folder", tmp_path)

    assert ran.code == 2
    assert f"{kept}: already there" in ran.err
    assert [one for one in tmp_path.rglob("*.*") if one.is_file()] == [kept]
    assert kept.read_text() == "mine"


@pytest.mark.parametrize(
    ("model", "version"), [("1.0", "2=http://h:1"), ("true", "null=http://[::1]:9001")]
)
def test_names_that_yaml_reads_as_something_else_stay_names(
    rmv: Rmv, tmp_path: Path, model: str, version: str
) -> None:
    name = version.partition("=")[0]

    rmv("init", model, "--version", version, "--default", name, "--shadow", f"{name}=5",
        "--folder", tmp_path)  # fmt: skip

    policy = codec.load((tmp_path / "policies" / f"{model}.yaml").read_bytes(), source="")

    assert policy.model == model
    assert list(policy.versions) == [policy.default] == [name]


def test_a_version_for_copies_is_not_the_default(rmv: Rmv, tmp_path: Path) -> None:
    versions = ("--version", "v0=http://h:1", "--version", V1)

    rmv("init", "fraud", *versions, "--shadow", "v0=2.5", "--folder", tmp_path)

    policy = codec.load((tmp_path / "policies" / "fraud.yaml").read_bytes(), source="")
    assert policy.default == "v1"
    assert policy.shadows == (Shadow(version="v0", percent=2.5, methods=("POST",)),)


def test_a_version_that_cannot_be_read_writes_nothing(rmv: Rmv, tmp_path: Path) -> None:
    assert "name a version: --version v1=" in rmv("init", "fraud", "--folder", tmp_path).err
    assert rmv("init", "fraud", "--version", "v1", "--folder", tmp_path).code == 2
    assert rmv("init", "fr/aud", "--version", V1, "--folder", tmp_path).code == 2
    assert list(tmp_path.iterdir()) == []
