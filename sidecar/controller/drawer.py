"""Pairs that disagree, until they are stored: few of them, however many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidecar.model.shadow import Evidence

PER_S: Final = 5.0  # pairs of one shadow, however many differ
MAX_WAITING: Final = 50  # pairs of one shadow that are not stored yet: ten seconds of them
MAX_WAITING_BYTES: Final = 2 * 1024 * 1024  # of their bodies, before the last of them
EVIDENCE: Final = "rmv_shadow_evidence_total"


class Drawer:
    """Pairs of one shadow that wait for the store, and how many there may be."""

    def __init__(self) -> None:
        self.keep = 0
        """How many pairs the policy has the store keep."""
        self._waiting: list[Evidence] = []
        self._bytes = 0
        self._credit = PER_S
        self._at_s = 0.0

    def has_room(self, now_s: float) -> bool:
        """Return whether a pair may be put in; `now_s` is monotonic."""
        passed_s, self._at_s = now_s - self._at_s, now_s
        self._credit = min(PER_S, self._credit + passed_s * PER_S)
        is_full = len(self._waiting) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES
        return self._credit >= 1 and not is_full

    def put(self, evidence: Evidence, keep: int) -> None:
        """Have a pair wait, for which there was room."""
        self._credit -= 1
        self.keep = keep
        self._bytes += _size(evidence)
        self._waiting.append(evidence)

    @property
    def waiting(self) -> tuple[Evidence, ...]:
        """The pairs that wait, the oldest first."""
        return tuple(self._waiting)

    def drop(self, number: int) -> None:
        """Let go of the oldest pairs."""
        self._bytes -= sum(map(_size, self._waiting[:number]))
        del self._waiting[:number]


def _size(evidence: Evidence) -> int:
    return len(evidence.request_body) + len(evidence.primary_body) + len(evidence.shadow_body)
