"""Addresses and networks, in all the ways they are spelled."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.network import within


@pytest.mark.parametrize(
    ("networks", "address", "is_in"),
    [
        (("10.0.0.0/8",), "10.255.0.1", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("192.168.1.7",), "192.168.1.7", True),
        (("172.16.0.0/12", "10.0.0.0/8"), "10.1.1.1", True),
        (("2001:db8::/32",), "2001:DB8:0:1::2", True),
        (("2001:db8::/32",), "10.0.0.1", False),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("::ffff:10.0.0.0/104",), "10.1.2.3", True),
        (("::ffff:10.0.0.0/104",), "11.1.2.3", False),
        (("0.0.0.0/0",), "::1", False),
        (("10.0.0.0/8",), "10.1", False),
        (("10.0.0.0/8",), "010.1.2.3", False),
        (("10.0.0.0/8",), "10.1.2.3, 10.1.2.4", False),
        (("10.0.0.0/8",), "0x0a010203", False),
        (("10.0.0.0/8",), "", False),
        (("10.0.0.0/8",), "::ffff:10.0.0.1%1", False),
        (("fe80::/10",), "fe80::1%eth0", False),
    ],
)
def test_an_address_is_in_a_network_or_not(
    networks: tuple[str, ...], address: str, *, is_in: bool
) -> None:
    assert within(networks)(address) is is_in


@given(
    st.lists(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), min_size=1, max_size=8),
    st.integers(0, 128),
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
)
def test_an_address_is_in_some_network_as_the_standard_library_has_it(
    addresses: list[IPv4Address | IPv6Address], bits: int, asked: IPv4Address | IPv6Address
) -> None:
    # What stands for IPv4 in the spelling of IPv6 is in the examples above.
    plain_ones = [one for one in addresses if getattr(one, "ipv4_mapped", None) is None]
    networks = [ip_network((one, min(bits, one.max_prefixlen)), strict=False) for one in plain_ones]
    candidates = [asked, *plain_ones]

    holds = within(map(str, networks))

    for one in candidates:
        plain = getattr(one, "ipv4_mapped", None) or one
        assert holds(str(one)) is any(plain in network for network in networks)


def test_a_long_list_costs_an_address_no_more_than_a_short_one() -> None:
    holds = within(f"10.{n // 256}.{n % 256}.0/24" for n in range(5000))
    compared = 0

    def compare(_network: object, _address: object) -> bool:
        nonlocal compared
        compared += 1
        return False

    with patch.object(IPv4Network, "__contains__", compare):
        assert not holds("192.168.0.1")
        assert holds("10.19.0.7")

    assert compared < 10


@pytest.mark.parametrize(
    "network",
    [
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/0.255.255.255",
        "10.0.0.0/08",
        "10.0.0.0/",
        "fe80::%eth0/64",
        "acme",
        "",
        "::/129",
    ],
)
def test_what_is_no_network_is_refused(network: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        within((network,))
