"""Counters and histograms as plain integers; turned into Prometheus text only when asked.

A record's decision is one object per version and reason, with its hash cached, so that counting
an exchange is one dict access and a few additions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from sidecar.runtime import faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sidecar.model.decision import Decision
    from sidecar.model.record import ExchangeRecord

BUCKETS: Final = 28  # powers of two of a microsecond: 1 us to 67 s, the last is open
FIRST_SHOWN: Final = 7  # 128 us: nothing that crosses two sockets is faster
SERVER_ERROR: Final = 500
MAX_SERIES: Final = 10_000  # decisions counted apart; past that under one label, never unbounded


class Number:
    """How many there were."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Series:
    """What is counted for one model, version and reason."""

    __slots__ = ("first_byte", "first_byte_s", "latency", "latency_s", "outcomes")

    def __init__(self) -> None:
        self.outcomes: dict[tuple[int, str], Number] = {}  # by status and error code
        self.latency = [0] * BUCKETS
        self.latency_s = 0.0
        self.first_byte = [0] * BUCKETS
        self.first_byte_s = 0.0


class Metrics:
    """Everything this worker counts."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, str], Series] = {}
        self._by_decision: dict[Decision, Series] = {}
        self.events: Counter[tuple[str, ...]] = Counter()
        """Other counters: (name, label, value, label, value, ...)."""
        self.sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
        """Counters of what comes in parts, seconds or money, spelled like `events`."""
        self.gauges: dict[str, float] = {}
        self.levels: dict[tuple[str, ...], float] = {}
        """Gauges with labels, spelled like `events`."""

    def observe(self, records: Iterable[ExchangeRecord]) -> None:
        """Count finished exchanges."""
        for record in records:
            series = self._by_decision.get(record.decision) or self._find(record.decision)
            outcome = record.status, record.code
            number = series.outcomes.get(outcome)
            if number is None:
                number = series.outcomes[outcome] = Number()
            number.value += 1
            duration_s, first_byte_s = record.duration_s, record.first_byte_s
            series.latency[_bucket(duration_s)] += 1
            series.latency_s += duration_s
            if first_byte_s >= 0:
                series.first_byte[_bucket(first_byte_s)] += 1
                series.first_byte_s += first_byte_s

    def count(self, name: str, *labels: str) -> None:
        """Add one to a counter; `labels` are name, value, name, value."""
        self.events[name, *labels] += 1

    def totals(self) -> dict[str, int]:
        """Return how many exchanges were finished, and how many of these with a status of 5xx."""
        requests = errors = 0
        for series in self._series.values():
            for (status, _), number in series.outcomes.items():
                requests += number.value
                errors += number.value if status >= SERVER_ERROR else 0
        return {"requests": requests, "errors": errors}

    def exposition(self) -> str:
        """Return the Prometheus text format, version 0.0.4."""
        return "\n".join([*self._requests(), *self._histograms(), *self._others(), ""])

    def _find(self, decision: Decision) -> Series:
        if len(self._by_decision) >= MAX_SERIES:
            self._by_decision.clear()  # decisions of replaced policies; their series stay
        reason = decision.reason.partition(":")[0]
        key = decision.model, decision.version, reason
        if key not in self._series and len(self._series) >= MAX_SERIES:
            key = "other", "other", reason
        series = self._by_decision[decision] = self._series.setdefault(key, Series())
        return series

    def _requests(self) -> Iterator[str]:
        yield "# HELP rmv_requests_total Finished exchanges."
        yield "# TYPE rmv_requests_total counter"
        for (model, version, reason), series in self._series.items():
            for (status, code), number in series.outcomes.items():
                labels = _labels(
                    "model", model, "version", version, "reason", reason,
                    "status", str(status), "code", code,
                )  # fmt: skip
                yield f"rmv_requests_total{labels} {number.value}"

    def _histograms(self) -> Iterator[str]:
        yield "# HELP rmv_request_duration_seconds Last byte of the head in to last byte out."
        yield "# TYPE rmv_request_duration_seconds histogram"
        for key, series in self._series.items():
            yield from _histogram(
                "rmv_request_duration_seconds", key, series.latency, series.latency_s
            )
        yield "# HELP rmv_first_byte_seconds Last byte of the head in to first byte back."
        yield "# TYPE rmv_first_byte_seconds histogram"
        for key, series in self._series.items():
            yield from _histogram(
                "rmv_first_byte_seconds", key, series.first_byte, series.first_byte_s
            )

    def _others(self) -> Iterator[str]:
        counted: dict[tuple[str, ...], int] = dict(self.events)
        for part, number in faults.PROCESS.counted.items():
            counted[faults.FAULTS, "part", part] = number
        yield from _labelled("counter", {key: str(one) for key, one in counted.items()})
        yield from _labelled("counter", {key: f"{one:.6f}" for key, one in self.sums.items()})
        for name, value in sorted(self.gauges.items()):
            yield f"# TYPE {name} gauge"
            yield f"{name} {value:g}"
        yield from _labelled("gauge", {key: f"{one:g}" for key, one in self.levels.items()})


def _labelled(kind: str, samples: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    named = ""
    for (name, *labels), number in sorted(samples.items()):
        if name != named:
            named = name
            yield f"# TYPE {named} {kind}"
        yield f"{named}{_labels(*labels)} {number}"


def _bucket(seconds: float) -> int:
    return min(int(seconds * 1e6).bit_length(), BUCKETS - 1)


def _histogram(
    name: str, key: tuple[str, str, str], buckets: list[int], total_s: float
) -> Iterator[str]:
    base = ("model", key[0], "version", key[1], "reason", key[2])
    below = sum(buckets[:FIRST_SHOWN])
    for power in range(FIRST_SHOWN, BUCKETS - 1):
        below += buckets[power]
        yield f"{name}_bucket{_labels(*base, 'le', f'{2**power / 1e6:g}')} {below}"
    count = sum(buckets)
    yield f"{name}_bucket{_labels(*base, 'le', '+Inf')} {count}"
    yield f"{name}_sum{_labels(*base)} {total_s:.6f}"
    yield f"{name}_count{_labels(*base)} {count}"


def _labels(*pairs: str) -> str:
    names = zip(pairs[::2], pairs[1::2], strict=True)
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in names) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
