"""What is written late, so that it is written in a row."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from sidecar.runtime import faults
from sidecar.runtime.tcp import readable


class Writer(Protocol):
    """Who has something to write."""

    def write_out(self) -> None:
        """Write it, if it is still to be written."""
        ...

    def kept_fd(self) -> int:
        """Return a descriptor that must have nothing to read when this is written, or -1."""
        ...

    def withhold(self) -> None:
        """Learn that it has; nothing is to be written."""
        ...

    def on_fault(self) -> None:
        """Learn that `write_out` has failed, which is noted already; it raises nothing."""
        ...


class Outbox:
    """Those who write once every socket that is readable now has been read."""

    def __init__(self) -> None:
        self._writers: deque[Writer] = deque()

    def add(self, writer: Writer) -> None:
        """Have `writer` write in this turn of the loop, which is running."""
        if not self._writers:
            self._schedule()
        self._writers.append(writer)

    def _schedule(self) -> None:
        asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        writers = self._writers
        unasked: list[int] = []
        try:
            # One system call for all: what has come since the sockets were read is seen as well.
            unasked = readable([writer.kept_fd() for writer in writers])
        except Exception as error:  # noqa: BLE001 -- nobody is to wait for ever
            faults.note("turn", error)
        while writers:
            writer = writers.popleft()
            try:
                if unasked and writer.kept_fd() in unasked:
                    writer.withhold()
                else:
                    writer.write_out()
            except Exception as error:  # noqa: BLE001 -- the others have no part in it
                faults.note("turn", error)
                writer.on_fault()
