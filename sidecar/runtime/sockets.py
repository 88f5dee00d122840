"""Listening sockets."""

from __future__ import annotations

import socket
import sys


def bind(address: str, *, shares_port: bool = False) -> socket.socket:
    """Return a bound TCP socket for `host:port`, `:port` or `[v6]:port`.

    With `shares_port` several processes may bind the same address and the kernel divides new
    connections among them (SO_REUSEPORT). Raises OSError that names the address.
    """
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


class HeldPort:
    """A port that is this sidecar's alone, for its workers to share.

    Sharing would let in strangers too: a second sidecar of the same user would take every other
    connection, and nobody would be told.
    """

    def __init__(self, address: str) -> None:
        """Take the port; raises OSError that names the address."""
        bind(address).close()  # fails if anybody listens there
        self._bound = bind(address, shares_port=True)
        self.address = address_of(self._bound)
        try:
            self._guard = _guard(self.address)
        except OSError:
            self._bound.close()
            raise

    def close(self) -> None:
        """Let the port go."""
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
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
