"""Takes documents into force beside the watch, which has to follow kills and pins meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sidecar.runtime.slices import in_slices
from sidecar.store.live import SMALL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.store.live import LivePolicies


class Loader:
    """Puts small documents at once, and large ones in slices of the loop's time, in their order.

    `taken` is told of each document and whether it serves.
    """

    def __init__(self, live: LivePolicies, taken: Callable[[str, bytes, bool], None]) -> None:
        self._live = live
        self._taken = taken
        self._waiting: dict[str, bytes] = {}  # by model; newest wins
        self._wake = asyncio.Event()

    def put(self, model: str, raw: bytes | None) -> None:
        """Take a document into force, now or soon; None removes the model.

        Whatever was put for the model before and is not in force will never be.
        """
        self._waiting.pop(model, None)
        if raw is not None and len(raw) > SMALL_BYTES:
            self._live.give_up(model)
            self._waiting[model] = raw
            self._wake.set()
            return
        serves = self._live.put_policy(model, raw)
        if raw is not None:
            self._taken(model, raw, serves)

    async def run(self) -> None:
        """Take large documents into force until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                model = next(iter(self._waiting))
                raw = self._waiting.pop(model)
                serves = await in_slices(self._live.taking(model, raw))
                self._taken(model, raw, serves)
