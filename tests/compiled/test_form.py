"""Run by `make test` against build/compiled: what is tested there really is the compiled form."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest

import hatch_build
import sidecar

COMPILED = hatch_build.ROOT / hatch_build.OUTPUT


@pytest.mark.parametrize("name", hatch_build.modules(hatch_build.ROOT))
def test_every_listed_module_is_loaded_as_an_extension(name: str) -> None:
    module = importlib.import_module(name)

    path = Path(module.__file__ or "")
    assert path.is_relative_to(COMPILED)
    assert path.suffix == ".so"


def test_the_rest_comes_from_the_same_copy() -> None:
    assert Path(sidecar.__file__).is_relative_to(COMPILED)


def test_it_says_that_it_is_compiled() -> None:
    assert sidecar.is_compiled()


def test_every_test_of_a_compiled_module_is_run_in_this_form() -> None:
    run = subprocess.run(
        ["make", "--dry-run", "--always-make", "test"],
        cwd=hatch_build.ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in hatch_build.modules(hatch_build.ROOT):
        mirror = Path("tests", *name.split(".")[1:-1], f"test_{name.rpartition('.')[2]}.py")
        if (hatch_build.ROOT / mirror).exists():
            assert str(mirror) in run or f" {mirror.parent} " in run, mirror
