"""The real `rmv serve` for tests: its processes, its sockets, and what it says."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

import msgspec
from redis.asyncio import Redis

from sidecar.store.connect import open_store
from sidecar.store.embedded import embedded_url
from tests.support.messages import read_answer
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sidecar.store.base import HistoryEntry, Store
    from tests.support.messages import Answer

T = TypeVar("T")

PATIENCE_S = 30.0  # for processes to start and end: longer than any machine is slow

FREE_PORTS = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
WORKER_DIGITS = 20  # of a request id, the same for all of one worker

_POLL_S = 0.02
_LAST_LINES = 15
_SAMPLE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")


class Sidecar:
    """One `rmv serve`; its logs and the state of its embedded store lie in `folder`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.exchange_log = folder / "exchanges.log"
        self.listen = ("", 0)
        self.admin = ("", 0)
        self.arguments = arguments
        self._said = folder / "stderr.log"
        self._process: asyncio.subprocess.Process | None = None

    # --- its life ------------------------------------------------------------------------------

    async def start(self, stdout: int | IO[bytes] | None = None) -> None:
        """Start; its standard output goes to `stdout`, else to `exchange_log`."""
        command = ["-P", "-m", "sidecar", "serve", *self.arguments]
        self._said.write_bytes(b"")
        with self._said.open("ab") as said, self.exchange_log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=said,
                env=_environment(self.folder),
                cwd=self.folder,
            )

    async def located(self) -> None:
        """Wait until it has its ports."""
        started = await self._until(lambda: re.search(r"msg=starting (.*)", self.said()), "ports")
        fields = dict(word.split("=", 1) for word in shlex.split(started[1]))
        self.listen, self.admin = _address(fields["listen"]), _address(fields["admin"])

    async def ready(self) -> None:
        """Wait until it wants traffic."""
        await self.located()
        await self.until(self.is_ready, "ready")

    async def ended(self) -> int:
        """Wait until it has ended by itself; return its exit status."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()

    async def end(self) -> None:
        """End it, if it runs, and whatever it started."""
        process = self._process
        if process is None:
            return
        children = _descendants(process.pid)
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        for pid in filter(is_running, children):
            os.kill(pid, signal.SIGKILL)

    # --- its processes -------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The control process."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the control process."""
        os.kill(self.pid, number)

    def workers(self) -> list[int]:
        """Return the pids of the workers."""
        return [pid for pid in _descendants(self.pid) if b"sidecar.app" in _command(pid)]

    def valkey(self) -> int | None:
        """Return the pid of the embedded server."""
        return next((p for p in _descendants(self.pid) if b"valkey" in _command(p)), None)

    def children(self) -> list[int]:
        """Return the pids of all processes under the control process."""
        return _descendants(self.pid)

    # --- what it says --------------------------------------------------------------------------

    def said(self) -> str:
        """Return what it has said on standard error since its start."""
        return self._said.read_text(errors="replace")

    async def says(self, text: str) -> None:
        """Wait until it says `text`."""
        await self._until(lambda: text in self.said() or None, f"word of {text!r}")

    def records(self) -> list[dict[str, object]]:
        """Return the exchange log; every line must be JSON, the one being written left out."""
        whole = self.exchange_log.read_bytes().rpartition(b"\n")[0]
        return [msgspec.json.decode(line, type=dict[str, object]) for line in whole.splitlines()]

    async def recorded(self, number: int) -> list[dict[str, object]]:
        """Wait until the exchange log has `number` lines or more; return them."""
        await eventually(lambda: len(self.records()) >= number)
        return self.records()

    async def record_of(self, answer: Answer) -> dict[str, object]:
        """Wait until the request of an answer has been logged; return its record."""
        wanted = (answer.get(b"X-Request-Id") or b"").decode()

        def find() -> dict[str, object] | None:
            return next((one for one in self.records() if one["request_id"] == wanted), None)

        return await self._until(find, "record")

    # --- what it is asked ----------------------------------------------------------------------

    async def ask(self, tenant: str = "", path: str = "/infer", **headers: str) -> Answer:
        """Send one GET on a connection of its own; `headers` by name, `_` for `-`."""
        return await ask(self.listen, tenant, path, **headers)

    async def ask_workers(self, number: int, tenant: str = "", **headers: str) -> list[Answer]:
        """Return one answer of each of `number` workers: who answers is the kernel's choice."""
        answers: dict[bytes, Answer] = {}
        async with asyncio.timeout(PATIENCE_S):
            while len(answers) < number:
                answer = await self.ask(tenant, **headers)
                answers[(answer.get(b"X-Request-Id") or b"")[:WORKER_DIGITS]] = answer
        return list(answers.values())

    async def asked_admin(self, path: str) -> tuple[int, str]:
        """Return status and text of an admin page."""
        answer = await ask(self.admin, path=path)
        return answer.status, answer.body.decode()

    async def counted(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of this name that have these labels."""
        _, text = await self.asked_admin("/metrics")
        found = (_SAMPLE.fullmatch(line) for line in text.splitlines())
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        return sum(
            float(sample["value"])
            for sample in found
            if sample and sample["name"] == name
            if wanted <= set((sample["labels"] or "").split(","))
        )

    @asynccontextmanager
    async def editor(self) -> AsyncIterator[Editor]:
        """Open a plain client to the embedded server."""
        async with editor(embedded_url(str(self.state_dir))) as plain:
            yield plain

    async def until(self, probe: Callable[[], Awaitable[bool]], what: str) -> None:
        """Ask `probe` until it says yes."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await probe():
                    self._check_alive(what)
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise AssertionError(self._failure(f"no {what} in time")) from None

    async def _until(self, probe: Callable[[], T | None], what: str) -> T:
        found: list[T] = []

        async def is_found() -> bool:
            result = probe()
            if result is not None:
                found.append(result)
            return bool(found)

        await self.until(is_found, what)
        return found[0]

    async def is_ready(self) -> bool:
        """Return whether it says that it wants traffic."""
        try:
            status, _ = await self.asked_admin("/readyz")
        except (OSError, asyncio.IncompleteReadError):
            return False
        return status == 200

    def _check_alive(self, what: str) -> None:
        assert self._process is not None
        if self._process.returncode is not None:
            status = self._process.returncode
            raise AssertionError(self._failure(f"no {what}: it ended with status {status}"))

    def _failure(self, what: str) -> str:
        lines = self.said().splitlines()[-_LAST_LINES:]
        return "\n  ".join([f"{what}; it said last:", *lines])


class Editor:
    """A plain Redis client, as anybody's who edits by hand."""

    def __init__(self, client: Redis, store: Store) -> None:
        self._client = client
        self._store = store

    async def set(self, key: str, value: str | bytes) -> None:
        """Do what `SET rmv:key value` does."""
        await self._client.set(f"rmv:{key}", value)

    async def delete(self, key: str) -> None:
        """Do what `DEL rmv:key` does."""
        await self._client.delete(f"rmv:{key}")

    async def document(self, model: str = "m") -> dict[str, object]:
        """Return the stored policy of a model."""
        raw = await self._client.get(f"rmv:policy:{model}")
        return msgspec.json.decode(raw or b"", type=dict[str, object])

    async def put(self, document: dict[str, object], model: str = "m") -> None:
        """Store a policy, its members as they are."""
        await self.set(f"policy:{model}", msgspec.json.encode(document))

    async def history(self, model: str = "m") -> list[HistoryEntry]:
        """Return the committed revisions, newest first."""
        return await self._store.history(model)


@asynccontextmanager
async def editor(url: str) -> AsyncIterator[Editor]:
    """Open a plain client to a server."""
    client, store = Redis.from_url(url), open_store(url)
    try:
        yield Editor(client, store)
    finally:
        await client.aclose()
        await store.close()


@asynccontextmanager
async def sidecar(
    *arguments: str,
    settings: str = "",
    waits: bool = True,
    stdout: int | IO[bytes] | None = None,
) -> AsyncIterator[Sidecar]:
    """Run `rmv serve` on free ports, with a store of its own unless `arguments` name another.

    `settings` are TOML. Unless told not to, wait until it is ready. In the end no process of it
    is left.
    """
    with tempfile.TemporaryDirectory(prefix="rmv-") as folder:  # short: sockets lie in it
        (Path(folder) / "rmv.toml").write_text(settings)
        own = ("--config", f"{folder}/rmv.toml", "--state-dir", f"{folder}/state", *FREE_PORTS)
        running = Sidecar(Path(folder), *own, *arguments)
        try:
            await running.start(stdout)
            if waits:
                await running.ready()
            yield running
        finally:
            await running.end()


def flags(**versions: str) -> tuple[str, ...]:
    """Return flags for a sidecar without auth before model `m`, as `policy_flags` has it."""
    return ("--no-auth", *policy_flags(**versions))


def policy_flags(**versions: str) -> tuple[str, ...]:
    """Return flags that describe a policy of `m`: URLs by version, the first is the default."""
    named = [f"{name}={url}" for name, url in versions.items()]
    pairs = [word for version in named for word in ("--version", version)]
    return ("--model", "m", "--default", next(iter(versions)), *pairs)


async def ask(
    address: tuple[str, int], tenant: str = "", path: str = "/infer", **headers: str
) -> Answer:
    """Send one GET on a connection of its own; `headers` by name, `_` for `-`."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(spell(tenant, path, **headers))
        return await read_answer(reader)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def spell(tenant: str = "", path: str = "/infer", **headers: str) -> bytes:
    """Return the bytes of a GET."""
    named = {**headers, **({"X-Tenant": tenant} if tenant else {})}
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items()]
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n{''.join(lines)}\r\n".encode()


def is_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _descendants(pid: int) -> list[int]:
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _command(pid: int) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port) if host else 0  # `off` has neither


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment without settings of a sidecar that is not this one."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RMV_")}
    return {**ours, "TMPDIR": str(folder)}  # so that nothing is left of one that is killed
