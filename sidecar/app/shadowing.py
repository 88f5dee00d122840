"""The shadow tests of one worker, wired: who compares answers, and who tells the store of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.controller.accounts import Accounts
from sidecar.controller.comparing import Comparer
from sidecar.controller.publishing import Publisher

if TYPE_CHECKING:
    from sidecar.controller.trials import B, Copies
    from sidecar.model.limits import Limits
    from sidecar.runtime.clock import Clock
    from sidecar.store.base import Store
    from sidecar.store.live import LivePolicies
    from sidecar.store.pulse import Member
    from sidecar.telemetry.metrics import Metrics


class Shadowing:
    """What this worker finds out about shadow tests, from pairs of answers to stored tallies."""

    def __init__(self, limits: Limits, clock: Clock, metrics: Metrics) -> None:
        self._accounts = Accounts()
        self._clock = clock
        self._metrics = metrics
        share = limits.compare_cpu_share
        self.judge = Comparer(self._accounts, metrics, share, clock.monotonic_s)

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
