"""`rmv` run in this process, with a real Valkey behind it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pytest
from redis import Redis

from sidecar.cli import main
from tests.support.valkey import running_valkey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLICY = """\
model: tumor
versions:
  v1: {endpoints: ["http://127.0.0.1:9001"]}
  v2: {endpoints: ["http://127.0.0.1:9002"], deny: [{tenant: evil}]}
rules:
  - id: beta
    when: {header.x-beta: "yes"}
    serve: v2
default: v1
"""


class Ran(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


class Rmv(Protocol):
    """Runs the command line."""

    def __call__(self, *arguments: str | Path) -> Ran:
        """Run `rmv` with these arguments."""
        ...


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """One server for all tests here; each has a prefix of its own."""
    with asyncio.Runner() as runner:
        server = running_valkey()
        valkey = runner.run(server.__aenter__())
        yield valkey.url
        runner.run(server.__aexit__(None, None, None))


@pytest.fixture
def redis(valkey_url: str) -> Iterator[Redis]:
    """A client as plain as redis-cli."""
    with Redis.from_url(valkey_url) as client:
        yield client


def key(*parts: str) -> str:
    """Return a key below the prefix of this test."""
    return ":".join((os.environ["RMV_PREFIX"], *parts))


@pytest.fixture
def rmv(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Rmv:
    """Run the command with these arguments; nothing of the caller's own settings is seen."""
    for name in [name for name in os.environ if name.startswith(("RMV_", "_RMV"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*arguments: str | Path) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in arguments])
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def store(
    rmv: Rmv,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Rmv:
    """Run the command as `rmv` does, on a store that only this test sees."""
    monkeypatch.setenv("RMV_REDIS", valkey_url)
    monkeypatch.setenv("RMV_PREFIX", f"t{abs(hash(request.node.nodeid))}")
    return rmv


@pytest.fixture
def tumor(store: Rmv, tmp_path: Path) -> Rmv:
    """Run the command on a store that holds the policy of `tumor`."""
    file = tmp_path / "tumor.yaml"
    file.write_text(POLICY)
    assert store("apply", "-f", file).code == 0
    return store
