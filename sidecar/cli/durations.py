"""Durations as operators write and read them: `30s`, `15m`, `1h`, `2d`; and moments."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_UNITS_S = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:[0-9]+[dhms])+")
MAX_S = 10 * 365 * 86_400  # longer is no term but a typing error


def parse(text: str) -> float:
    """Read a duration (`90s`, `1h30m`) as seconds; ValueError says how to write one."""
    if not _DURATION.fullmatch(text):
        msg = f"`{text}` is not a duration: write 30s, 15m, 1h, 2d or 1h30m"
        raise ValueError(msg)
    seconds = sum(int(part[:-1]) * _UNITS_S[part[-1]] for part in re.findall(r"[0-9]+[dhms]", text))
    if not 0 < seconds <= MAX_S:
        msg = (
            f"`{text}` is not a duration that can be used: it must be more than 0, at most 10 years"
        )
        raise ValueError(msg)
    return float(seconds)


def spell(seconds: float) -> str:
    """Write seconds in the two largest units that matter: `1h30m`, `2d`, `<1s`."""
    left = round(seconds)
    if left < 1:
        return "<1s"
    parts: list[str] = []
    for unit, size_s in _UNITS_S.items():
        count, left = divmod(left, size_s)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return "".join(parts[:2])


def clock(at_s: float, timespec: str = "seconds") -> str:
    """Write epoch seconds as `2026-11-23T13:00:00Z`; as the number if no calendar has that day."""
    try:
        moment = datetime.fromtimestamp(at_s, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{at_s:g}"
    return moment.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"
