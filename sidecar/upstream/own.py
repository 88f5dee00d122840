"""The listeners of this sidecar, which no endpoint may lead to.

A policy that names them would have requests of clients answered by the admin listener, or go round
until every connection is taken. Names and wildcards are known only as connections are made, so it
is then that an address is looked at.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNIX: Final = "unix:"


class OwnListeners:
    """Where this sidecar listens itself."""

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        """Read bound addresses: `127.0.0.1:8080`, `[::]:8081`, `unix:/run/rmv.sock`."""
        self._paths: list[str] = []
        self._hosts: list[tuple[IpAddress, int]] = []
        for text in addresses:
            if text.startswith(_UNIX):
                self._paths.append(text.removeprefix(_UNIX))
                continue
            host, _, port = text.rpartition(":")
            self._hosts.append((_address(host.strip("[]")), int(port)))

    def has(self, address: str, port: int) -> bool:
        """Return whether a connection to this address would be one to ourselves."""
        found = [own for own, at in self._hosts if at == port]
        if not found:
            return False
        wanted = _address(address)
        return any(own == wanted or (own.is_unspecified and _is_local(wanted)) for own in found)

    def has_socket(self, path: str) -> bool:
        """Return whether a socket is ours, links followed."""
        real = os.path.realpath(path)
        return any(real == os.path.realpath(own) for own in self._paths)


def _address(text: str) -> IpAddress:
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _is_local(address: IpAddress) -> bool:
    """Return whether an address is one of this host: nothing else can be bound to."""
    if address.is_loopback:
        return True
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET  # noqa: PLR2004
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
