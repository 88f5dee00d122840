"""What one worker tells of itself to the other sidecars and to people."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.store.live import LivePolicies

REVISION: Final = "revision:"
FAULT: Final = "fault:"
UNREADY: Final = "unready:"
COUNT: Final = "count:"
REFUSED: Final = "refused:"
_LOOK_S: Final = 0.1  # at whether what was stale still is
_MAX_FAULT: Final = 500  # characters; the log has the rest


class Member(Struct, frozen=True):
    """One worker; `worker` tells those of one sidecar apart. Neither name may hold a colon."""

    sidecar: str
    worker: str
    program: str = ""
    started_s: float = 0.0


class Pulse:
    """What a worker has to tell, and when there is something new.

    `count` returns counters to tell with each beat, by name.
    """

    def __init__(
        self,
        member: Member,
        live: LivePolicies,
        count: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self.member = member
        self._live = live
        self._count = count
        self._noticed = asyncio.Event()
        self._was_stale = False

    def notice(self, _model: str) -> None:
        """Take note that the snapshot or the fault of a model has changed."""
        self._noticed.set()

    async def noticed(self, timeout_s: float) -> bool:
        """Wait for a change; return False when there was none in `timeout_s`."""
        clock = asyncio.get_running_loop().time
        until_s = clock() + timeout_s
        while not self._noticed.is_set():
            if self._was_stale and not self._live.is_stale:
                return True  # nothing else tells of that
            left_s = until_s - clock()
            if left_s <= 0:
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _LOOK_S) if self._was_stale else left_s):
                    await self._noticed.wait()
        self._noticed.clear()
        return True

    def state(self) -> dict[str, str]:
        """Return what is in force, as fields of the hash."""
        live, member = self._live, self.member
        self._was_stale = live.is_stale
        fields = {
            "sidecar": member.sidecar,
            "program": member.program,
            "started": str(int(member.started_s)),
            "is_stale": str(int(live.is_stale)),
        }
        for model, snapshot in live.snapshots.items():
            fields[REVISION + model] = str(snapshot.revision)
            if snapshot.unready:
                fields[UNREADY + model] = " ".join(sorted(snapshot.unready))
        for model, fault in live.faults.items():
            fields[FAULT + model] = fault[:_MAX_FAULT]
        if live.trust is not None:
            for cause, number in live.trust.refused().items():
                fields[REFUSED + cause] = str(number)
        for model in live.lost:
            fields[FAULT + model] = (
                "the store has lost it; the last known policy, pins and kills hold"
            )
        return fields

    def counters(self) -> dict[str, str]:
        """Return what is counted, as fields of the hash."""
        return {COUNT + name: str(number) for name, number in self._count().items()}
