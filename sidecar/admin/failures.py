"""How often credentials may fail: of each peer and of all, in memory that does not grow."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_S: Final = 60.0
MAX_PEERS: Final = 1024  # a peer that is forgotten starts anew; all together stay held
OVERALL: Final = 10  # times what one peer has
_IPV6_PREFIX: Final = 64  # what one host has: RFC 4291 section 2.5.4


class _Bucket:
    """Failures that are left; they come back evenly over the window."""

    def __init__(self, size: int, now_s: float) -> None:
        self._size = size
        self._left = float(size)
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until there is one; 0 when there is."""
        rate = self._size / WINDOW_S
        self._left = min(self._size, self._left + (now_s - self._at_s) * rate)
        self._at_s = now_s
        return max(0.0, (1.0 - self._left) / rate)

    def take(self) -> None:
        self._left -= 1.0


class Failures:
    """Counts failed credentials. A peer is an IPv4 address, or a /64 network of IPv6."""

    def __init__(self, of_one: int, monotonic_s: Callable[[], float]) -> None:
        """Let one peer fail `of_one` times in a minute, and all of them ten times as often."""
        self._of_one = of_one
        self._monotonic_s = monotonic_s
        self._all = _Bucket(of_one * OVERALL, monotonic_s())
        self._peers: dict[str, _Bucket] = {}  # the one that failed longest ago first

    def wait_s(self, peer: str) -> float:
        """Return for how many seconds nothing of a peer is looked at; 0: it is."""
        bucket = self._peers.get(_network(peer))
        return 0.0 if bucket is None else bucket.wait_s(self._monotonic_s())

    def note(self, peer: str) -> float:
        """Count a failure; return for how long to hold back who failed, 0 while there is room.

        What is returned is for the answer, and says whether the failure is worth telling: past
        the limit none is.
        """
        now_s, network = self._monotonic_s(), _network(peer)
        bucket = self._peers.pop(network, None) or _Bucket(self._of_one, now_s)
        self._peers[network] = bucket
        if len(self._peers) > MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        wait_s = max(bucket.wait_s(now_s), self._all.wait_s(now_s))
        if not wait_s:
            bucket.take()
            self._all.take()
        return wait_s

    def __len__(self) -> int:
        return len(self._peers)


def _network(peer: str) -> str:
    address = ipaddress.ip_address(peer.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False).network_address)
