"""What `rmv get` prints of a whole store, `rmv apply` takes back."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from sidecar.cli.pieces import pieces
from tests.cli.conftest import POLICY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv

OTHER = POLICY.replace("model: tumor", "model: fraud")


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Make this the standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_whole_store_is_brought_back(
    tumor: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    (tmp_path / "other.yaml").write_text(OTHER)
    tumor("apply", "-f", tmp_path / "other.yaml")
    kept = tumor("get", "-o", form).out
    monkeypatch.setenv("RMV_PREFIX", f"again-{form}-{tmp_path.name}")

    pipe(monkeypatch, kept)
    ran = tumor("apply", "-f", "-")

    assert ran.out == "fraud created (revision 1)\ntumor created (revision 1)\n", ran.err
    assert "fraud" in tumor("get").out


def test_a_problem_has_its_line_of_the_whole_file(rmv: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(
        f"# all\n---\n{POLICY}--- # next\n{OTHER}".replace("default: v1", "default: v9")
    )

    ran = rmv("validate", "-f", file)

    lines = [line.split(":")[1] for line in ran.out.splitlines()]
    wanted = [
        str(number)
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if line.startswith("default")
    ]
    assert lines == wanted


def test_a_model_is_described_once_in_a_file(rmv: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(f"{POLICY}---\n{POLICY}")

    ran = rmv("validate", "-f", file)

    assert (ran.code, ran.out) == (
        1,
        f"{file}#2: model: `tumor` is described in {file}#1, too\n",
    )


@pytest.mark.parametrize("text", ["a: 1\n", "---\na: 1\n", "# x\n---\na: 1\n---\n", "", "[", "[]"])
def test_one_document_stays_the_file(text: str) -> None:
    assert [(one.name, one.raw) for one in pieces(text.encode(), "f")] == [("f", text.encode())]
