"""Long bodies from socket to socket without a copy: splice(2) of Linux, by way of a pipe."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from sidecar.runtime.tcp import Socket

MAX_SPLICES: Final = 64  # of a worker, at once; each takes four descriptors
PIPE_BYTES: Final = 1024 * 1024  # what /proc/sys/fs/pipe-max-size allows everybody by default
_IS_POSSIBLE: Final = hasattr(os, "splice") and hasattr(fcntl, "F_SETPIPE_SZ")
_REFUSED: Final = frozenset((errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP))


class Splicing(Protocol):
    """Whose body is on the way."""

    def on_spliced(self, size: int) -> None:
        """Learn that so many bytes have left the source."""
        ...

    def on_splice_full(self) -> None:
        """Learn that the sink takes no more for now."""
        ...

    def on_splice_drained(self) -> None:
        """Learn that it does again."""
        ...

    def on_splice_end(self) -> None:
        """Learn that the sink's kernel has the last byte."""
        ...

    def on_source_lost(self) -> None:
        """Learn that nothing more can be taken: whoever reads the source next sees whether it is.

        It has ended, or it cannot be spliced from, and then nothing of it is lost.
        """
        ...

    def on_sink_lost(self) -> None:
        """Learn that the sink takes nothing any more."""
        ...


class Splicer:
    """Starts splices, as many as there may be."""

    def __init__(self) -> None:
        self.under_way = 0  # splices
        self._is_possible = _IS_POSSIBLE

    def start(self, source: Socket, sink: Socket, size: int, splicing: Splicing) -> Splice | None:
        """Move `size` bytes, of 1 or more; or return None, and nothing has changed.

        Nobody else may read the source or write to the sink before the last of the calls.
        """
        if not self._is_possible or self.under_way >= MAX_SPLICES:
            return None
        files: list[int] = []
        try:
            files += os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            # The loop knows the sockets' own descriptors as their transports', and those alone.
            files.append(os.dup(source.fileno()))
            files.append(os.dup(sink.fileno()))
        except OSError:  # out of descriptors
            for file in files:
                os.close(file)
            return None
        with suppress(PermissionError):  # where a user has many pipes they stay at 64 KiB
            fcntl.fcntl(files[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.under_way += 1
        return Splice(self, files, size, splicing)

    def leave(self) -> None:
        """Have room for one more."""
        self.under_way -= 1

    def give_up(self) -> None:
        """Start no more: the kernel, or who filters its calls, refuses them."""
        self._is_possible = False


class Splice:
    """One body on its way. It ends by itself or by `stop`, and tells nobody of the latter."""

    def __init__(self, splicer: Splicer, files: list[int], size: int, splicing: Splicing) -> None:
        self._splicer = splicer
        self._splicing = splicing
        self._exit, self._entry, self._source, self._sink = files
        self._left = size  # bytes in the source, or to come there
        self._held = 0  # bytes in the pipe
        self._is_over = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._source, self._on_readable)

    def stop(self) -> None:
        """Let go of everything; what is in the pipe is lost."""
        if self._is_over:
            return
        self._is_over = True
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)
        for file in (self._exit, self._entry, self._source, self._sink):
            os.close(file)
        self._splicer.leave()

    def _on_readable(self) -> None:
        """Take what is there, a pipe full of it at most."""
        try:
            taken = os.splice(self._source, self._entry, min(self._left, PIPE_BYTES), flags=_FLAGS)
        except BlockingIOError:
            return
        except OSError as error:  # a reset, if nothing else
            if error.errno in _REFUSED:
                self._splicer.give_up()
            taken = 0
        if not taken:
            self.stop()
            self._splicing.on_source_lost()
            return
        self._left -= taken
        self._held += taken
        self._splicing.on_spliced(taken)
        self._push()

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._sink)
        if self._left:
            self._loop.add_reader(self._source, self._on_readable)
        self._splicing.on_splice_drained()
        self._push()

    def _push(self) -> None:
        """Hand on what the pipe holds; wait for the sink where it does not take it all."""
        if self._is_over:
            return
        try:
            while self._held:
                self._held -= os.splice(self._exit, self._sink, self._held, flags=_FLAGS)
        except BlockingIOError:
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._sink, self._on_writable)
            self._splicing.on_splice_full()
        except OSError:  # closed by the peer
            self.stop()
            self._splicing.on_sink_lost()
        else:
            if not self._left:
                self.stop()
                self._splicing.on_splice_end()


_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if _IS_POSSIBLE else 0
