"""Samples in Redis: a stream for each thing they are of, bounded in length and in age."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec
from redis.exceptions import RedisError

from sidecar.store.client import bounded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

T = TypeVar("T")
_encode: Final = msgspec.json.Encoder().encode


class Ring(Generic[T]):
    """Reads and writes such streams; an entry has one field, which is JSON of one type."""

    def __init__(self, redis: Redis, field: str, kind: type[T], *, page: int) -> None:
        """Read `page` entries at a time; each has `field`, which holds a `kind`."""
        self._redis = redis
        self._field = field.encode()
        self._decoder = msgspec.json.Decoder(kind)
        self._page = page

    async def add(
        self, key: str, samples: Sequence[T], *, keep: int, keep_s: int, now_s: float
    ) -> None:
        """Add samples; about `keep` of them stay, none for longer than `keep_s` seconds.

        Raises:
            StoreUnavailableError: Redis did not answer; some may have been added.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for sample in samples:
            # About as many: to the very entry would have the server split a block each time.
            pipeline.xadd(key, {self._field: _encode(sample)}, maxlen=keep, approximate=True)
        # Those who write keep the stream alive, so its older entries have to go by themselves.
        oldest_s = max(0.0, now_s - keep_s)
        pipeline.xtrim(key, minid=f"{int(oldest_s * 1000)}", approximate=False)
        pipeline.expire(key, keep_s)
        async with bounded(key):
            replies = await pipeline.execute(raise_on_error=False)
            for reply in replies:
                # Redis before 6.2 cannot trim by age: there only MAXLEN bounds a busy stream.
                if isinstance(reply, RedisError) and "syntax error" not in str(reply):
                    raise reply

    async def newest(self, key: str) -> AsyncIterator[T | None]:
        """Iterate over the samples, from the newest entry to the oldest.

        None stands for an entry that is none: anybody may have added it.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        last = "+"
        while True:
            async with bounded(key):
                page = await self._redis.xrevrange(key, max=last, count=self._page) or ()
            for at, fields in page:
                if (before := _text(at)) == last:
                    continue  # of the page before: Redis 6.0 knows no open interval
                last = before
                raw = (fields or {}).get(self._field)
                yield None if raw is None else self._read(raw)
            if len(page) < self._page:
                return

    def _read(self, raw: bytes | str) -> T | None:
        try:
            return self._decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError):  # the latter of lists in lists without end
            return None


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or "0"
