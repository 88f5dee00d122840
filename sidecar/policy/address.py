"""Which endpoints a policy may name, each spelled one way only.

`http://host[:port]`, `https://host[:port]` and `unix:/absolute/path.sock`. A policy is data that
more people may write than may log in to the host, so spellings that hide an address and addresses
of the host's own metadata service are refused. Names are not resolved here: what a name resolves
to is held to `reach_fault` when it is connected to.
"""

from __future__ import annotations

import ipaddress
import re

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1
_METADATA = frozenset({ipaddress.ip_address("fd00:ec2::254")})  # of EC2, outside of fe80::/10

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


def reach_fault(address: str) -> str | None:
    """Return why an address that a name resolved to is not to be connected to, or None."""
    return _ipv6_fault(address) if ":" in address else _ipv4_fault(address)


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
        return _port_fault(after) or _ipv6_fault(host)
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
        return _kind_fault(ipaddress.IPv4Address(host))
    except ValueError:
        return "an IPv4 address is four decimal numbers, as in 127.0.0.1; no other form is accepted"


def _ipv6_fault(host: str) -> str | None:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return "not an IPv6 address"
    if address.scope_id is not None:
        return "an address with a zone is link-local, which is refused"
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is None and address in _NAT64:
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return _kind_fault(address) or (_kind_fault(embedded) if embedded else None)


def _kind_fault(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    if address.is_link_local or address in _METADATA:
        return "link-local and metadata-service addresses are refused"
    if address.is_unspecified or address.is_multicast:
        return "the address names no single host"
    return None
