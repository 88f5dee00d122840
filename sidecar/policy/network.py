"""Networks of IP addresses, and whether an address is in one of them."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from sidecar.policy.steps import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sidecar.policy.steps import Steps

PORTION: Final = 50  # networks between two pauses

_BITS = re.compile(r"0|[1-9][0-9]*")
_MAPPED = IPv6Network("::ffff:0:0/96")  # IPv4 addresses in IPv6 spelling (RFC 4291 2.5.5.2)


def parse(text: str) -> IPv4Network | IPv6Network:
    """Return a network in CIDR notation (RFC 4632); an address alone is a network of one.

    Raises:
        ValueError: it is none, or has bits set behind its prefix.
    """
    address, slash, bits = text.partition("/")
    if "%" in address:
        raise ValueError("an address with a zone means another network on each host")
    if slash and not _BITS.fullmatch(bits):
        raise ValueError("what follows the slash is a number of bits, as in 10.0.0.0/8")
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        inner = int(network.network_address) & 0xFFFF_FFFF
        return IPv4Network((inner, network.prefixlen - _MAPPED.prefixlen))
    return network


class Networks:
    """A set of networks; who asks pays by how many sizes they have, and not by their number."""

    __slots__ = ("__weakref__", "_prefixes")

    def __init__(self) -> None:
        # What addresses in a network have in common, by their kind and the bits that follow it.
        self._prefixes: dict[tuple[int, int], set[int]] = {}

    def add(self, network: IPv4Network | IPv6Network) -> None:
        """Take in a network."""
        rest = network.max_prefixlen - network.prefixlen
        prefixes = self._prefixes.setdefault((network.version, rest), set())
        prefixes.add(int(network.network_address) >> rest)

    def has(self, text: str) -> bool:
        """Return whether a text is an address in one of them, in either spelling."""
        try:
            address = ip_address(text)
        except ValueError:
            return False
        if isinstance(address, IPv6Address):
            if address.scope_id is not None:
                return False
            address = address.ipv4_mapped or address
        bits = int(address)
        for (version, rest), prefixes in self._prefixes.items():
            if version == address.version and bits >> rest in prefixes:
                return True
        return False


_made: WeakValueDictionary[tuple[str, ...], Networks] = WeakValueDictionary()


def making(texts: tuple[str, ...]) -> Steps[Networks]:
    """Return the set of some networks, in steps: reading one takes tens of microseconds.

    An equal set that is in use is used again. Raises ValueError if one of them is no network.
    """
    known = _made.get(texts)
    if known is not None:
        return known
    networks = Networks()
    for n, text in enumerate(texts):
        networks.add(parse(text))
        if n % PORTION == PORTION - 1:
            yield
    _made[texts] = networks
    return networks


def within(networks: Iterable[str]) -> Callable[[str], bool]:
    """Return the test that a text is an address of one of `networks`, in either spelling.

    An address with a zone is in none.

    Raises:
        ValueError: one of them is no network.
    """
    return finish(making(tuple(networks))).has
