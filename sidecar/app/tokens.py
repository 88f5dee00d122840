"""Callers by their tokens, in a worker: keys, revocations, and what was verified, kept in step."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sidecar.app.spec import IDENTITIES, REVOCATIONS
from sidecar.identity.cache import MISSING, IdentityCache
from sidecar.identity.holding import decode
from sidecar.identity.issuers import Issuers
from sidecar.runtime import faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config import Config
    from sidecar.runtime.clock import Clock
    from sidecar.store.revocations import Revocations
    from sidecar.telemetry.metrics import Metrics

NOBODY: Final = f"{MISSING}, and nothing else that is believed here says who calls"
FORGET_S: Final = 0.02  # between two looks through all identities, each of which takes 1 ms
_LOOKUPS: Final = "rmv_identity_lookups_total", "outcome"


class Tokens:
    """What tells callers by their tokens: issuers, and the memory of what they said."""

    def __init__(
        self,
        config: Config,
        ask: Callable[[str], None],
        clock: Clock,
        revocations: Revocations,
    ) -> None:
        limits = config.limits
        self.issuers = Issuers(config.believed, ask, clock.monotonic_s)
        self.identities = IdentityCache(
            self.issuers,
            limits.identities,
            limits.token_bytes,
            revocations.is_revoked,
            NOBODY if config.callers.are_believed else MISSING,
        )
        self._revocations = revocations
        self._is_forgetting = False
        self._rests_until_s = 0.0  # of the loop's clock
        revocations.on_change = self._on_revoked

    def take(self, told: str) -> list[str]:
        """Learn of keys; return whose were looked at for tokens that wait."""
        is_changed, settled = self.issuers.take(decode(told))
        if is_changed:
            self.identities.renew(self.issuers)
        return settled

    def measure(self, metrics: Metrics) -> None:
        """Set the gauges, and the counters that the memory keeps."""
        memory = self.identities
        metrics.gauges[IDENTITIES] = len(memory)
        metrics.gauges[REVOCATIONS] = len(self._revocations)
        for outcome, number in (
            ("hit", memory.hits),
            ("miss", memory.misses),
            ("refused", memory.refused),
        ):
            metrics.events[*_LOOKUPS, outcome] = number
        if memory.too_long:
            metrics.events["rmv_limits_hit_total", "limit", "token"] = memory.too_long

    def _on_revoked(self) -> None:
        if not self._is_forgetting:
            self._is_forgetting = True
            asyncio.get_running_loop().call_at(self._rests_until_s, self._forget)

    def _forget(self) -> None:
        self._is_forgetting = False
        self._rests_until_s = asyncio.get_running_loop().time() + FORGET_S
        self._forget_now()

    def _forget_now(self) -> None:
        try:
            changes = self._revocations.take()
            self.identities.forget(changes.jtis, changes.tenants, is_lifted=changes.is_lifted)
        except Exception as error:  # noqa: BLE001 -- a token that was taken back is not to pass
            faults.note("revocations", error)
            self.identities.clear()
