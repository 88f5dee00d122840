"""Long bodies: read into one buffer, and written from there."""

from __future__ import annotations

from typing import Final, Protocol

LONG_BYTES: Final = 512 * 1024  # that are still to come of a body
_BUFFER_BYTES: Final = 1024 * 1024
_MAX_KEPT: Final = 4  # buffers
MAX_UNWRITTEN_BYTES: Final = 64 * 1024  # by TLS as by TCP; uvloop would hold eight times as many
_COMMON_BYTES: Final = 256 * 1024  # the loop reads as much for others


class Reader(Protocol):
    """The part of a connection in use."""

    def room(self) -> int:
        """Return how many bytes may come at once, should they be many."""
        ...

    def take_read(self, read: memoryview) -> None:
        """Take bytes where they lie: whoever keeps a part of `read` keeps its buffer."""
        ...

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        ...

    def eof_received(self) -> bool:
        """Learn that no more will come; return whether to stay open."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the connection is closed."""
        ...

    def pause_writing(self) -> None:
        """Learn that the other side does not keep up."""
        ...

    def resume_writing(self) -> None:
        """Learn that it does again."""
        ...


class Inbox:
    """Where a worker's long bodies are read into, one read at a time."""

    def __init__(self) -> None:
        self.scratch = bytearray()  # of what is read into it nobody may have a part
        self._buffers: list[bytearray] = []  # those used first stay in the caches

    def buffer(self) -> bytearray:
        """Return a buffer of which nobody has a part any more.

        Whoever is slow to take what was read keeps parts; where some of all buffers are kept, this
        is `scratch`.
        """
        for buffer in self._buffers:
            if _is_free(buffer):
                return buffer
        if len(self._buffers) >= _MAX_KEPT:
            if not self.scratch:
                self.scratch = bytearray(_COMMON_BYTES)
            return self.scratch
        buffer = bytearray(_BUFFER_BYTES)
        self._buffers.append(buffer)
        return buffer


def _is_free(buffer: bytearray) -> bool:
    """Return whether no memoryview has the buffer: only then may its size change."""
    try:
        last = buffer.pop()
    except BufferError:
        return False
    buffer.append(last)
    return True


class BufferedReads:
    """Takes a connection's place at its transport once long messages come.

    The loop reads for others into a buffer of its own and copies from there, 250 KiB at a time;
    for a `BufferedProtocol`, which this is by shape, it does neither. Not for all connections:
    messages that are small would take longer.
    """

    def __init__(self, reader: Reader, inbox: Inbox) -> None:
        self._reader = reader
        self._inbox = inbox
        self._buffer = bytearray()

    def get_buffer(self, _size_hint: int) -> memoryview:
        """Return where to read into: what has to be copied, or parsed, is not read so far ahead."""
        self._buffer = self._inbox.buffer()
        return memoryview(self._buffer)[: max(self._reader.room(), _COMMON_BYTES)]

    def buffer_updated(self, size: int) -> None:
        """Hand on what was read where it lies."""
        buffer, self._buffer = self._buffer, bytearray()
        read = memoryview(buffer)[:size]
        if buffer is self._inbox.scratch:
            self._reader.data_received(bytes(read))
        else:
            self._reader.take_read(read)

    def data_received(self, data: bytes) -> None:
        """Be read for as others are: by a loop that goes by classes and not by shapes."""
        self._reader.data_received(data)

    def eof_received(self) -> bool:
        """Tell the connection."""
        return self._reader.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the connection."""
        self._reader.connection_lost(exc)

    def pause_writing(self) -> None:
        """Tell the connection."""
        self._reader.pause_writing()

    def resume_writing(self) -> None:
        """Tell the connection."""
        self._reader.resume_writing()
