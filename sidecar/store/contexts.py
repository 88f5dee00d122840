"""The contexts of a model in Redis: a stream, bounded in length and in age."""

from __future__ import annotations

import asyncio
import logging
from itertools import groupby
from typing import TYPE_CHECKING, Final

from sidecar.errors import StoreUnavailableError, WrongTypeError
from sidecar.model.context import Context
from sidecar.runtime.tasks import repeat
from sidecar.store.ring import Ring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

    from sidecar.model.context import ContextSettings
    from sidecar.store.base import Store
    from sidecar.store.keys import Keys
    from sidecar.telemetry.metrics import Metrics
    from sidecar.telemetry.sampler import Sampler

INTERVAL_S: Final = 1.0  # the second of `per_second`
_log = logging.getLogger("sidecar.store")


class ContextRing:
    """Reads and writes these streams; an entry has one field, `context`, which is JSON."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._ring = Ring(redis, "context", Context, page=500)  # of some hundred bytes each
        self._keys = keys

    async def add(self, model: str, contexts: Sequence[Context], settings: ContextSettings) -> None:
        """Add contexts of one model; the oldest make room.

        Raises:
            StoreUnavailableError: Redis did not answer; some may have been added.
        """
        await self._ring.add(
            self._keys.contexts(model),
            contexts,
            keep=settings.per_model,
            keep_s=settings.keep_s,
            now_s=max(one.at_s for one in contexts),
        )

    def newest(self, model: str) -> AsyncIterator[Context | None]:
        """Iterate over the contexts of a model, newest first; None is an entry that is none.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        return self._ring.newest(self._keys.contexts(model))


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
        await repeat(self._turn, part="contexts")

    async def _turn(self) -> None:
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
