"""An upstream as a process of its own, which can be stopped and killed: `python -m` this."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.sidecar import PATIENCE_S
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator

_ROOT = Path(__file__).parents[2]


class Origin:
    """A running one."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.url = url
        self._process = process

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens once it is gone."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)


@asynccontextmanager
async def origin() -> AsyncIterator[Origin]:
    """Run an upstream that answers every request."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, cwd=_ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            url = (await process.stdout.readline()).decode().strip()
        yield Origin(process, url)
    finally:
        with suppress(ProcessLookupError):  # a test has killed it
            process.kill()
        await process.wait()


async def _main() -> None:
    async with scripted_upstream() as upstream:
        sys.stdout.write(f"{upstream.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
