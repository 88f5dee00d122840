"""Reads the PROXY protocol: who the client of a load balancer is.

By "The PROXY protocol, versions 1 & 2" (haproxy.org/download/3.0/doc/proxy-protocol.txt).
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Final, NamedTuple

MAX_LINE_BYTES: Final = 107  # of version 1, with its CRLF (section 2.1)
MAX_BLOCK_BYTES: Final = 4096  # of version 2 after its fixed part: addresses and TLVs
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # section 2.2
_FIXED: Final = struct.Struct(">12sBBH")  # signature, version and command, family, length
# Hex digits alone: `ipaddress` takes a zone of any bytes, "%" and what follows, which section 2.1
# does not know and which would go into X-Forwarded-For as it is.
_LINE: Final = re.compile(rb"PROXY TCP([46]) ([\dA-Fa-f:.]+) ([\dA-Fa-f:.]+) (\d{1,5}) (\d{1,5})")
_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESS_BYTES: Final = {0: 0, 1: 12, 2: 36, 3: 216}  # by family: none, IPv4, IPv6, unix
_TRANSPORTS: Final = 2  # 0 none, 1 stream, 2 datagram
_MAX_PORT: Final = 65_535


class Header(NamedTuple):
    """What stands before a connection's own bytes, `size_bytes` long.

    `source` is the client's address, `unix` without one; None says that the connection is the
    sender's own, and its peer the client.
    """

    size_bytes: int
    source: str | None


def parse(data: bytes) -> Header | None:
    """Read the header that `data` begins with; None when more of it has to come.

    Every byte is then of the header. Raises ValueError when it can be none.
    """
    if data.startswith(_SIGNATURE):
        return _parse_block(data)
    if data.startswith(b"PROXY "):
        return _parse_line(data)
    if _SIGNATURE.startswith(data) or b"PROXY ".startswith(data):
        return None
    raise ValueError("there is no PROXY header")


def _parse_line(data: bytes) -> Header | None:
    """Read version 1 (section 2.1): one line of text."""
    end = data.find(b"\r\n", 0, MAX_LINE_BYTES)
    if end < 0:
        if len(data) >= MAX_LINE_BYTES:
            raise ValueError(f"the PROXY line is over {MAX_LINE_BYTES} bytes")
        return None
    line = data[:end]
    if _UNKNOWN.fullmatch(line):  # what follows the word is to be ignored
        return Header(end + 2, None)
    found = _LINE.fullmatch(line)
    if found is None or max(int(found[4]), int(found[5])) > _MAX_PORT:
        raise ValueError("the PROXY line is malformed")
    kind = ipaddress.IPv4Address if found[1] == b"4" else ipaddress.IPv6Address
    source, _ = (kind(address.decode("ascii")) for address in found.group(2, 3))
    return Header(end + 2, _spelled(source))


def _parse_block(data: bytes) -> Header | None:
    """Read version 2 (section 2.2): addresses of a fixed size, then TLVs, left unread."""
    if len(data) < _FIXED.size:
        return None
    _, command, kind, length = _FIXED.unpack_from(data)
    family, transport = kind >> 4, kind & 0x0F
    if command not in (_LOCAL, _PROXY):
        raise ValueError("the PROXY header is of an unknown version or command")
    if length > MAX_BLOCK_BYTES:
        raise ValueError(f"the PROXY header is over {MAX_BLOCK_BYTES} bytes")
    size = _FIXED.size + length
    if command == _PROXY and not _is_known(family, transport, length):
        raise ValueError("the PROXY header's addresses are malformed")
    if len(data) < size:
        return None
    if command == _LOCAL:  # the sender's own, a health check say: the block is to be skipped
        return Header(size, None)
    return Header(size, _source(family, data[_FIXED.size : size]))


def _is_known(family: int, transport: int, length: int) -> bool:
    needed = _ADDRESS_BYTES.get(family)
    return needed is not None and transport <= _TRANSPORTS and length >= needed


def _source(family: int, block: bytes) -> str | None:
    if family == 1:
        return str(ipaddress.IPv4Address(block[:4]))
    if family == 2:  # noqa: PLR2004 -- AF_INET6 of section 2.2
        return _spelled(ipaddress.IPv6Address(block[:16]))
    return "unix" if family else None


def _spelled(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Spell an address for X-Forwarded-For; an IPv4 one in IPv6 as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
