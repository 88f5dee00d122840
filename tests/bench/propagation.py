"""From a write into Redis to the first response that it changed, through a real sidecar."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import statistics
import sys
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sidecar.model.policy import Policy, Version
from sidecar.policy import codec
from tests.support.sidecar import Sidecar, sidecar, spell
from tests.support.valkey import running_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.bench.policy import Row

EDITS = 200
WARM_EDITS = 20
PAUSE_S = 0.015  # between edits, and up to as much again: no rhythm of the host is met each time
MANY_PAUSE_S = 0.06  # fifty watches in two processes are as slow as that
POLL_S = 0.0003  # between two requests: without it the requests keep busy what has to read the edit
WATCHERS = 50
PROCESSES = 2
ROLLBACKS = 10
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GIVE_UP_S = 20.0


class Edit(NamedTuple):
    """One edit: when it was sent, and when a response first told of it."""

    revision: int
    sent_s: float
    seen_s: float


class Caller:
    """Asks the sidecar on one kept connection, as fast as it answers."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = spell("acme")

    def version(self) -> str:
        """Return the version that answers now."""
        self._socket.sendall(self._request)
        answer = b""
        while not answer.endswith(b"\r\n\r\nok"):
            piece = self._socket.recv(4096)
            if not piece:
                raise RuntimeError(f"the sidecar hung up after {answer!r}")
            answer += piece
        _, _, rest = answer.partition(b"X-Model-Version: ")
        return rest.partition(b"\r\n")[0].decode()

    def close(self) -> None:
        self._socket.close()


class Writer:
    """Writes as redis-cli does: one SET on a plain connection."""

    def __init__(self, url: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(url.removeprefix("unix://").partition("?")[0])

    def set(self, key: str, value: bytes) -> None:
        words = (b"SET", key.encode(), value)
        spelled = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        self._socket.sendall(b"*%d\r\n%b" % (len(words), spelled))
        if self._socket.recv(64) != b"+OK\r\n":
            raise RuntimeError("SET was refused")

    def close(self) -> None:
        self._socket.close()


async def rows() -> AsyncIterator[Row]:
    """Yield propagation with one watching sidecar and with fifty, and rollbacks of fifty."""
    async with running_valkey() as valkey:
        with _upstream() as port:
            raw = document(1, port)
            await valkey.client.set("rmv:policy:m", raw)
            own = ("--no-auth", "--model", "m", "--redis", valkey.url, "--workers", "1")
            async with sidecar(*own) as running:
                edits = await asyncio.to_thread(_edit, running, valkey.url, port, 2, PAUSE_S)
                yield "propagation, 1 sidecar", _told(edits), "p99 under 10 ms"
                async with _watchers(valkey.url) as seen:
                    first = edits[-1].revision + 1
                    edits = await asyncio.to_thread(
                        _edit, running, valkey.url, port, first, MANY_PAUSE_S
                    )
                    took = [
                        await _rollback(valkey.url, edits[-2 + n % 2].revision)
                        for n in range(ROLLBACKS)
                    ]
                name = f"{WATCHERS} sidecars"
                yield f"propagation, {name}", _told(edits), "as one, with CPUs for all"
                # A watch that is late sees the next edit alone, and never had the one before.
                last = [
                    max(seen[edit.revision]) - edit.sent_s
                    for edit in edits
                    if len(seen.get(edit.revision, ())) == PROCESSES
                ]
                yield f"until the last of {name} has it", _spread(last), ""
                yield f"rollback --wait, {name}", _spread(took), "under 100 ms"


def document(revision: int, port: int) -> bytes:
    """Return a policy whose default is another with each revision."""
    versions = {name: Version(endpoints=(f"http://127.0.0.1:{port}",)) for name in ("v0", "v1")}
    default = f"v{revision % 2}"
    return codec.encode(Policy(model="m", versions=versions, default=default, revision=revision))


def _edit(running: Sidecar, url: str, port: int, first: int, pause_s: float) -> list[Edit]:
    """Edit the policy again and again; each time ask until the answer is the new version's."""
    edits: list[Edit] = []
    writer, caller = Writer(url), Caller(running.listen)
    for revision in range(first, first + WARM_EDITS + EDITS):
        time.sleep(pause_s * (1 + random.random()))
        raw, wanted = document(revision, port), f"v{revision % 2}"
        sent_s = time.monotonic()
        writer.set("rmv:policy:m", raw)
        while caller.version() != wanted:
            if time.monotonic() - sent_s > GIVE_UP_S:
                raise RuntimeError(f"revision {revision} never came into force")
            time.sleep(POLL_S)
        edits.append(Edit(revision, sent_s, time.monotonic()))
    writer.close()
    caller.close()
    return edits[WARM_EDITS:]


async def _rollback(url: str, revision: int) -> float:
    """Roll back to a revision and return the seconds that `--wait` tells."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "sidecar", "rollback", "m", str(revision)),
        *("--wait", "--json", "--redis", url),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"rmv rollback ended with {process.returncode}")
    told = msgspec.json.decode(said, type=_Rollback)
    if told.waited.instances != WATCHERS + 1:
        raise RuntimeError(f"{told.waited.instances} sidecars told of themselves")
    return told.waited.seconds


class _Waited(msgspec.Struct):
    instances: int
    seconds: float


class _Rollback(msgspec.Struct):
    waited: _Waited


@asynccontextmanager
async def _watchers(url: str) -> AsyncIterator[dict[int, list[float]]]:
    """Run watches in other processes; in the end, tell when the last ones had each revision."""
    seen: dict[int, list[float]] = {}
    started = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tests.bench.watchers", url),
            *(str(WATCHERS // PROCESSES), f"watcher{n}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for n in range(PROCESSES)
    ]
    try:
        for process in started:
            if await process.stdout.readline() != b"ready\n":
                raise RuntimeError("watchers did not start")
        yield seen
    finally:
        for process in started:
            told, _ = await process.communicate(b"")  # which ends its input
            for revision, at_s in json.loads(told or b"{}").items():
                seen.setdefault(int(revision), []).append(at_s)


@contextmanager
def _upstream() -> Iterator[int]:
    """Answer every request, in a thread of its own; yields the port."""
    listening = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()

    def serve() -> None:
        loop.run_until_complete(loop.create_server(_Answering, sock=listening))
        loop.run_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


class _Answering(asyncio.Protocol):
    """Answers whatever ends a head: there are no bodies here."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            self._transport.write(ANSWER)


def _told(edits: list[Edit]) -> str:
    return _spread([edit.seen_s - edit.sent_s for edit in edits])


def _spread(seconds: list[float]) -> str:
    whole = statistics.quantiles(seconds, n=100, method="inclusive")
    return f"p50 {whole[49] * 1e3:.1f} ms, p99 {whole[98] * 1e3:.1f} ms"
