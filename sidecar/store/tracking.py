"""One connection on which Redis says which keys have changed (RESP3 client tracking)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from redis.exceptions import InvalidResponse, NoPermissionError, ReadOnlyError, ResponseError

from sidecar.policy.codec import MAX_DOCUMENT_BYTES
from sidecar.store.client import CALL_TIMEOUT_S, FOREIGN_ERRORS
from sidecar.store.document import NO_STRING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio.connection import AbstractConnection

    from sidecar.store.keys import Keys

_PROBE_MS: Final = 10_000  # longer than two pings are apart
_TAKEN: Final = 10_000  # pushes, each of which may tell of many keys: a tenth of a second
_TURN: Final = 100  # commands sent, and replies read, at once: about a millisecond
_PUSHED = object()  # what a read returns for a push, which the handler has taken


class Tracking(Protocol):
    """What a watch needs of a store: reports of changes, and reads that are as new as these.

    Every method may raise one of `FOREIGN_ERRORS`; it is of no use from then on.
    """

    async def open(self) -> None:
        """Connect and start tracking."""

    async def close(self) -> None:
        """Disconnect, whatever state it is in."""

    async def ping(self, timeout_s: float) -> None:
        """See that changes are reported; raises TimeoutError when none is in `timeout_s`."""

    async def scan(self, cursor: int, pattern: str, count: int) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the end) and some keys that match."""

    async def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys`, None for one that is gone or is no string.

        Of a document no more is read than tells that it is too large; one that is no string is
        `NO_STRING`, which serves nobody and takes nothing away.
        """

    async def has(self, key: str) -> bool:
        """Return whether a key exists, whatever its type."""

    def is_alone(self, key: str, others: Iterable[str]) -> bool:
        """Return whether `key` has a server of several for itself, without any of `others`."""

    async def wrong_types(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return those of `keys` that exist and are no string, although `values` gave None."""

    async def heard(self, timeout_s: float) -> bool:
        """Wait for a report for up to `timeout_s`; return whether there is one to take."""

    async def take(self) -> tuple[list[bytes], bool]:
        """Return the keys that changed since the last call, and whether all keys went at once."""


class TrackingConnection:
    """`Tracking` of one server: broadcast tracking of key prefixes, and reads on that connection.

    Because reads and pushes share one ordered stream, a value read after a push is at least as
    new as the change that the push told of. To see that pushes come it writes a key of its own,
    `probe`: a connection may answer and yet be deaf, and a demoted primary takes no writes.
    """

    def __init__(
        self, connection: AbstractConnection, keys: Keys, probe: str, *, can_mget: bool = True
    ) -> None:
        self._connection = connection
        self._prefixes = (*keys.watched, probe)
        self._document_prefix = keys.watched[0].encode()
        self._probe = probe.encode()
        self._can_mget = can_mget
        self._is_probed = False
        self._changed: dict[bytes, None] = {}  # a set that keeps the order
        self._is_flushed = False

    async def open(self) -> None:
        """Connect and start tracking."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            await self._connection.connect()  # type: ignore[no-untyped-call]
        # The only way to see pushes; without a handler the parser drops them.
        parser = self._connection._get_push_notifications_parser()  # noqa: SLF001
        parser.invalidation_push_handler_func = self._on_push
        words = [word for prefix in self._prefixes for word in ("PREFIX", prefix)]
        await self.call("CLIENT", "TRACKING", "ON", "BCAST", *words)

    async def close(self) -> None:
        """Disconnect, whatever state the connection is in."""
        with suppress(*FOREIGN_ERRORS):  # it is given up: how it ends is of no interest
            await self._connection.disconnect()

    async def ping(self, timeout_s: float) -> None:
        """See that changes are reported; raises TimeoutError when none is in `timeout_s`."""
        self._is_probed = False
        async with asyncio.timeout(timeout_s):
            try:
                await self.call("SET", self._probe, "", "PX", _PROBE_MS)
            except ReadOnlyError:
                raise
            except ResponseError:  # full disk or memory, an ACL: it lives and is read all the same
                return
            while not self._is_probed:
                await self._read(timeout_s)

    async def scan(self, cursor: int, pattern: str, count: int) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the end) and some keys that match."""
        reply = await self.call("SCAN", cursor, "MATCH", pattern, "COUNT", count)
        if not isinstance(reply, list) or len(reply) != 2:  # noqa: PLR2004 -- cursor and keys
            raise InvalidResponse(f"SCAN answered {type(reply).__name__}")
        return int(reply[0]), reply[1]

    async def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys`, None for one that is gone or is no string."""
        documents = [key for key in keys if key.startswith(self._document_prefix)]
        others = [key for key in keys if not key.startswith(self._document_prefix)]
        found = dict(zip(documents, await self._documents(documents), strict=True))
        found.update(zip(others, await self._strings(others), strict=True))
        return [found[key] for key in keys]

    async def has(self, key: str) -> bool:
        """Return whether a key exists, whatever its type."""
        return await self.call("EXISTS", key) == 1

    def is_alone(self, _key: str, _others: Iterable[str]) -> bool:
        """Return whether `key` has a server of several for itself: there is but one."""
        return False

    async def wrong_types(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return those of `keys` that exist and are no string, although `values` gave None."""
        if not keys:
            return []
        try:
            if await self.call("EXISTS", *keys) == 0:  # the common case: they are gone
                return []
            types = [(key, await self.call("TYPE", key)) for key in keys]
        except NoPermissionError:  # an ACL may well grant no more than the work itself needs
            return []
        return [key for key, kind in types if kind not in {b"none", b"string"}]

    async def heard(self, timeout_s: float) -> bool:
        """Wait for a push for up to `timeout_s`; return whether there is one to take.

        May be cancelled, which loses nothing.
        """
        if not self._changed and not self._is_flushed:
            await self._read(timeout_s)
        return bool(self._changed) or self._is_flushed

    async def take(self) -> tuple[list[bytes], bool]:
        """Return the keys that changed since the last call, and whether all keys went at once.

        Pushes that have arrived together are taken together, up to so many: somebody may write
        faster than they are read, and what has changed meanwhile has to take effect.
        """
        left = _TAKEN
        while left and await self._connection.can_read():
            await self._read(CALL_TIMEOUT_S)
            left -= 1
        taken, self._changed = list(self._changed), {}
        is_flushed, self._is_flushed = self._is_flushed, False
        return taken, is_flushed

    async def call(self, *words: str | bytes | int) -> object:
        """Return the reply to a command."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            await self._connection.send_command(*words, check_health=False)
        return await self._reply()

    async def _documents(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return documents, and of one that is too large a byte more than is allowed."""
        found = await self._calls([("GETRANGE", key, 0, MAX_DOCUMENT_BYTES) for key in keys])
        # Of what is empty the reply does not tell whether it is there.
        empty = [key for key, value in zip(keys, found, strict=True) if value == b""]
        there = await self._calls([("EXISTS", key) for key in empty])
        gone = {key for key, number in zip(empty, there, strict=True) if number == 0}
        values = [value if isinstance(value, bytes) else NO_STRING for value in found]
        return [None if key in gone else value for key, value in zip(keys, values, strict=True)]

    async def _strings(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        if not self._can_mget:
            # Not GET: the library says None for no value and for no answer in time alike.
            found = await self._calls([("MGET", key) for key in keys])
            return [value for reply in found for value in _list(reply, 1)]
        return _list(await self.call("MGET", *keys), len(keys))

    async def _calls(self, commands: Sequence[tuple[str | bytes | int, ...]]) -> list[object]:
        """Return the replies to commands, None for a key of a wrong type."""
        replies: list[object] = []
        for start in range(0, len(commands), _TURN):
            portion = commands[start : start + _TURN]
            packed = self._connection.pack_commands(portion)
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._connection.send_packed_command(packed, check_health=False)
            replies += [await self._string_reply() for _ in portion]
            await asyncio.sleep(0)  # what has arrived is read without a pause
        return replies

    async def _string_reply(self) -> object:
        try:
            return await self._reply()
        except ResponseError as e:
            if not str(e).startswith("WRONGTYPE"):
                raise
            return None

    async def _reply(self) -> object:
        clock = asyncio.get_running_loop().time
        late_s = clock() + CALL_TIMEOUT_S
        while True:
            reply = await self._read(CALL_TIMEOUT_S)
            # Reports may come all the time, and answers no more.
            if reply is None or (reply is _PUSHED and clock() > late_s):
                raise TimeoutError(f"no answer in {CALL_TIMEOUT_S:g} s")
            if reply is not _PUSHED:
                return reply

    async def _read(self, timeout_s: float) -> object:
        """Return the next reply, `_PUSHED`, or None when nothing came in time."""
        reply: object = await self._connection.read_response(
            timeout=timeout_s,
            # Else a read that is cancelled ends the connection. After an error whoever reads does.
            disconnect_on_error=False,
            # Else the library reads on by recursion, too deep for a burst of pushes.
            push_request=True,
        )
        return reply

    async def _on_push(self, push: list[object]) -> object:
        keys = push[1]
        if isinstance(keys, list):
            self._is_probed = self._is_probed or self._probe in keys
            self._changed.update(dict.fromkeys(key for key in keys if key != self._probe))
        else:
            self._is_flushed = True  # null: every key may have changed
        return _PUSHED


def _list(reply: object, size: int) -> list[bytes | None]:
    if not isinstance(reply, list) or len(reply) != size:
        raise InvalidResponse(f"MGET answered {type(reply).__name__}")
    return reply
