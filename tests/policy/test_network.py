"""Addresses and networks, in all the ways they are spelled."""

from __future__ import annotations

import pytest

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
