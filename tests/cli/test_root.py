"""The command line as a whole: help, version, typing errors, completion."""

from __future__ import annotations

import importlib
import io
import sys
from typing import TYPE_CHECKING

import pytest

from sidecar import __version__
from sidecar.cli.root import COMMANDS

if TYPE_CHECKING:
    from tests.cli.conftest import Rmv


def test_help_lists_every_command(rmv: Rmv) -> None:
    ran = rmv("--help")

    listed = ran.out.partition("Commands:")[2].splitlines()
    assert ran.code == 0
    assert [line.split()[0] for line in listed if line.strip()] == list(COMMANDS)
    assert not [line for line in listed if line.endswith("...")]  # cut, as it is too long


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does(rmv: Rmv, name: str) -> None:
    ran = rmv(name, "-h")

    assert ran.code == 0
    assert ran.out.startswith(f"Usage: rmv {name} ")
    assert "[[" not in ran.out  # brackets of ours in those of the option parser


def test_the_version_is_that_of_the_package(rmv: Rmv) -> None:
    assert rmv("--version") == (0, f"rmv {__version__}\n", "")


def test_a_mistyped_command_is_answered_with_the_likely_one(rmv: Rmv) -> None:
    ran = rmv("statsu")

    assert ran.code == 2
    assert "Did you mean 'status'" in ran.err


def test_an_unforeseen_error_is_not_dressed_up(rmv: Rmv, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain trace: a decorated one prints the values of variables, tokens among them."""
    validate = importlib.import_module("sidecar.cli.validate")

    def fail(*_arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(validate.documents, "read", fail)
    shown = io.StringIO()
    with pytest.raises(RuntimeError) as caught:
        rmv("validate", "-f", "x")
    monkeypatch.setattr(sys, "stderr", shown)
    sys.excepthook(caught.type, caught.value, caught.tb)

    assert "RuntimeError" in shown.getvalue()
    assert "\u2502" not in shown.getvalue()  # no box of rich
