"""Shells complete commands, models and versions."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_a_shell(
    rmv: Rmv, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_RMV_COMPLETE", f"source_{shell}")

    ran = rmv()

    assert ran.code == 0
    assert "_RMV_COMPLETE=complete_" + shell in ran.out


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("rmv get t", ["tumor"]),
        ("rmv history x", []),
        ("rmv rollback ", ["tumor"]),
        ("rmv pin tumor acme v", ["v1", "v2"]),
        ("rmv unp", ["unpin"]),
        ("rmv kill t", ["tumor"]),
        ("rmv kill tumor:", ["tumor:v1", "tumor:v2"]),
        ("rmv kill tumor v", ["v1", "v2"]),
        ("rmv unkill tumor:v2", ["tumor:v2"]),
        ("rmv explain t", ["tumor"]),
        ("rmv explain tumor --asked-version v", ["v1", "v2"]),
        ("rmv explain --model tumor --not-ready v", ["v1", "v2"]),
        ("rmv rollback tumor ", ["1"]),
        ("rmv label tumor ", []),
        ("rmv label tumor stable v", ["v1", "v2"]),
    ],
)
def test_words_are_completed_from_the_store(
    tumor: Rmv, words: str, completed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert complete(tumor, words, monkeypatch) == completed


@pytest.mark.parametrize(
    ("pieces", "completed"),
    [
        (["rmv", "kill", "tumor", ":"], ["v1", "v2"]),
        (["rmv", "unkill", "tumor", ":", "v2"], ["v2"]),
        (["rmv", "explain", "--claim", "plan", "=", "gold", "tum"], ["tumor"]),
        (["rmv", "explain", "--model", "=", "tum"], ["tumor"]),
        (["rmv", "pin", "tumor", "a", ":", "b", ""], ["v1", "v2"]),
    ],
)
def test_words_that_bash_cuts_in_pieces_are_completed_by_the_last_one(
    tumor: Rmv, pieces: list[str], completed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_RMV_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "\n".join(pieces))
    monkeypatch.setenv("COMP_CWORD", str(len(pieces) - 1))

    assert tumor().out.split() == completed


def test_a_store_that_is_away_completes_nothing(rmv: Rmv, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete(rmv, "rmv get t", monkeypatch) == []


def test_the_store_that_is_named_is_asked(
    tumor: Rmv, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RMV_REDIS")

    for words in (f"rmv --redis {valkey_url} get t", f"rmv get --redis {valkey_url} t"):
        assert complete(tumor, words, monkeypatch) == ["tumor"]


def complete(rmv: Rmv, words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what bash would offer after these words."""
    monkeypatch.setenv("_RMV_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    ran = rmv()
    assert ran.err == ""
    return ran.out.split()


def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    command = f"{sys.executable} -m sidecar --install-completion; exit $?"  # bash must stay

    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "bash completion installed" in done.stdout
    (installed,) = tmp_path.rglob("rmv.sh")
    assert "complete_bash" in installed.read_text()
    assert str(installed) in (tmp_path / ".bashrc").read_text()
