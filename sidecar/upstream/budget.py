"""How often requests may be sent again: retries must not multiply the load on what is failing."""

from __future__ import annotations

from typing import Final

SHARE: Final = 0.2  # retries for each request; Envoy's and Linkerd's default
RESERVE: Final = (
    10.0  # so that a service with few requests may retry at all; Linkerd's is 10 a second
)
WINDOW_S: Final = 10.0  # how long a request counts; Linkerd's default


class RetryBudget:
    """Earned by requests, spent by retries; what is not spent drifts back to the reserve.

    A caller adds one to `requests` for each: no clock and no call on the way of a request.
    """

    def __init__(self) -> None:
        self.requests = 0  # not yet turned into retries
        self._retries = RESERVE

    def spend(self) -> bool:
        """Take one retry; return whether there was one left."""
        self._earn()
        if self._retries < 1.0:
            return False
        self._retries -= 1.0
        return True

    def sweep(self, passed_s: float) -> None:
        """Let `passed_s` go by."""
        self._earn()
        self._retries += (RESERVE - self._retries) * min(1.0, passed_s / WINDOW_S)

    def _earn(self) -> None:
        self._retries += SHARE * self.requests
        self.requests = 0
