"""Questions between processes of one sidecar: a line in, a text out, over a unix socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ASK_TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024


async def serve_questions(path: Path, answers: Mapping[str, Callable[[], str]]) -> asyncio.Server:
    """Answer on a unix socket at `path`, which is replaced; unknown questions get nothing."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = (await reader.readline()).decode("ascii", "replace").strip()
            if question in answers:
                writer.write(answers[question]().encode())
                await writer.drain()
        except ConnectionError:
            return  # whoever asked has left
        finally:
            writer.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240 -- once, at the start
    return await asyncio.start_unix_server(answer, path)


async def ask(path: Path, question: str) -> str:
    """Return the answer of the process behind `path`; raises OSError, also when it is late."""
    async with asyncio.timeout(ASK_TIMEOUT_S):
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_ANSWER_BYTES)
        try:
            writer.write(f"{question}\n".encode())
            return (await reader.read()).decode()
        finally:
            writer.close()
