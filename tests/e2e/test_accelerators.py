"""A sidecar does not start slow without being told to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(("hidden", "name"), [("re2", "google-re2")], indirect=["hidden"])
def test_one_that_is_no_package_with_an_extension_is_missing(
    hidden: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, hidden, raising=False)

    assert missing() == [f"{name} (there is no {hidden}._{hidden})"]


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
