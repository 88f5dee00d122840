"""The shadow tests of one worker, wired: who compares answers, and who tells the store of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sidecar.controller.accounts import Accounts
from sidecar.controller.publishing import Publisher
from sidecar.model.shadow import Uncompared
from sidecar.runtime import faults

if TYPE_CHECKING:
    from sidecar.controller.comparing import Comparer
    from sidecar.controller.trials import B, Copies, Trial
    from sidecar.model.limits import Limits
    from sidecar.runtime.clock import Clock
    from sidecar.store.base import Store
    from sidecar.store.live import LivePolicies
    from sidecar.store.pulse import Member
    from sidecar.telemetry.metrics import Metrics

MAX_WAITING: Final = 256  # pairs, while who compares them is loaded: as many as he has wait


class Shadowing:
    """What this worker finds out about shadow tests, from pairs of answers to stored tallies.

    Who compares is loaded with the first pair, in a thread: most workers never need these 1.5 MB.
    """

    def __init__(self, limits: Limits, clock: Clock, metrics: Metrics) -> None:
        self._accounts = Accounts()
        self._clock = clock
        self._metrics = metrics
        self._share = limits.compare_cpu_share
        self._comparer: Comparer | None = None
        self._loading: asyncio.Future[type[Comparer]] | None = None
        self._waiting: list[Trial] = []
        self._has_failed = False

    def take(self, trial: Trial) -> None:
        """Have a trial judged; this is the `Judge` of the data plane."""
        if self._comparer is not None:
            self._comparer.take(trial)
            return
        if self._has_failed:
            _pass_over(trial, Uncompared.FAULT)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(trial)
        else:
            _pass_over(trial, Uncompared.BUDGET)
        if self._loading is None:
            self._loading = asyncio.get_running_loop().run_in_executor(None, _load)
            self._loading.add_done_callback(self._begin)

    async def close(self) -> None:
        """Judge no more; what is left is counted."""
        if self._loading is not None:
            await asyncio.wait([self._loading])
            self._begin(self._loading)
        if self._comparer is not None:
            await self._comparer.close()

    def publisher(
        self, store: Store, copies: Copies[B], live: LivePolicies, member: Member
    ) -> Publisher[B]:
        """Return what tells `store` of the tests that `copies` are sent for."""
        return Publisher(
            store,
            self._accounts,
            copies,
            live,
            worker=f"{member.sidecar}/{member.worker}",
            clock=self._clock,
            metrics=self._metrics,
        )

    def _begin(self, loading: asyncio.Future[type[Comparer]]) -> None:
        """Judge what waits, once who compares is loaded; later calls do nothing.

        Where he cannot be, as with a module that is gone, nothing is compared in this worker.
        """
        if self._comparer is not None or self._has_failed:
            return
        waiting, self._waiting = self._waiting, []
        try:
            make = loading.result()
        except Exception as error:  # noqa: BLE001 -- whatever it is, the pairs have to be counted
            faults.note("comparing", error)
            self._has_failed = True
            for trial in waiting:
                _pass_over(trial, Uncompared.FAULT)
            return
        self._comparer = make(self._accounts, self._metrics, self._share, self._clock.monotonic_s)
        for trial in waiting:
            self._comparer.take(trial)


def _pass_over(trial: Trial, cause: Uncompared) -> None:
    if trial.shadow.is_whole:  # else it is counted already
        trial.book.pass_over(cause.value)
    trial.release()


def _load() -> type[Comparer]:
    from sidecar.controller.comparing import Comparer  # noqa: PLC0415 -- see `Shadowing`

    return Comparer
