"""What a load balancer says of its client is read exactly, whatever its pieces."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.proxy_protocol import MAX_LINE_BYTES, Header, parse

if TYPE_CHECKING:
    import ipaddress

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
PORTS = st.integers(0, 65_535)
TRAILING = st.binary(max_size=40)


def block(command: int, kind: int, content: bytes) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, kind, len(content)) + content


def wholly(header: bytes, trailing: bytes) -> Header | None:
    """Parse a header; each part of it alone must not be enough, nor more change anything."""
    assert all(parse(header[:end]) is None for end in range(len(header)))
    assert parse(header) == parse(header + trailing)
    return parse(header)


@given(st.ip_addresses(), st.data(), PORTS, PORTS, TRAILING)
def test_a_line_tells_its_source(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address,
    data: st.DataObject,
    source_port: int,
    port: int,
    trailing: bytes,
) -> None:
    target = data.draw(st.ip_addresses(v=source.version))
    kind = {4: "TCP4", 6: "TCP6"}[source.version]
    line = f"PROXY {kind} {source} {target} {source_port} {port}\r\n".encode()

    expected = getattr(source, "ipv4_mapped", None) or source
    assert wholly(line, trailing) == Header(len(line), str(expected))


@pytest.mark.parametrize("line", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 ::1 65535 1\r\n"])
def test_a_line_of_an_unknown_client_names_none(line: bytes) -> None:
    assert wholly(line, b"GET") == Header(len(line), None)


@given(st.ip_addresses(v=4), PORTS, st.binary(max_size=100), TRAILING)
def test_a_block_of_ipv4_tells_its_source_and_skips_what_follows(
    source: ipaddress.IPv4Address, port: int, tlvs: bytes, trailing: bytes
) -> None:
    content = source.packed + bytes(4) + struct.pack(">HH", port, 80) + tlvs
    header = block(0x21, 0x11, content)

    assert wholly(header, trailing) == Header(len(header), str(source))


@given(st.ip_addresses(v=6), st.binary(max_size=20), TRAILING)
def test_a_block_of_ipv6_tells_its_source(
    source: ipaddress.IPv6Address, tlvs: bytes, trailing: bytes
) -> None:
    header = block(0x21, 0x21, source.packed + bytes(16) + bytes(4) + tlvs)

    expected = source.ipv4_mapped or source
    assert wholly(header, trailing) == Header(len(header), str(expected))


def test_a_block_of_a_unix_socket_says_so() -> None:
    header = block(0x21, 0x31, b"/tmp/s".ljust(216, b"\0"))

    assert wholly(header, b"") == Header(len(header), "unix")


@given(st.integers(0, 255), st.binary(max_size=60))
def test_a_block_of_the_balancers_own_is_skipped_whatever_it_holds(
    kind: int, content: bytes
) -> None:
    header = block(0x20, kind, content)

    assert wholly(header, b"GET") == Header(len(header), None)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        b"PROXY TCP4 1.2.3.400 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP6 fe80::1%0\xff ::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP6 ::1 fe80::1%eth0 1 2\r\n",
        b"PROXY TCP6 ::1%\x00\x01\x7f,127.0.0.1 ::1 1 2\r\n",
        b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r\n",
        b"PROXY " + b"x" * (MAX_LINE_BYTES - 6),
        block(0x11, 0x11, bytes(12)),
        block(0x22, 0x11, bytes(12)),
        block(0x21, 0x11, bytes(11)),
        block(0x21, 0x13, bytes(12)),
        block(0x21, 0x41, bytes(12)),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- the text is for people
        parse(data)


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda rest: b"PROXY " + rest))
def test_any_bytes_are_a_header_or_refused_or_the_beginning_of_one(data: bytes) -> None:
    try:
        header = parse(data)
    except ValueError:
        return

    assert header is None or header.size_bytes <= len(data)


@given(st.text(st.characters(max_codepoint=127), max_size=30))
def test_what_a_line_names_is_one_address_and_no_list(name: str) -> None:
    try:
        header = parse(f"PROXY TCP6 ::1{name} ::1 1 2\r\n".encode())
    except ValueError:
        return

    if header is not None and header.source is not None:
        assert set(header.source) <= set("0123456789abcdef:.")
