"""Addresses that no endpoint may have: metadata services, and those of no single host.

Judged is an address in IPv6 and each address of IPv4 in it: a translator or tunnel on the way may
send what is for the one to the other.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# What hosts in clouds get their credentials and keys from. Most of it is link-local, as
# 169.254.169.254 is, and refused as such; these are not:
_METADATA = (
    IPv4Network("100.100.100.200"),  # Alibaba Cloud: ECS, "View instance metadata"
    IPv6Network("fd00:100::100:200"),  # the same in IPv6
    IPv4Network("168.63.129.16"),  # Azure: "What is IP address 168.63.129.16?"
    IPv4Network("192.0.0.192"),  # Oracle Cloud Classic: "Retrieving Instance Metadata"
    IPv6Network("fd00:c1::a9fe:a9fe"),  # Oracle Cloud: the client of oracle/oci-python-sdk
    IPv6Network("fd00:ec2::/32"),  # Amazon: EC2, "Instance metadata"; EKS, "Pod Identity Agent"
    IPv6Network("fd20:ce::254"),  # Google Cloud: Compute Engine, "About VM metadata"
    IPv6Network("fd00:42::42"),  # Scaleway: its data source in the documentation of cloud-init
    IPv6Network("fd00:a9fe:a9fe::1"),  # Akamai (Linode): "Metadata service"
)

_THIS_NETWORK = IPv4Network("0.0.0.0/8")  # RFC 1122 section 3.2.1.3
_BROADCAST = IPv4Address("255.255.255.255")

_ENDS_IN_IPV4 = (
    IPv6Network("::/96"),  # IPv4-compatible: RFC 4291 section 2.5.5.1
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped: section 2.5.5.2
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated: RFC 2765 section 2.1
    IPv6Network("64:ff9b::/96"),  # NAT64: RFC 6052 section 2.1
)
_NO_IPV4 = frozenset({IPv6Address("::"), IPv6Address("::1")})
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")  # RFC 8215: of any length from here on
_LOW = 0xFFFF_FFFF


def kind_fault(address: IPv4Address | IPv6Address) -> str | None:
    """Return why an address is of a kind that is refused, or None."""
    inner = _embedded(address) if isinstance(address, IPv6Address) else ()
    return next((fault for one in (address, *inner) if (fault := _fault(one))), None)


def _fault(address: IPv4Address | IPv6Address) -> str | None:
    if address.is_link_local or any(address in network for network in _METADATA):
        return "link-local and metadata-service addresses are refused"
    is_vague = address.is_unspecified or address.is_multicast or address == _BROADCAST
    if is_vague or address in _THIS_NETWORK:
        return "the address names no single host"
    return None


def _embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    """Yield the addresses of IPv4 that traffic to an address may end up at."""
    bits = int(address)
    if address in _NO_IPV4:
        return
    if any(address in network for network in _ENDS_IN_IPV4):
        yield IPv4Address(bits & _LOW)
    if address in _LOCAL_NAT64:
        yield from (one for one in _translated(bits) if one not in _THIS_NETWORK)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


def _translated(bits: int) -> Iterator[IPv4Address]:
    """Yield what stands behind a prefix of 48, 56, 64 or 96 bits: which it is, is not known."""
    # RFC 6052 section 2.2: the bits 64 to 71 are left out.
    whole = ((bits >> 64) << 56) | (bits & ((1 << 56) - 1))
    yield from (IPv4Address((whole >> shift) & _LOW) for shift in (40, 32, 24))
    yield IPv4Address(bits & _LOW)
