"""Failures of every kind: the same in words and, with `--json`, as one object on stderr."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import pytest

from sidecar.cli.root import COMMANDS
from tests.cli.conftest import POLICY

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.model.identity import JSON
    from tests.cli.conftest import Ran, Rmv


def told(ran: Ran) -> list[dict[str, JSON]]:
    """Return what a command said to programs on stderr: an object a line."""
    return [json.loads(line) for line in ran.err.splitlines()]


def failure(ran: Ran) -> dict[str, JSON]:
    """Return the one failure that a command told."""
    (found,) = [one for one in told(ran) if "error" in one]
    assert list(found) == ["error", "place", "problems", "next"]
    return found


class Fails(NamedTuple):
    """A command that fails, with its exit status, a place and a part of the next step."""

    command: tuple[str, ...]
    code: int
    place: str | None = None
    next: str | None = None


FAILING = [
    Fails(("explain", "tumour"), 1, next="rmv explain --request tumour"),
    Fails(("pin", "tumor", "acme", "v9"), 1, next="--force"),
    Fails(("unpin", "tumor", "acme"), 1, next="rmv pins tumor"),
    Fails(("unkill", "tumor:v2"), 1),
    Fails(("history", "tumour"), 1),
    Fails(("rollback", "tumor", "9"), 1, next="rmv history tumor"),
    Fails(("label", "tumor", "stable"), 2, next="rmv label --help"),
    Fails(("init", "tumor"), 2),
    Fails(("status", "--config", "none.toml"), 2),
    Fails(("status", "--redis", "unix:///nowhere/a.sock"), 1, next="names another store"),
    Fails(("plan", "-f", "."), 1, "."),
    Fails(("apply", "-f", "bad.yaml"), 1, "bad.yaml:1:1"),
    Fails(("diff", "-f", "bad.yaml"), 2, "bad.yaml:1:1"),
    Fails(("apply", "-f", "edited.yaml"), 1, next="apply with --force"),
    Fails(("pin", "tumor", "acme", "v1", "--ttl", "soon"), 2, "--ttl", "rmv pin --help"),
    Fails(("kill", "tumor"), 2, "--reason", "rmv kill --help"),
    Fails(("explain", "tumor", "--at", "now"), 2, "--at", "rmv explain --help"),
    Fails(("explain", "tumor", "--claim", "x"), 2, "--claim"),
    Fails(("apply", "-f", "bad.yaml", "--prune"), 2, "--prune", "rmv apply --help"),
    Fails(("history",), 2, "MODEL", "rmv history --help"),
    Fails(("get", "--revision", "x"), 2, "--revision", "rmv get --help"),
    Fails(("statsu",), 2, next="rmv --help"),
]


@pytest.mark.parametrize("fails", FAILING, ids=lambda fails: " ".join(fails.command))
def test_a_failure_is_told_to_programs_and_to_people_alike(
    tumor: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tumor.yaml").rename(tmp_path / "tumor.txt")
    (tmp_path / "bad.yaml").write_text("[]")
    (tmp_path / "edited.yaml").write_text(POLICY.replace("serve: v2", "serve: v1"))
    tumor("label", "tumor", "canary", "v2")  # an edit that files lack
    if "." in fails.command:
        (tmp_path / "bad.yaml").unlink()
        (tmp_path / "edited.yaml").unlink()

    to_people = tumor(*fails.command)
    to_programs = tumor(*fails.command, "--json")

    found = failure(to_programs)
    assert (to_people.code, to_programs.code) == (fails.code, fails.code)
    assert str(found["error"]) in to_people.err
    assert str(found["place"] or "") in to_people.err
    assert str(found["place"] or "").startswith(fails.place or "")
    assert (found["place"] is None) == (fails.place is None)
    assert fails.next is None or fails.next in str(found["next"])
    assert len(told(to_programs)) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_answers_a_program_in_words(rmv: Rmv, name: str) -> None:
    ran = rmv("--json", name, "--no-such")

    assert (ran.code, ran.out) == (2, "")
    assert failure(ran)["place"] in {"--no-such", None}


def test_each_problem_of_a_document_has_its_place(store: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(POLICY.replace("default: v1", "default: v9").replace("serve: v2", "serve: v8"))

    found = failure(store("apply", "-f", file, "--json"))

    assert found["problems"] == json.loads(store("validate", "-f", file, "--json").out)["problems"]
    assert found["place"] == f"{file}:8:12: rules[0].serve"


def test_warnings_are_told_to_programs_as_objects(store: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(POLICY.replace("when: {", "when: {method: post, "))

    ran = store("apply", "-f", file, "--json")

    (warning,) = told(ran)
    assert list(warning) == ["warning"]
    assert json.loads(ran.out)[0]["outcome"] == "created"


def test_names_that_are_no_text_are_told_as_people_see_them(rmv: Rmv, tmp_path: Path) -> None:
    odd = tmp_path / "a\udcff.yaml"  # a byte FF, as Python has it
    odd.write_text("[]")

    argument = rmv("pins", "b\udcfe", "--json")
    validated = rmv("validate", "-f", tmp_path, "--json")
    planned = rmv("plan", "-f", tmp_path, "--json")

    assert str(failure(argument)["error"]).endswith("not UTF-8: b\\udcfe")
    source = json.loads(validated.out)["problems"][0]["source"]
    assert source == f"{tmp_path}/a\\udcff.yaml"
    assert str(failure(planned)["place"]).startswith(source)


def test_what_follows_two_dashes_is_no_option(tumor: Rmv) -> None:
    ran = tumor("pins", "--", "--json")

    assert ran.code == 1
    assert ran.err.startswith("error: ")
