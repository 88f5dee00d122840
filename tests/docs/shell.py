"""Runs the commands of a page as a reader would type them: `rmv`, and `redis-cli` by a client."""

from __future__ import annotations

import contextlib
import io
import shlex
from typing import TYPE_CHECKING

from redis import Redis

from sidecar.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from redis.typing import EncodableT


class Shell:
    """A reader's terminal, in `folder`, beside the store at `url`."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url

    def run(self, command: str) -> str:
        """Return what a command prints, on both outputs."""
        words = shlex.split(command, comments=True)
        program, arguments = words[0], words[1:]
        if program == "rmv":
            return _rmv(arguments)
        assert program == "redis-cli", f"a page shows a command that is not tested: {command}"
        return self._redis(arguments)

    def _redis(self, words: list[str]) -> str:
        sent: list[EncodableT] = [*words]
        if words[0] == "-x":
            assert words[-2] == "<"
            sent = [*words[1:-2], (self._folder / words[-1]).read_bytes()]
        with contextlib.closing(Redis.from_url(self._url)) as client:
            return _as_redis_cli_prints(client.execute_command(*sent))  # type: ignore[no-untyped-call]  # untyped library


def _rmv(arguments: list[str]) -> str:
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.suppress(SystemExit),  # what it prints tells how it ended
    ):
        main(arguments)
    return out.getvalue() + err.getvalue()


def _as_redis_cli_prints(answer: object) -> str:
    if answer is True:  # the client's way to say OK
        return "OK\n"
    if isinstance(answer, int):
        return f"(integer) {answer}\n"
    assert isinstance(answer, bytes), answer
    return answer.decode() + "\n"
