"""Redis spoken by hand: the demo changes a pin as any other program would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sidecar.cli.demo.failure import DemoError

ANSWER_S = 5.0


class PlainRedis:
    """One connection to a store's socket that sends commands as lines of text."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def write(self, command: str) -> None:
        """Send a command without waiting for what it answers."""
        self._writer.write(f"{command}\r\n".encode())  # it is small: written at once

    async def answer(self) -> str:
        """Return the answer to the last command; DemoError for a refusal or none."""
        try:
            async with asyncio.timeout(ANSWER_S):
                said = (await self._reader.readline()).decode().strip()
        except (OSError, TimeoutError) as error:
            msg = f"the store did not answer: {str(error) or type(error).__name__}"
            raise DemoError(msg) from error
        if not said or said.startswith("-"):
            msg = f"the store answers: {said or 'nothing'}"
            raise DemoError(msg)
        return said


@asynccontextmanager
async def connected(socket: Path) -> AsyncIterator[PlainRedis]:
    """Connect to the store that listens on `socket`; DemoError when none does."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError as error:
        msg = f"{socket}: {error.strerror}"
        raise DemoError(msg) from error
    try:
        yield PlainRedis(reader, writer)
    finally:
        writer.close()
