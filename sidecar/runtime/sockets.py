"""Listening sockets."""

from __future__ import annotations

import socket


def bind(address: str, *, shares_port: bool = False, is_first: bool = False) -> socket.socket:
    """Return a bound TCP socket for `host:port`, `:port` or `[v6]:port`.

    With `shares_port` several processes may bind the same address and the kernel divides new
    connections among them (SO_REUSEPORT). A socket that `is_first` keeps out whoever does not
    share, even while nobody listens. Raises OSError that names the address.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Past connections in TIME_WAIT do not matter. On the first socket the option would also
        # let others bind as long as none of its sharers listens (socket(7)).
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, not is_first)
        if shares_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((host, int(port)))
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
    listening.settimeout(0)
    return listening


def bind_first(address: str) -> socket.socket:
    """Return `bind(address, shares_port=True)` for who must be the first to have the port.

    Sharing would else let in a stranger: a second sidecar of the same user would take every other
    connection, and nobody would be told.
    """
    bind(address).close()
    return bind(address, shares_port=True, is_first=True)


def address_of(listening: socket.socket) -> str:
    """Return where a socket is bound, as `bind` reads it; port 0 has become a real one."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
