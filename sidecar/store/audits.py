"""Entries of audit in Redis: one stream for all writers, bounded in length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.store.client import bounded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

    from sidecar.store.keys import Keys

_FIELD: Final = b"entry"
_PAGE: Final = 1000  # entries, half a kilobyte each


class AuditStream:
    """Reads and writes the stream; an entry has one field, `entry`, which is a line of JSON.

    Who may only XADD can write: nothing is asked of the server before.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._key = keys.audit

    async def exists(self) -> bool:
        """Return whether anything has been audited here.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        async with bounded():
            return bool(await self._redis.exists(self._key))

    async def add(self, lines: Sequence[bytes], keep: int) -> None:
        """Add lines in this order; of more than `keep` the oldest may go, of fewer none.

        Raises:
            StoreUnavailableError: Redis did not answer; some may have been added.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for line in lines:
            # About as many, never fewer: to the very entry would split a block of it each time.
            pipeline.xadd(self._key, {_FIELD: line}, maxlen=keep, approximate=True)
        async with bounded(self._key):
            await pipeline.execute()

    async def read(self, after: str = "") -> AsyncIterator[tuple[str, bytes]]:
        """Iterate over ids and lines, the oldest first, from the one after the id `after`.

        A line is empty where an entry is not of this program.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        while True:
            async with bounded(self._key):
                page = await self._redis.xrange(self._key, min=after or "-", count=_PAGE) or ()
            for at, fields in page:
                if (before := _text(at)) == after:
                    continue  # of the page before: Redis 6.0 knows no open interval
                after = before
                line = (fields or {}).get(_FIELD, b"")
                yield after, line.encode() if isinstance(line, str) else line
            if len(page) < _PAGE:
                return


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or "0"
