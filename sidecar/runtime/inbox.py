"""Where connections read into: what is large is handed on where it lies, without a copy."""

from __future__ import annotations

from collections import deque
from typing import Final

from sidecar.wire.pieces import MIN_APART_BYTES

SIZE_BYTES: Final = 128 * 1024
MAX_LENT: Final = 64  # buffers that are watched for their return; others are garbage when let go


class Inbox:
    """The buffer that the next read of any connection goes to: one read at a time.

    A piece of a large read keeps its whole buffer from being read into, for as long as anybody has
    it: until a socket has taken it, or the request cannot be sent again. So pieces are not for
    keeping: `bytes(piece)` is.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(SIZE_BYTES)
        self._view: memoryview | None = memoryview(self._buffer)
        self._lent: deque[bytearray] = deque()

    def buffer(self) -> bytearray:
        """Return where to read into; the next call may return another."""
        if self._view is None:
            self._renew()
        return self._buffer

    def take(self, size: int) -> bytes | memoryview:
        """Return the `size` bytes that were read: copied, unless they are worth an own buffer."""
        view = self._view
        if view is None:  # nothing was read since
            return b""
        if size < MIN_APART_BYTES:
            return view[:size].tobytes()
        self._view = None
        return view[:size]

    def shrink(self) -> None:
        """Let go of the memory of a burst."""
        self._lent.clear()

    def _renew(self) -> None:
        """Read into a buffer that nobody has a piece of: the last one, as it is in the caches."""
        if not _is_free(self._buffer):
            self._lent.append(self._buffer)
            if _is_free(self._lent[0]):
                self._buffer = self._lent.popleft()
            else:
                self._buffer = bytearray(SIZE_BYTES)
                if len(self._lent) > MAX_LENT:
                    self._lent.popleft()
        self._view = memoryview(self._buffer)


def _is_free(buffer: bytearray) -> bool:
    """Return whether no memoryview has the buffer: only then may its size change."""
    try:
        last = buffer.pop()
    except BufferError:
        return False
    buffer.append(last)
    return True
