"""Takes documents into force beside the watch, which has to follow kills and pins meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sidecar.policy.steps import until
from sidecar.runtime import faults
from sidecar.runtime.slices import Slice, in_slices
from sidecar.store.live import SMALL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.store.live import LivePolicies

AT_ONCE_S: Final = 0.02  # of the loop's time for one small document, which mostly takes 1 ms


class Loader:
    """Puts small documents at once, and others in slices of the loop's time, in their order.

    `taken` is told of each document and whether it serves. Small is what is also soon done: a few
    expressions may take as long as ten thousand rules.
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
        if raw is None:
            self._live.put_policy(model, None)
            return
        serves = self._at_once(model, raw) if len(raw) <= SMALL_BYTES else None
        if serves is not None:
            self._taken(model, raw, serves)
            return
        self._live.give_up(model)
        self._waiting[model] = raw
        self._wake.set()

    def _at_once(self, model: str, raw: bytes) -> bool | None:
        """Take a document into force; None if that takes long, and it is not done then."""
        self._live.give_up(model)
        turn = Slice(AT_ONCE_S)
        return until(self._live.taking(model, raw), turn.is_over)

    async def run(self) -> None:
        """Take large documents into force until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                model = next(iter(self._waiting))
                raw = self._waiting.pop(model)
                try:
                    serves = await in_slices(self._live.taking(model, raw))
                    self._taken(model, raw, serves)
                except Exception as error:  # noqa: BLE001 -- the next reload has it again
                    faults.note("policies", error, model=model)
