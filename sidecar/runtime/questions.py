"""Questions between processes of one sidecar, over a unix socket: a line in, size and text out.

A process that ends may leave a last word beside its socket, for whom it can no longer answer;
one that cannot even begin, an excuse.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ASK_TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_LAST_WORD = "last"
_EXCUSE = "excuse"


async def serve_questions(path: Path, answers: Mapping[str, Callable[[], str]]) -> asyncio.Server:
    """Answer on a unix socket at `path`, which is replaced; unknown questions get nothing."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = (await reader.readline()).decode("ascii", "replace").strip()
            if question in answers:
                text = answers[question]().encode()
                writer.write(b"%d\n" % len(text) + text)
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
            size = int(await reader.readline())
            return (await reader.readexactly(size)).decode()
        except (asyncio.IncompleteReadError, ValueError) as error:
            raise ConnectionError("it ended in mid-answer") from error
        finally:
            writer.close()


def leave_last_word(path: Path, word: str) -> None:
    """Leave a text for whoever asked at `path`; where it cannot be written there is none."""
    _leave(path, _LAST_WORD, word)


def take_last_word(path: Path) -> str:
    """Return and remove what the process that answered at `path` has left, if anything."""
    return _take(path, _LAST_WORD)


def leave_excuse(path: Path, why: str) -> None:
    """Leave why nobody will answer at `path`; where it cannot be written there is none."""
    _leave(path, _EXCUSE, why)


def take_excuse(path: Path) -> str:
    """Return and remove why nobody answers at `path`, if it was said."""
    return _take(path, _EXCUSE)


def _leave(path: Path, kind: str, text: str) -> None:
    written = path.with_name(f"{path.name}.part")
    with suppress(OSError):
        written.write_text(text, encoding="utf-8")
        written.replace(path.with_name(f"{path.name}.{kind}"))


def _take(path: Path, kind: str) -> str:
    left = path.with_name(f"{path.name}.{kind}")
    try:
        text = left.read_text(encoding="utf-8")
    except OSError:
        return ""
    left.unlink(missing_ok=True)
    return text
