"""A real Valkey for tests: on a unix socket, can be killed hard and started on the same data."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from sidecar.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Valkey:
    """One server. `url` stays the same over restarts; `client` is a plain second client."""

    def __init__(self, state_dir: str) -> None:
        self.state_dir = state_dir
        self._server = EmbeddedServer(state_dir)
        self.url = self._server.url
        self.client = Redis.from_url(self.url)

    async def start(self) -> None:
        """Start, on the data that is there; return when it answers."""
        await self._server.start()

    async def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        self._signal(signal.SIGKILL)
        await self._server.stop()

    def pause(self) -> None:
        """Let it hang: connections stay open and nothing is answered (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End it in good order."""
        await self._server.stop()

    def _signal(self, number: signal.Signals) -> None:
        pid = self._server.pid
        assert pid is not None
        os.kill(pid, number)


@asynccontextmanager
async def running_valkey() -> AsyncIterator[Valkey]:
    """Run a server in a directory of its own and remove both at the end."""
    directory = tempfile.mkdtemp(prefix="rmv-")  # short: a socket's path has little room
    try:
        server = Valkey(directory)
        await server.start()
        try:
            yield server
        finally:
            await server.client.aclose()
            await server.stop()
    finally:
        shutil.rmtree(directory)


@pytest.fixture
async def valkey() -> AsyncIterator[Valkey]:
    """A running server that only this test uses."""
    async with running_valkey() as server:
        yield server
