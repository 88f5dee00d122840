"""One exposition out of those of several workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def merge(expositions: Iterable[str], shared: Collection[str] = ()) -> str:
    """Add up samples of the same name and labels; comments are kept once, in their place.

    Of the gauges named in `shared`, which tell in each exposition of the same thing, the largest
    is kept instead.
    """
    samples: dict[str, float] = {}
    comments: set[str] = set()
    order: dict[str, list[str]] = {}  # family -> its comments and sample keys
    family = ""
    for exposition in expositions:
        for line in filter(None, exposition.split("\n")):  # labels may hold other line ends
            if line.startswith("#"):
                family = line.split()[2]
                if line not in comments:
                    comments.add(line)
                    order.setdefault(family, []).append(line)
                continue
            key, _, value = line.rpartition(" ")
            if key not in samples:
                order.setdefault(family, []).append(key)
            known, number = samples.get(key, 0.0), float(value)
            is_shared = key.partition("{")[0] in shared
            samples[key] = max(known, number) if is_shared else known + number
    lines = [
        line if line.startswith("#") else f"{line} {_number(samples[line])}"
        for entries in order.values()
        for line in entries
    ]
    return "\n".join([*lines, ""])


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else f"{value:.6f}"
