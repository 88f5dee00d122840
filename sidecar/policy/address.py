"""Which endpoints a policy may name.

`http://host[:port]`, `https://host[:port]` and `unix:/absolute/path.sock`. A policy is data that
more people may write than may log in to the host, so spellings that hide an address and addresses
of the host's own metadata service are refused. Names are not resolved here: what a name resolves
to is held to `reach_fault` when it is connected to. `AllowList` narrows both to what an operator's
own setting names.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

from sidecar.policy import network
from sidecar.policy.reserved import kind_fault

if TYPE_CHECKING:
    from collections.abc import Iterable

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_PORTS = {"http": 80, "https": 443}
_IPV6 = 6
_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")

MAX_HOST_CHARS = 253  # RFC 1035 section 2.3.4, as text
MAX_PORT = 65_535
MAX_SOCKET_CHARS = 107  # sun_path of Linux, without its final zero: unix(7)

_FORMS = "http://host:port, https://host:port or unix:/absolute/path.sock"


def fault(endpoint: str) -> str | None:
    """Return what is wrong with an endpoint, in words, or None."""
    if endpoint.startswith("unix:"):
        return _path_fault(endpoint.removeprefix("unix:"))
    scheme = _SCHEME.match(endpoint)
    if scheme is None or not endpoint.startswith("//", scheme.end()):
        return f"an endpoint is {_FORMS}"
    if scheme[1] not in {"http", "https"}:
        return f"the scheme {scheme[1][:20]} is not supported; give {_FORMS}"
    authority = endpoint[scheme.end() + len("//") :]
    odd = next((mark for mark in "/?#" if mark in authority), None)
    if odd is not None:
        what = {"/": "path", "?": "query", "#": "fragment"}[odd]
        return f"an endpoint has no {what}; give {scheme[1]}://host:port"
    if "@" in authority:
        return "an endpoint holds no user or password"
    return _authority_fault(authority)


def canonical(endpoint: str) -> str:
    """Return the one spelling of all endpoints that mean the same as a well-spelled one."""
    if endpoint.startswith("unix:"):
        return endpoint
    host, port = _target(endpoint)
    address = _address(host)
    host = host if address is None else f"[{address}]" if address.version == _IPV6 else str(address)
    return f"{endpoint.partition('://')[0]}://{host}:{port}"


class _Entry(NamedTuple):
    """One line of an allow-list; without `port` it means all of them."""

    port: int | None
    name: str = ""
    """A host, or `*.` and what it ends with, or `*`; empty in an entry of addresses."""
    network: IpNetwork | None = None

    def fits_name(self, host: str) -> bool:
        if self.name.startswith("*"):
            return host.endswith(self.name[1:]) and host != self.name[1:]
        return bool(self.name) and host == self.name

    def fits_address(self, address: IpAddress) -> bool:
        return self.network is not None and address in self.network


class AllowList:
    """The hosts and networks that endpoints may be in; an empty list allows all of them.

    A name has to be listed as a name, an address as one of a network. Where the list has networks,
    what a listed name resolves to has to be in one of them, too. Sockets are no business of it.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        """Read entries such as `model`, `*.models.svc:8080`, `10.0.0.0/8`, `[fd00::/8]:443`.

        Raises:
            ValueError: an entry is none of these.
        """
        self._entries = tuple(map(_entry, entries))
        self._has_networks = any(entry.network is not None for entry in self._entries)

    def fault(self, endpoint: str) -> str | None:
        """Return why a well-spelled endpoint is not allowed, or None."""
        if not self._entries or endpoint.startswith("unix:"):
            return None
        host, port = _target(endpoint)
        address = _address(host)
        for entry in self._entries:
            fits = entry.fits_name(host) if address is None else entry.fits_address(address)
            if fits and entry.port in {None, port}:
                return None
        return "not one of the hosts and networks of the setting endpoints.allow"

    def reach_fault(self, address: str, port: int) -> str | None:
        """Return why an address that a name resolved to is not to be connected to, or None."""
        refused = reach_fault(address)
        if refused is not None or not self._has_networks:
            return refused
        found = _address(address)
        for entry in self._entries:
            if found is not None and entry.fits_address(found) and entry.port in {None, port}:
                return None
        return "in none of the networks of the setting endpoints.allow"


def reach_fault(address: str) -> str | None:
    """Return why an address that a name resolved to is not to be connected to, or None."""
    return _ipv6_fault(address) if ":" in address else _ipv4_fault(address)


def _entry(text: str) -> _Entry:
    host, port = _split_port(text)
    if host == text and _is_vague(text):
        before, _, last = text.rpartition(":")
        raise ValueError(f"write [{before}]:{last} for a port, or [{text}] for an address")
    if port and _port_fault(port):
        raise ValueError(_port_fault(port))
    number = int(port[1:]) if port else None
    if "/" in host or _address(host) is not None:
        try:
            return _Entry(number, network=network.parse(host))
        except ValueError as error:
            raise ValueError(f"not a network: {error}") from error
    name = host.lower().removesuffix(".")
    if host != "*" and _host_fault(name.removeprefix("*.")):
        raise ValueError("neither a host, `*.` and a domain, an address nor a network")
    return _Entry(number, name=name)


def _split_port(text: str) -> tuple[str, str]:
    """Split `host:port`, `[address]:port` or either without a port; the port keeps its colon."""
    if text.startswith("[") and "]" in text:
        host, _, port = text[1:].partition("]")
        return (host, port) if port[:1] in {"", ":"} else (text, "")
    if text.count(":") > 1:
        return text, ""  # an IPv6 address
    host, colon, port = text.partition(":")
    return host, colon + port


def _is_vague(text: str) -> bool:
    """Return whether a text is an IPv6 address, and so is what is before its last colon."""
    before, _, last = text.rpartition(":")
    return ":" in before and _address(before) is not None and not _port_fault(f":{last}")


def _target(endpoint: str) -> tuple[str, int]:
    """Return host and port of an endpoint in which `fault` finds nothing wrong."""
    scheme, _, authority = endpoint.partition("://")
    host, port = _split_port(authority)
    return host.lower().removesuffix("."), int(port[1:]) if port else _PORTS[scheme]


def _address(host: str) -> IpAddress | None:
    """Read an address; one of IPv4 in the clothes of IPv6 is that of IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _path_fault(path: str) -> str | None:
    if not path.startswith("/") or path.startswith("//"):
        return "a socket is unix: and an absolute path, as in unix:/run/models/fraud.sock"
    if not {".", "..", ""}.isdisjoint(path.split("/")[1:]):
        return "the path of a socket has no `.`, `..` or empty part"
    if not _PATH.fullmatch(path):
        return "the path of a socket has letters, digits, `.`, `_`, `-` and `/` only"
    if len(path) > MAX_SOCKET_CHARS:
        return f"the path of a socket has at most {MAX_SOCKET_CHARS} characters"
    return None


def _authority_fault(authority: str) -> str | None:
    if authority.startswith("["):
        host, bracket, after = authority[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            return "an IPv6 address stands in brackets, as in http://[::1]:9001"
        return _port_fault(after) or _ipv6_fault(host) or _mapped_fault(host)
    host, colon, port = authority.partition(":")
    return _port_fault(colon + port) or _host_fault(host)


def _port_fault(text: str) -> str | None:
    """Judge `:port`; an absent port means the one of the scheme."""
    if not text or (_PORT.fullmatch(text[1:]) and int(text[1:]) <= MAX_PORT):
        return None
    return f"the port must be a number from 1 to {MAX_PORT}, without leading zeros"


def _host_fault(host: str) -> str | None:
    if not host:
        return "the host is missing"
    labels = host.removesuffix(".").split(".")
    # The last label decides, as in the URL standard: C libraries read 0x7f.1 as 127.0.0.1.
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4_fault(host)
    if len(host) > MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        return "the host is neither a name nor an address"
    return None


def _ipv4_fault(host: str) -> str | None:
    try:
        return kind_fault(ipaddress.IPv4Address(host))
    except ValueError:
        return "an IPv4 address is four decimal numbers, as in 127.0.0.1; no other form is accepted"


def _ipv6_fault(host: str) -> str | None:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return "not an IPv6 address"
    if address.scope_id is not None:
        return "an address with a zone is link-local, which is refused"
    return kind_fault(address)


def _mapped_fault(host: str) -> str | None:
    mapped = ipaddress.IPv6Address(host).ipv4_mapped
    return f"an IPv4 address is written as such: {mapped}" if mapped is not None else None


ANYWHERE = AllowList()
