"""The demo's model container, run as the process it is."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEMO = Path(__file__).parents[2] / "deploy" / "demo"
SERVER = DEMO / "model_server.py"
V2 = DEMO / "models" / "v2.json"
PATIENCE_S = 30


@asynccontextmanager
async def running(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[str]]]:
    """Run a container of v2 and hand out its process and ready line, split into words."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SERVER),
        *("--model", str(V2), "--name", "tumor", "--version", "v2", *flags),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process, await ready_line(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ready_line(process: asyncio.subprocess.Process) -> list[str]:
    """Read what a container says once it listens."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        return (await process.stdout.readline()).decode().split()
