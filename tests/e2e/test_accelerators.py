"""A sidecar does not start slow without being told to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import uvloop

from sidecar.runtime.accelerators import ACCELERATORS, missing
from tests.e2e.test_beginning import POLICY
from tests.support.sidecar import flags, sidecar
from tests.support.upstream import scripted_upstream

BROKEN = "raise ImportError('built for another platform')\n"


@pytest.fixture
def hidden(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a broken package of this name before the one that is installed."""
    name: str = request.param
    (tmp_path / f"{name}.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    return name


def test_all_of_them_are_here() -> None:
    assert missing() == []


@pytest.mark.parametrize("name", ["uvloop", "hiredis", "msgspec", "aiohttp"])
def test_one_that_cannot_be_loaded_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, ACCELERATORS[name], None)

    assert [one.partition(" ")[0] for one in missing()] == [name]


def test_one_whose_extension_is_replaced_by_python_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop.py").write_text("")
    monkeypatch.setattr(uvloop, "__path__", [str(tmp_path)])
    monkeypatch.setattr(uvloop, "loop", uvloop.loop)  # as it is bound anew by what follows
    monkeypatch.delitem(sys.modules, "uvloop.loop")

    assert missing() == ["uvloop (uvloop.loop is no extension)"]


@pytest.mark.parametrize(
    ("hidden", "name"),
    [("re2", "google-re2"), ("cryptography", "cryptography")],
    indirect=["hidden"],
)
def test_one_that_is_no_package_with_an_extension_is_missing(
    hidden: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, hidden, raising=False)

    assert missing() == [f"{name} (there is no {ACCELERATORS[name]})"]


def test_one_whose_package_is_there_without_its_extension_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "cryptography"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cryptography", raising=False)

    assert missing() == [f"cryptography (there is no {ACCELERATORS['cryptography']})"]


def test_each_is_a_package_that_is_locked() -> None:
    locked = (Path(__file__).parents[2] / "requirements" / "runtime.txt").read_text()

    for name in ACCELERATORS:
        assert f"\n{name}==" in f"\n{locked}" or f"\n{name}[" in f"\n{locked}", name


@pytest.mark.parametrize("hidden", ["uvloop", "hiredis"], indirect=True)
async def test_one_that_is_missing_is_told_and_it_does_not_start(hidden: str) -> None:
    async with sidecar(*POLICY, waits=False) as running:
        assert await running.ended() == 1
        said = running.said()
    assert f"{hidden} (built for another platform)" in said
    assert "--allow-slow" in said


@pytest.mark.parametrize("hidden", ["uvloop", "hiredis"], indirect=True)
async def test_told_so_it_serves_without_it_and_says_that_it_is_slow(hidden: str) -> None:
    async with scripted_upstream() as up, sidecar(*flags(v1=up.url), "--allow-slow") as running:
        assert (await running.ask()).status == 200
        assert f'missing="{hidden} (built for another platform)"' in running.said()


async def test_the_parser_of_aiohttp_cannot_be_switched_off_unseen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIOHTTP_NO_EXTENSIONS", "1")
    async with sidecar(*POLICY, waits=False) as running:
        assert await running.ended() == 1
        assert "aiohttp (AIOHTTP_NO_EXTENSIONS is set)" in running.said()
