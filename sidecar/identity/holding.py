"""What a worker is told of the keys of an issuer."""

from __future__ import annotations

import msgspec
from msgspec import Struct


class Holding(Struct, frozen=True):
    """The keys of one issuer, and whether more may come.

    `settled` counts the looks that were taken for keys that nobody knew: when it has changed,
    whoever waited for such a look has waited long enough. There is none for `rests_s`.
    """

    issuer: str
    jwks: str = ""  # as `KeySet.spelled` has it; empty when there are none
    left_out: dict[str, str] = {}  # reasons by kid
    is_closed: bool = False  # there were keys, and they are too old to be believed
    settled: int = 0
    rests_s: float = 0.0


def encode(holdings: tuple[Holding, ...]) -> str:
    """Spell holdings in one line."""
    return msgspec.json.encode(holdings).decode()


def decode(text: str) -> tuple[Holding, ...]:
    """Read what `encode` has spelled."""
    return msgspec.json.decode(text, type=tuple[Holding, ...])
