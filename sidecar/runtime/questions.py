"""Questions to a process that was started here, over a pair of sockets that both keep.

The pair is older than the process: a question needs no file descriptor, of which whoever is asked
may have none left.

A question is a line: a name, and after a blank what it is about, if anything. What comes back are
lines, too, each a JSON array of a kind and a text: that the process has begun, an answer for each
question in its turn, notices unasked, and in the end a last word, or an excuse if it could not
begin.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from sidecar.runtime import faults
from sidecar.runtime.tasks import spawn, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ASK_TIMEOUT_S: Final = 2.0
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
MAX_QUESTION_BYTES: Final = 64 * 1024 * 1024
DROPPED_BYTES: Final = 64 * 1024  # at a time, of questions that come too late
MAX_WAITING: Final = 1_000  # questions to a process that hangs: more would only pile up
_BEGUN, _ANSWER, _FAILURE, _NOTICE = "begun", "answer", "failure", "notice"
_LAST_WORD, _EXCUSE = "last word", "excuse"


class UnansweredError(OSError):
    """Whoever was asked met a fault in finding the answer; it has noted it."""


class Line:
    """The asking end, one for each process. `on_notice` takes what it says unasked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.on_notice: Callable[[str], None] | None = None
        self.has_begun = False
        self.last_word = ""
        self.excuse = ""
        self._waiting: deque[asyncio.Future[str]] = deque()
        self._writer: asyncio.StreamWriter | None = None
        self._has_ended = asyncio.Event()

    async def open(self) -> socket.socket:
        """Return the other end, for the process to inherit and for the caller to close."""
        ours, theirs = socket.socketpair()
        reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=MAX_ANSWER_BYTES)
        spawn(self._listen(reader, self._writer), name=f"answers of {self.name}")
        return theirs

    async def ask(self, question: str) -> str:
        """Return the answer; raises OSError, also when it is late."""
        async with asyncio.timeout(ASK_TIMEOUT_S):
            return await self.ask_patiently(question)

    async def ask_patiently(self, question: str) -> str:
        """Return the answer, whenever it comes; raises OSError when the process ends instead."""
        if self._writer is None or self._writer.is_closing():
            raise ConnectionError("it has ended")
        if len(self._waiting) >= MAX_WAITING:
            raise TimeoutError
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._writer.write(f"{question}\n".encode())
        return await answer

    async def ended(self) -> None:
        """Wait until the process has closed its end: all that it has said is known then."""
        await self._has_ended.wait()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    self._take(await reader.readuntil(b"\n"))
        finally:
            writer.close()
            for answer in self._waiting:
                if not answer.done():
                    answer.set_exception(ConnectionError("it has ended"))
            self._has_ended.set()

    def _take(self, line: bytes) -> None:
        kind, text = msgspec.json.decode(line, type=tuple[str, str])
        if kind == _ANSWER:
            answer = self._waiting.popleft()
            if not answer.done():  # else it is late, and nobody waits for it any more
                answer.set_result(text)
        elif kind == _FAILURE:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(UnansweredError(text))
        elif kind == _NOTICE:
            self._take_notice(text)
        elif kind == _LAST_WORD:
            self.last_word = text
        elif kind == _EXCUSE:
            self.excuse = text
        else:
            self.has_begun = True

    def _take_notice(self, text: str) -> None:
        try:
            if self.on_notice is not None:
                self.on_notice(text)
        except Exception as error:  # noqa: BLE001 -- whoever gave notice has no part in it
            faults.note("answers", error)


class Answers:
    """The answering end."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        serving: asyncio.Task[None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._serving = serving

    def begin(self) -> None:
        """Say that this process has begun."""
        self._say(_BEGUN)

    def excuse(self, why: str) -> None:
        """Say why this process cannot begin after all."""
        self._say(_EXCUSE, why)

    def notice(self, text: str) -> None:
        """Say something unasked; whoever does it often has to bound it."""
        self._say(_NOTICE, text)

    def _say(self, kind: str, text: str = "") -> None:
        if not self._writer.is_closing():  # else nobody listens any more
            self._writer.write(_spelled(kind, text))

    async def end(self, last_word: str) -> None:
        """Answer no more, say a last word to whoever has asked, and wait until he has heard it.

        He closes first. A question that met a closed end would fail, and have him drop the pair
        with whatever he has not read of it. He has to be gone, or to kill this process, to end
        the wait otherwise.
        """
        await stop(self._serving)
        with suppress(OSError):  # who is gone
            self._say(_LAST_WORD, last_word)
            if not self._writer.is_closing():
                self._writer.write_eof()
            while await self._reader.read(DROPPED_BYTES):
                pass
            self._writer.close()
            await self._writer.wait_closed()


async def serve_questions(
    inherited: socket.socket, answers: Mapping[str, Callable[[str], str]]
) -> Answers:
    """Answer questions of these names from now on, each by what the question is about."""
    inherited.set_inheritable(False)
    limit = MAX_QUESTION_BYTES
    reader, writer = await asyncio.open_unix_connection(sock=inherited, limit=limit)
    return Answers(reader, writer, spawn(_serve(reader, writer, answers), name="answers"))


def excuse(inherited: socket.socket, why: str) -> None:
    """Say why this process cannot begin; once it serves questions, nothing."""
    with suppress(OSError):
        inherited.sendall(_spelled(_EXCUSE, why))


async def _serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answers: Mapping[str, Callable[[str], str]],
) -> None:
    with suppress(OSError):  # whoever asked is gone
        while question := (await reader.readline()).decode().strip():
            name, _, about = question.partition(" ")
            try:
                said = _spelled(_ANSWER, answers[name](about))
            except Exception as error:  # noqa: BLE001 -- he is told, and the next gets an answer
                said = _spelled(_FAILURE, faults.note("answers", error, question=name))
            writer.write(said)
            await writer.drain()


def _spelled(kind: str, text: str) -> bytes:
    return msgspec.json.encode((kind, text)) + b"\n"
