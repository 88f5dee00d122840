"""One connection on which Redis says which keys have changed (RESP3 client tracking)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from redis.exceptions import InvalidResponse, NoPermissionError

from sidecar.store.client import CALL_TIMEOUT_S, FOREIGN_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio import ConnectionPool

_PUSHED = object()  # what a read returns for a push, which the handler has taken


class TrackingConnection:
    """Broadcast tracking of key prefixes, and reads on that same connection.

    Because reads and pushes share one ordered stream, a value read after a push is at least as
    new as the change that the push told of. Every method may raise one of `FOREIGN_ERRORS`;
    the connection is of no use from then on.
    """

    def __init__(self, pool: ConnectionPool, prefixes: Iterable[str]) -> None:
        # Made as the pool makes them, but not one of the pool's: it lives as long as the watch.
        self._connection = pool.connection_class(**pool.connection_kwargs)
        self._prefixes = tuple(prefixes)
        self._changed: dict[bytes, None] = {}  # a set that keeps the order
        self._is_flushed = False

    async def open(self) -> None:
        """Connect and start tracking."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            await self._connection.connect_check_health()
        # The only way to see pushes; without a handler the parser drops them.
        parser = self._connection._get_push_notifications_parser()  # noqa: SLF001
        parser.invalidation_push_handler_func = self._on_push
        words = [word for prefix in self._prefixes for word in ("PREFIX", prefix)]
        await self._call("CLIENT", "TRACKING", "ON", "BCAST", *words)

    async def close(self) -> None:
        """Disconnect, whatever state the connection is in."""
        with suppress(*FOREIGN_ERRORS):  # it is given up: how it ends is of no interest
            await self._connection.disconnect()

    async def ping(self, timeout_s: float) -> None:
        """Ask for a sign of life; raises TimeoutError when none comes in `timeout_s`."""
        await self._call("PING", timeout_s=timeout_s)

    async def scan(self, cursor: int, pattern: str, count: int) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the end) and some keys that match."""
        reply = await self._call("SCAN", cursor, "MATCH", pattern, "COUNT", count)
        if not isinstance(reply, list) or len(reply) != 2:  # noqa: PLR2004 -- cursor and keys
            raise InvalidResponse(f"SCAN answered {type(reply).__name__}")
        return int(reply[0]), reply[1]

    async def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys`, None for one that is gone or is no string."""
        if not keys:
            return []
        reply = await self._call("MGET", *keys)
        if not isinstance(reply, list) or len(reply) != len(keys):
            raise InvalidResponse(f"MGET answered {type(reply).__name__}")
        return reply

    async def has(self, key: str) -> bool:
        """Return whether a key exists, whatever its type."""
        return await self._call("EXISTS", key) == 1

    async def wrong_types(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return those of `keys` that exist and are no string, although `mget` gave None."""
        if not keys:
            return []
        try:
            if await self._call("EXISTS", *keys) == 0:  # the common case: they are gone
                return []
            types = [(key, await self._call("TYPE", key)) for key in keys]
        except NoPermissionError:  # an ACL may well grant no more than the work itself needs
            return []
        return [key for key, kind in types if kind not in {b"none", b"string"}]

    async def heard(self, timeout_s: float) -> bool:
        """Wait for a push for up to `timeout_s`; return whether there is one to take."""
        if not self._changed and not self._is_flushed:
            await self._read(timeout_s)
        return bool(self._changed) or self._is_flushed

    async def take(self) -> tuple[list[bytes], bool]:
        """Return the keys that changed since the last call, and whether all keys went at once.

        Pushes that have arrived together are taken together.
        """
        while await self._connection.can_read():
            await self._read(CALL_TIMEOUT_S)
        taken, self._changed = list(self._changed), {}
        is_flushed, self._is_flushed = self._is_flushed, False
        return taken, is_flushed

    async def _call(self, *words: str | bytes | int, timeout_s: float = CALL_TIMEOUT_S) -> object:
        async with asyncio.timeout(timeout_s):
            await self._connection.send_command(*words, check_health=False)
        while True:
            reply = await self._read(timeout_s)
            if reply is None:
                raise TimeoutError(f"no answer to {words[0]!r} in {timeout_s} s")
            if reply is not _PUSHED:
                return reply

    async def _read(self, timeout_s: float) -> object:
        """Return the next reply, `_PUSHED`, or None when nothing came in time."""
        # push_request: the library else reads on by recursion, too deep for a burst of pushes.
        reply: object = await self._connection.read_response(timeout=timeout_s, push_request=True)
        return reply

    async def _on_push(self, push: list[object]) -> object:
        keys = push[1]
        if isinstance(keys, list):
            self._changed.update(dict.fromkeys(keys))
        else:
            self._is_flushed = True  # null: every key may have changed
        return _PUSHED
