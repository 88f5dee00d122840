"""A store in a cluster: keys lie where their hash says, and every primary reports its own."""

from __future__ import annotations

import asyncio
from itertools import count
from secrets import token_hex
from typing import TYPE_CHECKING, TypeVar, cast

from msgspec import Struct
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import ConnectionError as LostConnectionError

from sidecar.store.client import CALL_TIMEOUT_S, bounded
from sidecar.store.tracking import TrackingConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence

    from redis.asyncio import Redis

    from sidecar.store.keys import Keys
    from sidecar.store.tracking import Tracking


T = TypeVar("T")


class ClusterLink:
    """A link to all primaries; any node that is named tells of the others."""

    def __init__(self, hosts: Iterable[tuple[str, int]], settings: Mapping[str, object]) -> None:
        self._cluster = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in hosts],
            require_full_coverage=False,  # what is there serves; what is not fails by itself
            **settings,  # type: ignore[arg-type]
        )
        # It has the same commands, as long as none spans two keys.
        self.redis = cast("Redis", self._cluster)

    def track(self, keys: Keys) -> Tracking:
        """Return what one session of a watch needs."""
        return ClusterTracking(self._cluster, keys)

    async def pages(self, pattern: str, count: int) -> AsyncIterator[list[bytes]]:
        """Iterate over the keys that match, some at a time; a key may come twice."""
        async with bounded():
            await self._cluster.initialize()
        for node in self._cluster.get_primaries():
            cursor = 0
            while True:
                async with bounded():
                    told, page = await self._cluster.scan(
                        cursor, match=pattern, count=count, target_nodes=node
                    )
                cursor = cast("dict[str, int]", told)[node.name]  # of each node that was asked
                if page:
                    yield [key for key in page if isinstance(key, bytes)]
                if cursor == 0:
                    break

    async def close(self) -> None:
        """Let go of every connection."""
        async with bounded():
            await self._cluster.aclose()


class Shard(Struct, frozen=True):
    """A range of slots, both ends included, and where its primary listens."""

    first: int
    last: int
    host: str
    port: int


class ClusterTracking:
    """`Tracking` of every primary, as one. A cluster that changes its shape ends it."""

    def __init__(self, cluster: RedisCluster, keys: Keys) -> None:
        self._cluster = cluster
        self._keys = keys
        self._shape: tuple[Shard, ...] = ()
        self._nodes: list[TrackingConnection] = []
        self._by_slot: dict[int, TrackingConnection] = {}

    async def open(self) -> None:
        """Connect to every primary and start tracking."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            await self._cluster.initialize()
            await self._cluster.nodes_manager.initialize()  # who was primary may be none any more
        by_name: dict[str, TrackingConnection] = {}
        for slot, (node, *_) in self._cluster.nodes_manager.slots_cache.items():
            if node.name not in by_name:
                connection = node.connection_class(**node.connection_kwargs)
                probe = self._probe_in(slot)
                by_name[node.name] = TrackingConnection(
                    connection, self._keys, probe, can_mget=False
                )
            self._by_slot[slot] = by_name[node.name]
        self._nodes = list(by_name.values())
        await _all(node.open() for node in self._nodes)
        self._shape = await self._agreed_shape()

    async def close(self) -> None:
        """Disconnect from all."""
        for node in self._nodes:
            await node.close()

    async def ping(self, timeout_s: float) -> None:
        """See that every primary reports changes, and that it still is the primary."""
        await _all(node.ping(timeout_s) for node in self._nodes)
        if await self._agreed_shape() != self._shape:
            raise LostConnectionError("the cluster has changed its shape")

    async def scan(self, cursor: int, pattern: str, count: int) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the end) and some keys that match, node by node."""
        size = len(self._nodes)
        cursor, number = divmod(cursor, size)
        cursor, found = await self._nodes[number].scan(cursor, pattern, count)
        if cursor:
            return cursor * size + number, found
        return (number + 1) % size, found

    async def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys`, None for one that is gone or is no string."""
        found: dict[bytes, bytes | None] = {}
        for node, own in self._by_node(keys):
            found.update(zip(own, await node.values(own), strict=True))
        return [found[key] for key in keys]

    async def has(self, key: str) -> bool:
        """Return whether a key exists, whatever its type."""
        return await self._node_of(key.encode()).has(key)

    def is_alone(self, key: str, others: Iterable[str]) -> bool:
        """Return whether `key` has a primary for itself, without any of `others`."""
        own = self._node_of(key.encode())
        return all(self._node_of(other.encode()) is not own for other in others)

    async def wrong_types(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return those of `keys` that exist and are no string, although `values` gave None."""
        found: list[bytes] = []
        for node, own in self._by_node(keys):
            for key in own:  # one at a time: no command spans two keys
                found += await node.wrong_types([key])
        return found

    async def heard(self, timeout_s: float) -> bool:
        """Wait for a report of any primary; return whether there is one to take."""
        waiting = [asyncio.ensure_future(node.heard(timeout_s)) for node in self._nodes]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        heard = [one.result() for one in done]  # of each: an error of any ends the session
        return any(heard)

    async def take(self) -> tuple[list[bytes], bool]:
        """Return the keys that changed since the last call, and whether all of a node's went."""
        taken = [await node.take() for node in self._nodes]
        return [key for keys, _ in taken for key in keys], any(flushed for _, flushed in taken)

    def _node_of(self, key: bytes) -> TrackingConnection:
        node = self._by_slot.get(key_slot(key))
        if node is None:
            raise LostConnectionError("the cluster does not cover all slots")
        return node

    def _by_node(self, keys: Sequence[bytes]) -> Iterable[tuple[TrackingConnection, list[bytes]]]:
        found: dict[TrackingConnection, list[bytes]] = {}
        for key in keys:
            found.setdefault(self._node_of(key), []).append(key)
        return found.items()

    def _probe_in(self, slot: int) -> str:
        """Return the key of a probe that lies where `slot` does."""
        owner = self._cluster.nodes_manager.slots_cache[slot][0].name
        probe = self._keys.probe + token_hex(6)
        for number in count():
            key = f"{probe}.{number}"
            nodes = self._cluster.nodes_manager.slots_cache.get(key_slot(key.encode()))
            if nodes and nodes[0].name == owner:
                return key
        raise AssertionError

    async def _agreed_shape(self) -> tuple[Shard, ...]:
        """Return the shape of the cluster, which every primary has to tell alike."""
        told = await _all(node.call("CLUSTER", "SLOTS") for node in self._nodes)
        shapes = {_shape(one) for one in told}
        if len(shapes) != 1:
            raise LostConnectionError("the nodes of the cluster do not agree on its shape")
        return shapes.pop()


def _shape(reply: object) -> tuple[Shard, ...]:
    """Read the reply to CLUSTER SLOTS; replicas come and go, and do not matter."""
    if not isinstance(reply, list):
        raise LostConnectionError(f"CLUSTER SLOTS answered {type(reply).__name__}")
    shards = [
        Shard(first, last, (primary[0] or b"").decode(), primary[1])
        for first, last, primary, *_ in reply
    ]
    return tuple(sorted(shards, key=lambda shard: shard.first))


async def _all(calls: Iterable[Coroutine[object, object, T]]) -> list[T]:
    """Return what all calls return; the first error is raised when all have ended."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    found: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found
