"""How numbers, times and foreign names are spelled for people."""

from __future__ import annotations

from datetime import UTC, datetime
from math import floor, inf, log10
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.shadow.sequence import Interval

_BYTES: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")
_LAST_S: Final = 253_402_300_799  # of the year 9999


def percent(share: float) -> str:
    """Return a share in percent, with as many digits as tell it from none and from all."""
    number = 100 * share
    rest = min(abs(number), abs(100 - number))
    digits = 2 if rest >= 0.01 or not rest else min(1 - floor(log10(rest)), 9)  # noqa: PLR2004
    spelled = f"{number:.{digits}f}".rstrip("0").rstrip(".")
    return "0%" if spelled == "-0" else f"{spelled}%"


def part(number: float, of: float) -> str:
    """Return how much of something something is, roughly: `94%`."""
    share = 100 * number / of if of else 0.0
    if share == round(share) or 10 <= share <= 90:  # noqa: PLR2004  # further digits tell nothing
        return f"{share:.0f}%"
    return f"{share:.2g}%" if share < 10 else f"{share:.4g}%"  # noqa: PLR2004


def points(share: float) -> str:
    """Return a difference of two shares, in percentage points and with its sign: `+1.2 pp`."""
    return f"{'+' if share > 0 else ''}{percent(share).removesuffix('%')} pp"


def times(number: float) -> str:
    """Return a factor: `1.07x`."""
    return f"{number:.3g}x"


def seconds(number: float) -> str:
    """Return a time in the unit that a person would use: `12.3 ms`."""
    for unit, least in (("s", 1.0), ("ms", 1e-3)):
        if abs(number) >= least:
            return f"{number / least:.4g} {unit}"
    return f"{number * 1e6:.3g} µs"


def size(number: int) -> str:
    """Return a size in the unit that a person would use: `1 MiB`."""
    unit = min(max(number.bit_length() - 1, 0) // 10, len(_BYTES) - 1)
    return f"{number / (1 << 10 * unit):.4g} {_BYTES[unit]}"


def number(value: float) -> str:
    """Return a number with four digits that tell."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def moment(at_s: float) -> str:
    """Return when it was, in UTC: `2026-11-23 10:00`."""
    return datetime.fromtimestamp(min(max(at_s, 0.0), _LAST_S), UTC).strftime("%Y-%m-%d %H:%M")


def between(interval: Interval, spell: Callable[[float], str]) -> str:
    """Return an interval: `1.2% to 3.4%`."""
    low, high = interval
    if high == inf:
        return f"{spell(low)} or more" if low > 0 else "not known"
    return f"{spell(low)} to {spell(high)}"


def plain(text: str, limit: int = 120) -> str:
    """Return a foreign text on one line, cut, with what cannot be seen spelled out."""
    seen = "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text[:limit])
    return seen + "..." if len(text) > limit else seen
