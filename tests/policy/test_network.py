"""Addresses and networks, in all the ways they are spelled."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.policy import Operators, Rule
from sidecar.policy import network, size
from sidecar.policy.address import ANYWHERE
from sidecar.policy.compiled import compiling
from sidecar.policy.network import parse, within
from sidecar.policy.steps import finish
from sidecar.policy.validate import validating
from tests.policy.examples import make_policy

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def test_many_networks_are_judged_and_made_a_few_at_a_time() -> None:
    many = tuple(f"10.{n >> 8}.{n & 255}.0/24" for n in range(size.MAX_NETWORKS))
    rule = Rule(id="r", when={"header.x-ip": Operators(cidr=many)}, serve="v2")
    policy = make_policy(rule)
    read = 0

    def counting(text: str) -> IPv4Network | IPv6Network:
        nonlocal read
        read += 1
        return parse(text)

    def most_in_a_step(steps: Iterator[object]) -> int:
        nonlocal read
        most = 0
        for _ in steps:
            most, read = max(most, read), 0
        return max(most, read)

    with patch.object(network, "parse", counting):
        assert 0 < most_in_a_step(validating(policy, "", ANYWHERE)) <= network.PORTION
        assert 0 < most_in_a_step(compiling(policy)) <= network.PORTION


def test_equal_lists_in_use_are_one_set() -> None:
    texts = ("10.0.0.0/8", "2001:db8::/32")

    assert finish(network.making(texts)) is not finish(network.making(texts[:1]))
    held = finish(network.making(texts))
    assert finish(network.making(("10.0.0.0/8", "2001:db8::/32"))) is held
