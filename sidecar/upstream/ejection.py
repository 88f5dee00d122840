"""How long an endpoint that keeps failing is left alone."""

from __future__ import annotations

from typing import Final

MAX_FAILURES: Final = 5  # in a row; Envoy's default, as is the shortest time
SHORTEST_S: Final = 10.0
LONGEST_S: Final = 300.0
FORGIVEN_S: Final = 300.0  # in service for so long, and the next ejection is the shortest again


class Ejection:
    """The ejections of one endpoint: each is twice as long as the one before."""

    def __init__(self) -> None:
        self.until_s = 0.0  # monotonic
        self.lasts_s = 0.0  # the one in force, or the last

    def begin(self, now_s: float) -> None:
        """Eject from now on."""
        is_forgiven = now_s - self.until_s >= FORGIVEN_S
        is_first = is_forgiven or not self.lasts_s
        self.lasts_s = SHORTEST_S if is_first else min(2 * self.lasts_s, LONGEST_S)
        self.until_s = now_s + self.lasts_s
