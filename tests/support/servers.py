"""Real Valkey servers on ports of the loopback: replicas, Sentinels and clusters of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from sidecar.store.embedded import find_server

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support.link import Link

PATIENCE_S = 20.0
SLOTS = 16_384
SERVICE = "policies"
IN_MEMORY = ("--save", "", "--repl-diskless-sync-delay", "0")


class Server:
    """One server in a folder of its own; it can be killed and started again on its port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.client = Redis(port=self.port, retry=Retry(NoBackoff(), 1))
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        words = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder))
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                find_server(), *self._options, *words, stdout=log, stderr=log
            )
        await until(self._answers)

    async def call(self, *words: str | int) -> object:
        """Return the reply to a command."""
        reply: object = await self.client.execute_command(*words)  # type: ignore[no-untyped-call]
        return reply

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    async def kill(self) -> None:
        """End it at once, whatever state it is in."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None

    async def _answers(self) -> bool:
        try:
            return bool(await self.client.ping())
        except (RedisError, OSError):
            return False


@asynccontextmanager
async def server(*options: str) -> AsyncIterator[Server]:
    """Run a server that keeps nothing on disk unless `options` say so."""
    async with _running(_folder(), *(options or IN_MEMORY)) as one:
        yield one


@asynccontextmanager
async def sentinel(primary: Server | Link) -> AsyncIterator[Server]:
    """Run a Sentinel that promotes a replica when `primary` is silent for half a second."""
    folder = _folder()
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 1\n"
        f"sentinel down-after-milliseconds {SERVICE} 500\n"
        f"sentinel failover-timeout {SERVICE} 2000\n"
    )
    async with _running(folder, str(settings), "--sentinel") as one:
        yield one


@asynccontextmanager
async def cluster(*, replicas: int = 0) -> AsyncIterator[list[Server]]:
    """Run a cluster of three primaries, and so many replicas of the first of them."""
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                server(
                    *("--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
                    *("--cluster-port", str(free_port()), "--repl-diskless-sync-delay", "0"),
                    *("--cluster-replica-validity-factor", "0"),
                )
            )
            for _ in range(3 + replicas)
        ]
        share = SLOTS // 3
        for number, node in enumerate(nodes[:3]):
            last = SLOTS - 1 if number == 2 else (number + 1) * share - 1
            await node.call("CLUSTER", "ADDSLOTSRANGE", number * share, last)
            await node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            bus = node._options[node._options.index("--cluster-port") + 1]  # noqa: SLF001
            await nodes[0].call("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        await until(lambda: _know_each_other(nodes))
        first = await nodes[0].call("CLUSTER", "MYID")
        assert isinstance(first, bytes)
        for node in nodes[3:]:
            await node.call("CLUSTER", "REPLICATE", first.decode())
        await until(lambda: _is_whole(nodes))
        yield nodes


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="rmv-"))


@asynccontextmanager
async def _running(folder: Path, *options: str) -> AsyncIterator[Server]:
    """Run a server, and remove it with its folder at the end."""
    one = Server(folder, *options)
    try:
        await one.start()
        yield one
    finally:
        await one.client.aclose()
        await one.kill()
        shutil.rmtree(folder)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until an asynchronous probe says yes."""
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 -- what is waited for happens in other processes
            await asyncio.sleep(0.02)


async def _know_each_other(nodes: list[Server]) -> bool:
    told = [await _info(node) for node in nodes]
    return all(one["cluster_known_nodes"] == str(len(nodes)) for one in told)


async def _is_whole(nodes: list[Server]) -> bool:
    told = [await _info(node) for node in nodes]
    links = [await node.client.info("replication") for node in nodes[3:]]
    return all(one["cluster_state"] == "ok" for one in told) and all(
        one.get("master_link_status") == "up" for one in links
    )


async def _info(node: Server) -> dict[str, str]:
    told = await node.call("CLUSTER", "INFO")
    assert isinstance(told, bytes)
    pairs = (line.split(":", 1) for line in told.decode().splitlines())
    return {one[0]: one[-1] for one in pairs}


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
