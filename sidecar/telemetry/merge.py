"""One exposition out of those of several workers, of which some may be gone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

MAX_LINES: Final = 100_000  # of those that are gone: some 2,000 models, versions and reasons
_UNBOUNDED: Final = re.compile(r'\b(model|version|endpoint)="(?:[^"\\]|\\.)*"')


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


def counters(exposition: str) -> str:
    """Return an exposition without its gauges: what stays true of a worker that is gone."""
    return "\n".join([*_counters(exposition), ""])


class Ledger:
    """What workers have counted. Its counters never go down, whoever of them ends."""

    def __init__(self, shared: Collection[str] = (), max_lines: int = MAX_LINES) -> None:
        """Merge gauges named in `shared` as `merge` does.

        Once `max_lines` are kept of workers that are gone, what none of these has counted is
        added up under the label `other`, so that years of models and versions stay bounded.
        """
        self._shared = shared
        self._max_lines = max_lines
        self._last: dict[str, str] = {}  # by worker
        self._gone = ""

    def note(self, worker: str, exposition: str) -> None:
        """Take what a worker tells of itself now."""
        self._last[worker] = exposition

    def close(self, worker: str, exposition: str = "") -> None:
        """Take the last exposition of a worker that is gone; without one its newest counts."""
        last = self._last.pop(worker, "")
        counted = counters(exposition or last)
        # Asked once for all lines: a histogram has to be folded whole.
        if self._gone.count("\n") >= self._max_lines:
            counted = _folded(counted, set(map(_key, self._gone.split("\n"))))
        self._gone = merge([self._gone, counted])

    def exposition(self, up: Collection[str]) -> str:
        """Return the sum; of workers that are not in `up`, what they had counted when last seen."""
        last = self._last.items()
        here = (text if worker in up else counters(text) for worker, text in last)
        return merge([self._gone, *here], self._shared)


def _counters(exposition: str) -> Iterator[str]:
    is_counter = False
    for line in filter(None, exposition.split("\n")):
        if line.startswith("# TYPE "):
            is_counter = not line.endswith(" gauge")
        if is_counter or line.startswith("# HELP "):
            yield line


def _folded(exposition: str, known: Collection[str]) -> str:
    return "\n".join(
        line if line[:1] == "#" or _key(line) in known else _UNBOUNDED.sub(r'\1="other"', line)
        for line in exposition.split("\n")
    )


def _key(line: str) -> str:
    return line.rpartition(" ")[0]


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else f"{value:.6f}"
