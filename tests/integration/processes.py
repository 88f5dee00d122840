"""Servers as processes of their own: started on a free loopback port, awaited, stopped by pid."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".venv-integration"
HOST = "127.0.0.1"
READY_TIMEOUT_S = 60.0  # MLServer imports pandas and scipy from a cold disk
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05
LAST_LINES = 15


class Server:
    """A running process with its output in a log file."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    def until(
        self, claim: str, holds: Callable[[], bool], timeout_s: float = READY_TIMEOUT_S
    ) -> None:
        """Wait until `holds()`, for so long; fail with the log's last lines otherwise."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            status = self._process.poll()
            if status is not None:
                pytest.fail(f"{self.name} ended with {status} before {claim}\n{self.last_lines()}")
            if time.monotonic() > deadline:
                pytest.fail(f"{self.name}: not {claim} in time\n{self.last_lines()}")
            time.sleep(POLL_S)

    def last_lines(self) -> str:
        """Return the end of what the process has said."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LAST_LINES:])

    def stop(self) -> None:
        """Ask with SIGTERM; after STOP_TIMEOUT_S end it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def running(
    argv: list[str], folder: Path, variables: dict[str, str] | None = None
) -> Iterator[Server]:
    """Run a server in `folder`, where its log goes too; it is stopped at the end."""
    name = Path(argv[0]).name
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv, cwd=folder, stdout=out, stderr=out, env=os.environ | (variables or {})
        )
    server = Server(name, process, log)
    try:
        yield server
    finally:
        server.stop()


def environment(name: str) -> Path:
    """Return the programs of one of the virtual environments, or skip with pip's reason."""
    folder = ENVIRONMENTS / name
    if not (folder / ".installed").exists():
        why = folder / "why-not.txt"
        said = why.read_text(errors="replace").strip() if why.exists() else ""
        reason = said.splitlines()[-1] if said else "run `make integration`"
        pytest.skip(f"{name} is not installed: {reason}")
    return folder / "bin"


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def status(url: str, headers: dict[str, str] | None = None) -> int:
    """Return the status of a GET, 0 while nobody answers."""
    try:
        return fetch(url, headers=headers)[0]
    except OSError:
        return 0


def fetch(
    url: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers by lower-case name and body of a GET, or of a POST of `body`."""
    request = urllib.request.Request(url, data=body, headers=headers or {})  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(request, timeout=READY_TIMEOUT_S) as answer:  # noqa: S310
            return answer.status, _lowered(answer.headers.items()), answer.read()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, _lowered(answer.headers.items()), answer.read()


def _lowered(fields: list[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in fields}
