"""What the kernel knows of a connection and asyncio does not tell."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import sys
import termios
from typing import Final, Protocol

_ACKED_OFFSET: Final = 120  # of tcpi_bytes_acked in struct tcp_info (linux/tcp.h, since 4.1)
_ACKED: Final = struct.Struct("=Q")
_GONE: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class Socket(Protocol):
    """The part of a socket in use. uvloop's has it without being a `socket.socket`."""

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        ...

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """Return an option's bytes."""
        ...


def bytes_acked(connection: Socket) -> int | None:
    """Return how many bytes the peer's kernel has acknowledged; None where that is not told.

    The SYN counts as one. What was never acknowledged has not reached the peer's program.
    """
    if sys.platform != "linux":
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_OFFSET + 8)
    except OSError:  # not TCP, or closed already
        return None
    if len(info) < _ACKED_OFFSET + _ACKED.size:
        return None
    acked: int = _ACKED.unpack_from(info, _ACKED_OFFSET)[0]
    return acked


def has_failed(connection: Socket) -> bool:
    """Return whether it was reset or lost; that a peer sends no more is no failure."""
    return bool(_told(connection, 0) & select.POLLERR)


def has_left(connection: Socket) -> bool:
    """Return whether the peer has closed, also while unread bytes hide it from a reader."""
    return bool(_told(connection, _GONE))


def readable(fds: list[int]) -> list[int]:
    """Return those descriptors that have something to read, an end or a failure; -1 is none."""
    poll = select.poll()
    number = 0
    for fd in fds:
        if fd >= 0:
            poll.register(fd, select.POLLIN)
            number += 1
    return [fd for fd, _ in poll.poll(0)] if number else []


def has_taken_all(connection: Socket) -> bool:
    """Return whether the peer's kernel has acknowledged all that this one was given for it."""
    try:
        return not any(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):  # closed here
        return True


def _told(connection: Socket, events: int) -> int:
    """Return which of `events`, and of failures, the kernel tells now; closed here it has left."""
    poll = select.poll()
    try:
        poll.register(connection.fileno(), events)
    except ValueError:
        return _GONE
    return sum([told for _, told in poll.poll(0)])
