"""The contexts of a model in Redis: a stream, bounded in length and in age."""

from __future__ import annotations

import asyncio
import logging
from itertools import groupby
from typing import TYPE_CHECKING, Final

import msgspec
from redis.exceptions import RedisError

from sidecar.errors import StoreUnavailableError, WrongTypeError
from sidecar.model.context import Context
from sidecar.store.client import bounded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

    from sidecar.model.context import ContextSettings
    from sidecar.store.base import Store
    from sidecar.store.keys import Keys
    from sidecar.telemetry.metrics import Metrics
    from sidecar.telemetry.sampler import Sampler

INTERVAL_S: Final = 1.0  # the second of `per_second`
_PAGE: Final = 500  # entries, some hundred bytes each
_FIELD: Final = b"context"
_log = logging.getLogger("sidecar.store")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Context).decode


class ContextRing:
    """Reads and writes these streams; an entry has one field, `context`, which is JSON."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def add(self, model: str, contexts: Sequence[Context], settings: ContextSettings) -> None:
        """Add contexts of one model; the oldest make room.

        Raises:
            StoreUnavailableError: Redis did not answer; some may have been added.
        """
        key = self._keys.contexts(model)
        pipeline = self._redis.pipeline(transaction=False)
        for context in contexts:
            # About as many: to the very entry would have the server split a block each time.
            pipeline.xadd(
                key, {_FIELD: _encode(context)}, maxlen=settings.per_model, approximate=True
            )
        # Those who write keep the stream alive, so its older entries have to go by themselves.
        oldest_s = max(0.0, max(one.at_s for one in contexts) - settings.keep_s)
        pipeline.xtrim(key, minid=f"{int(oldest_s * 1000)}", approximate=False)
        pipeline.expire(key, settings.keep_s)
        async with bounded(key):
            replies = await pipeline.execute(raise_on_error=False)
            for reply in replies:
                # Redis before 6.2 cannot trim by age: there only MAXLEN bounds a busy stream.
                if isinstance(reply, RedisError) and "syntax error" not in str(reply):
                    raise reply

    async def newest(self, model: str) -> AsyncIterator[Context | None]:
        """Iterate over the contexts of a model, from the newest entry to the oldest.

        None stands for an entry that is no context: anybody may have added it.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        key = self._keys.contexts(model)
        last = "+"
        while True:
            async with bounded(key):
                page = await self._redis.xrevrange(key, max=last, count=_PAGE) or ()
            for at, fields in page:
                if (before := _text(at)) == last:
                    continue  # of the page before: Redis 6.0 knows no open interval
                last = before
                raw = (fields or {}).get(_FIELD)
                yield None if raw is None else _read(raw)
            if len(page) < _PAGE:
                return


class ContextWriter:
    """Moves contexts from a worker's sampler into the store; what it cannot move is lost.

    A store that does not answer delays nobody: no more is taken until the sampler is drained.
    """

    def __init__(
        self, store: Store, sampler: Sampler, settings: ContextSettings, metrics: Metrics
    ) -> None:
        self._store = store
        self._sampler = sampler
        self._settings = settings
        self._metrics = metrics
        self._is_failing = False

    async def run(self) -> None:
        """Move them every second until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.flush()

    async def flush(self) -> None:
        """Move what has been taken."""
        taken = self._sampler.drain()
        written = 0
        failure: StoreUnavailableError | None = None
        for model, contexts in groupby(taken, key=lambda one: one.model):
            batch = tuple(contexts)
            try:
                await self._store.add_contexts(model, batch, self._settings)
            except WrongTypeError as error:  # the key of this model alone
                failure = error
            except StoreUnavailableError as error:
                failure = error
                break
            else:
                written += len(batch)
        if failure is not None and not self._is_failing:  # once: the policy watch tells how long
            _log.warning("contexts are lost", extra={"reason": str(failure)})
        self._is_failing = failure is not None or (self._is_failing and not taken)
        self._count("kept", written)
        self._count("lost", len(taken) - written)

    def _count(self, outcome: str, number: int) -> None:
        if number:
            self._metrics.events["rmv_contexts_total", "outcome", outcome] += number


def _read(raw: bytes | str) -> Context | None:
    try:
        return _decode(raw)
    except (msgspec.DecodeError, RecursionError):  # the latter of lists in lists without end
        return None


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or "0"
