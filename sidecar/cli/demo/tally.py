"""What the answers to the tenants were, added up and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import ceil, isclose
from statistics import median

from sidecar.cli.demo.checkout import MODEL, Trained
from sidecar.cli.demo.client import OK, Answer
from sidecar.cli.demo.counters import Mirrors
from sidecar.cli.demo.screen import table

TOLERANCE = 1e-9  # of a probability: the containers add up in another order than scikit-learn
MALIGNANT_FROM = 0.5
_MAX_FAULTS = 5


class Tally:
    """The answers to one tenant."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.decisions: Counter[tuple[str, str]] = Counter()
        self.took_s: dict[str, list[float]] = {}
        self.rows: dict[str, list[int]] = {}  # numbers of rows, by the version that answered
        self.right = 0
        self.faults: list[str] = []

    @property
    def requests(self) -> int:
        """How many answers there were."""
        return self.decisions.total()

    def add(self, answer: Answer, row: int, label: int, trained: Mapping[str, Trained]) -> None:
        """Count an answer to the row of this number, and judge it."""
        self.decisions[answer.decision] += 1
        self.took_s.setdefault(answer.version, []).append(answer.took_s)
        if answer.status == OK:
            self.rows.setdefault(answer.version, []).append(row)
        fault = find_fault(answer, row, trained)
        if not fault:
            malignant = answer.inference().outputs[0].data[0] >= MALIGNANT_FROM
            self.right += malignant == bool(label)
        elif len(self.faults) < _MAX_FAULTS:
            self.faults.append(f"{self.tenant}, row {row}: {fault}")


def find_fault(answer: Answer, row: int, trained: Mapping[str, Trained]) -> str:
    """Return what is wrong with an answer; empty when it is the answer of the version it names."""
    if answer.status != OK:
        return f"status {answer.status}: {answer.body[:100].decode(errors='replace')}"
    if answer.version not in trained:
        return f"X-Model-Version is `{answer.version}`"
    said = answer.inference()
    if (said.model_name, said.model_version) != (MODEL, answer.version):
        return f"headers say {answer.version}, the body {said.model_name} {said.model_version}"
    probability = next((one.data for one in said.outputs if one.name == "probability"), ())
    if len(probability) != 1 or not 0 <= probability[0] <= 1:
        return f"not one probability: {probability}"
    expected = trained[answer.version].expected[row]
    if not isclose(probability[0], expected, rel_tol=0, abs_tol=TOLERANCE):
        return f"{answer.version} answers {expected}, not {probability[0]}"
    return ""


def show(tallies: Iterable[Tally], shadows: Mapping[str, Mirrors]) -> list[str]:
    """Return the live table: tenants, versions, copies."""
    tallies = list(tallies)
    return [*_tenants(tallies), "", *_versions(tallies, shadows)]


def _tenants(tallies: Iterable[Tally]) -> list[str]:
    rows = [
        (
            one.tenant,
            _shares(one),
            ", ".join(sorted({reason for _, reason in one.decisions})) or "-",
            str(one.requests),
            *_latency([s for took_s in one.took_s.values() for s in took_s]),
            f"{one.right}/{one.requests}",
        )
        for one in tallies
    ]
    return table("TENANT|VERSION|WHY|>REQUESTS|>P50 ms|>P95 ms|>RIGHT", rows)


def _shares(tally: Tally) -> str:
    versions: Counter[str] = Counter()
    for (version, _), number in tally.decisions.items():
        versions[version or "none"] += number
    shares = [f"{name} {100 * n / tally.requests:.0f} %" for name, n in versions.most_common()]
    return ", ".join(shares) or "-"


def _versions(tallies: Iterable[Tally], shadows: Mapping[str, Mirrors]) -> list[str]:
    took_s: dict[str, list[float]] = {}
    for one in tallies:
        for version, seconds in one.took_s.items():
            took_s.setdefault(version, []).extend(seconds)
    rows = []
    for version in sorted({*took_s, *shadows}):
        seconds = took_s.get(version, [])
        copies = shadows.get(version)
        rows.append(
            (
                version or "none",
                str(len(seconds)),
                *_latency(seconds),
                *(map(str, copies) if copies is not None else "---"),
            )
        )
    names = "VERSION|>ANSWERS|>P50 ms|>P95 ms|>COPIES ANSWERED|>DROPPED|>FAILED"
    return table(names, rows)


def _latency(took_s: list[float]) -> tuple[str, str]:
    if not took_s:
        return "-", "-"
    slow_s = sorted(took_s)[ceil(0.95 * len(took_s)) - 1]
    return f"{1e3 * median(took_s):.1f}", f"{1e3 * slow_s:.1f}"
