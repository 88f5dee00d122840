"""Deterministic placement: which arm a unit falls to, and whether it is in a sample.

Keyed BLAKE2b-64 over length-prefixed parts, so that placement is the same in every process, and
knowing one placement (of a split, a sample, an admission) says nothing about another.
Golden vectors in `tests/policy/golden/` fix it: a change moves callers between versions.
"""

from __future__ import annotations

from hashlib import blake2b
from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SPLIT_KEY = b"rmv.split.1"
SHADOW_KEY = b"rmv.shadow.1"
ADMISSION_KEY = b"rmv.admission.1"  # reserved

_SPACE = 1 << 64
_UNIT = 2.0**-64  # a power of two: multiplying by it rounds nothing
_LENGTH_BYTES = 4
_INFINITY = float("inf")


def prefixed(part: bytes) -> bytes:
    """Put a part's length before it, big-endian, so that no two lists of parts read the same."""
    return len(part).to_bytes(_LENGTH_BYTES, "big") + part


class Rendezvous:
    """Weighted rendezvous between the arms of one split (highest random weight).

    Each arm draws its own number for a unit; a weight stretches it. So the order of arms is
    nothing, an arm that grows only gains units, and one that goes leaves its units to the others.
    """

    __slots__ = ("_arms", "_only")

    def __init__(self, arms: Mapping[str, int], split_id: str) -> None:
        """Take weights by arm; arms of weight 0 get nothing.

        Raises:
            ValueError: no arm has weight.
        """
        weighted = sorted((name, weight) for name, weight in arms.items() if weight > 0)
        if not weighted:
            raise ValueError(f"split {split_id}: the weights sum to zero")
        start = prefixed(split_id.encode())
        # The hash has taken in all but the unit: copying it is cheaper than starting anew.
        self._arms = tuple(
            (name, blake2b(start + prefixed(name.encode()), digest_size=8, key=SPLIT_KEY), weight)
            for name, weight in weighted
        )
        self._only = weighted[0][0] if len(weighted) == 1 else None

    def choose(self, unit: bytes) -> str:
        """Return the arm that `unit` falls to."""
        if self._only is not None:
            return self._only
        part = prefixed(unit)
        best, chosen = _INFINITY, ""
        for name, start, weight in self._arms:
            state = start.copy()
            state.update(part)
            drawn = int.from_bytes(state.digest(), "big")
            score = -log((drawn + 0.5) * _UNIT) / weight
            if score < best:
                best, chosen = score, name
        return chosen


class Sampler:
    """Whether units are in a sample of some percent; a greater percent only adds units."""

    __slots__ = ("_limit", "_start")

    def __init__(self, shadow_id: str, percent: float) -> None:
        self._limit = int(percent * _SPACE / 100)
        self._start = blake2b(prefixed(shadow_id.encode()), digest_size=8, key=SHADOW_KEY)

    def sampled(self, unit: bytes) -> bool:
        """Return whether `unit` is in the sample."""
        state = self._start.copy()
        state.update(prefixed(unit))
        return int.from_bytes(state.digest(), "big") < self._limit


def choose(arms: Mapping[str, int], split_id: str, unit: bytes) -> str:
    """Return the arm of a split that `unit` falls to.

    Raises:
        ValueError: no arm has weight.
    """
    return Rendezvous(arms, split_id).choose(unit)


def sampled(shadow_id: str, unit: bytes, percent: float) -> bool:
    """Return whether `unit` is among the `percent` that a shadow takes."""
    return Sampler(shadow_id, percent).sampled(unit)
