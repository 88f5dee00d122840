"""Listening sockets."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

UNIX: Final = "unix:"
MAX_PATH_BYTES: Final = 107  # `sun_path` with its zero byte (unix(7))
_UNIX_MODE: Final = 0o660
_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h; Python does not name it
# Classic BPF over the TCP header: a SYN without ACK is dropped, all else passes. So a handshake
# under way still ends, and no other begins.
_NO_SYN: Final = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # A = byte 13, the flags (RFC 9293 section 3.1)
        (0x54, 0, 0, 0x12),  # A &= SYN | ACK
        (0x15, 0, 1, 0x02),  # if A == SYN:
        (0x06, 0, 0, 0),  #     keep no byte of it
        (0x06, 0, 0, 0xFFFFFFFF),  # keep it whole
    )
)


class _Program(ctypes.Structure):
    """`struct sock_fprog` of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def bind(address: str, *, shares_port: bool = False) -> socket.socket:
    """Return a bound socket for `host:port`, `:port`, `[v6]:port` or `unix:/path`.

    With `shares_port` several processes may bind the same address and the kernel divides new
    connections among them (SO_REUSEPORT). Raises OSError that names the address.
    """
    if address.startswith(UNIX):
        return _bind_unix(Path(address.removeprefix(UNIX)))
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Past connections in TIME_WAIT do not matter.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((host, int(port)))
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
    listening.settimeout(0)
    return listening


def _bind_unix(path: Path) -> socket.socket:
    """Return a socket bound to a file; one that nobody listens on any more is replaced."""
    listening = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket() and not _is_answered(path):
            path.unlink()
        listening.bind(str(path))
        path.chmod(_UNIX_MODE)
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"cannot listen on {UNIX}{path}: {error.strerror}") from error
    listening.settimeout(0)
    return listening


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(0)
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # its queue is full
            return True
    return True


def ignore_new_clients(listening: socket.socket) -> None:
    """Answer no new client of a socket; what the kernel has accepted can still be taken.

    It holds for every process that has this socket, and for good.
    A client that comes now sends its SYN again after a second, to whoever listens then; that of a
    unix socket is refused. Does nothing where the system has no such filter: elsewhere than on
    Linux, or in some sandboxes.
    """
    if sys.platform != "linux":
        return
    program = _Program(len(_NO_SYN) // 8, _NO_SYN)
    with suppress(OSError):
        if listening.family == socket.AF_UNIX:
            listening.shutdown(socket.SHUT_RD)
            return
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))


def stop_listening(listening: socket.socket) -> None:
    """Turn away who waits in the queue of a socket, and whoever comes, until it listens again.

    It holds for every process that has this socket, so nobody may be accepting on it. Where others
    share the port (SO_REUSEPORT) the kernel gives them the new connections; where nobody does, it
    refuses them. As HAProxy pauses a listener; not of a unix socket, which could not listen again,
    nor elsewhere than on Linux.
    """
    if sys.platform == "linux" and listening.family != socket.AF_UNIX:
        with suppress(OSError):  # it does not listen
            listening.shutdown(socket.SHUT_RD)


class HeldPort:
    """A port that is this sidecar's alone, for its workers to share.

    Sharing would let in strangers too: a second sidecar of the same user would take every other
    connection, and nobody would be told.
    """

    def __init__(self, address: str) -> None:
        """Take the port; raises OSError that names the address.

        Of a unix socket only the name is taken: whoever binds it makes its file.
        """
        self._bound: socket.socket | None = None
        self.address = address
        if not address.startswith(UNIX):
            bind(address).close()  # fails if anybody listens there
            self._bound = bind(address, shares_port=True)
            self.address = address_of(self._bound)
        try:
            self._guard = _guard(self.address)
        except OSError:
            if self._bound is not None:
                self._bound.close()
            raise

    def sockets(self, number: int) -> list[socket.socket]:
        """Return one bound socket for each worker; those of a file are one socket, shared."""
        if self._bound is not None:
            return [bind(self.address, shares_port=True) for _ in range(number)]
        first = bind(self.address)
        return [first, *(first.dup() for _ in range(number - 1))]

    def close(self) -> None:
        """Let the port go, or remove the socket's file."""
        if self._bound is None:
            Path(self.address.removeprefix(UNIX)).unlink(missing_ok=True)
        else:
            self._bound.close()
        if self._guard is not None:
            self._guard.close()


def _guard(address: str) -> socket.socket | None:
    """Hold a name that two sidecars cannot both have, also before either of them listens.

    An abstract socket (unix(7)) belongs to the network namespace, as the port does, and is gone
    with its process. Elsewhere than on Linux there is none.
    """
    if sys.platform != "linux":
        return None
    guard = socket.socket(socket.AF_UNIX)
    try:
        guard.bind(f"\0rmv-listen-{address}")
    except OSError as error:
        guard.close()
        raise OSError(error.errno, f"cannot listen on {address}: another sidecar has it") from error
    return guard


def address_of(listening: socket.socket) -> str:
    """Return where a socket is bound, as `bind` reads it; port 0 has become a real one."""
    if listening.family == socket.AF_UNIX:
        return f"{UNIX}{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
