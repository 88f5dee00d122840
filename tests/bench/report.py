"""Records, one JSON line each, and their Markdown: medians, and the subject over each peer."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.wrk import Figures

COLUMNS = "proxy|req/s|min-max|CPU µs/req|MB/s|p50 ms|p99 ms|RSS MB|HWM MB|CPU 0 / 1|foreign 0 / 1"
RATIOS = "subject / peer|req/s|CPU µs/req|p50|rounds"
NEARLY_FULL = 0.8  # of a CPU
Pair = tuple[float, float]


@dataclass
class Record:
    """One proxy in one round of one item.

    Pairs are shares of CPU 0, the proxy's, and of CPU 1, the load's. Any fault keeps the record
    out of every figure.
    """

    item: str
    proxy: str
    round: int
    is_subject: bool
    note: str = ""
    faults: list[str] = field(default_factory=list)
    requests: int = 0
    rps: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    mb_s: float = 0.0
    cpu_us: float = 0.0  # of the proxy and its children, for one request
    cpu: Pair = (0.0, 0.0)  # used by the proxy, by the load
    foreign: Pair = (0.0, 0.0)  # used by anybody else
    rss_mb: float = 0.0
    hwm_mb: float = 0.0
    boot_s: float = 0.0  # from the start to the first 200
    copies: tuple[int, int] | None = None  # requests at v1 + v2, copies at shadow

    def take(self, figures: Figures, payload_bytes: int) -> None:
        self.requests, self.rps = figures.requests, figures.rps
        self.p50_ms, self.p99_ms = figures.p50_ms, figures.p99_ms
        self.mb_s = figures.rps * payload_bytes / 1e6
        self.faults += figures.faults

    def label(self) -> str:
        if self.is_subject:
            return f"**{self.proxy}**"
        return f"{self.proxy}: {self.note}" if self.note else self.proxy

    def line(self) -> str:
        parts = [
            f"{self.item} round {self.round} {self.proxy}: {self.rps:.0f} req/s",
            f"{self.cpu_us:.1f} µs/req",
            f"p50 {self.p50_ms:.3f} ms",
            f"p99 {self.p99_ms:.3f} ms",
            f"foreign {shares(self.foreign)}",
        ]
        if self.copies:
            parts.append(f"{self.copies[1]} copies of {self.copies[0]}")
        return ", ".join(parts + [f"FAULT: {fault}" for fault in self.faults])


def write_heading(file: Path, heading: str) -> None:
    file.write_text(json.dumps({"run": heading}) + "\n")


def write(file: Path, record: Record) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(asdict(record)) + "\n")


def markdown(file: Path) -> str:
    """The report of one run, items in the order they were run."""
    heading, *lines = [json.loads(line) for line in file.read_text().splitlines()]
    records = [Record(**line) for line in lines]
    parts = [heading["run"]]
    for item in dict.fromkeys(record.item for record in records):
        rows = [record for record in records if record.item == item]
        sound = [row for row in rows if not row.faults]
        parts += ["", f"## {item}", "", *medians(sound), "", *ratios(sound)]
        parts += [refusal(row) for row in rows if row.faults]
    return "\n".join(parts)


def refusal(row: Record) -> str:
    return f"- refused: {row.proxy}, round {row.round}: {'; '.join(row.faults)}"


def medians(sound: list[Record]) -> list[str]:
    """One line for each proxy, fastest first; * where the load's CPU was the fuller one."""
    lines = []
    for proxy in {row.proxy for row in sound}:
        rows = [row for row in sound if row.proxy == proxy]
        rps, cpu = [row.rps for row in rows], middle_pair([row.cpu for row in rows])
        cells = [
            rows[0].label() + (" *" if cpu[1] > max(cpu[0], NEARLY_FULL) else ""),
            f"{median(rps):.0f}",
            f"{min(rps):.0f}-{max(rps):.0f}",
            f"{median(row.cpu_us for row in rows):.1f}",
            f"{median(row.mb_s for row in rows):.0f}",
            f"{median(row.p50_ms for row in rows):.3f}",
            f"{median(row.p99_ms for row in rows):.3f}",
            f"{median(row.rss_mb for row in rows):.0f}",
            f"{max(row.hwm_mb for row in rows):.0f}",
            shares(cpu),
            shares(middle_pair([row.foreign for row in rows])),
        ]
        lines.append((-median(rps), cells))
    return table(COLUMNS, [cells for _, cells in sorted(lines)])


def ratios(sound: list[Record]) -> list[str]:
    """The subject over each peer: a ratio for each round that both did soundly; median (range)."""
    subject = {row.round: row for row in sound if row.is_subject}
    lines = []
    for proxy in dict.fromkeys(row.proxy for row in sound if not row.is_subject):
        rows = [row for row in sound if row.proxy == proxy and row.round in subject]
        pairs = [(subject[row.round], row) for row in rows]
        if pairs:
            cells = [spread(pairs, figure) for figure in ("rps", "cpu_us", "p50_ms")]
            lines.append([proxy, *cells, str(len(pairs))])
    return table(RATIOS, lines) if lines else []


def spread(pairs: list[tuple[Record, Record]], figure: str) -> str:
    both = [(getattr(ours, figure), getattr(theirs, figure)) for ours, theirs in pairs]
    values = [ours / theirs for ours, theirs in both if theirs]
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})" if values else "-"


def table(columns: str, lines: list[list[str]]) -> list[str]:
    head = columns.split("|")
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def middle_pair(pairs: list[Pair]) -> Pair:
    return median(first for first, _ in pairs), median(second for _, second in pairs)


def shares(pair: Pair) -> str:
    return f"{pair[0]:.2f} / {pair[1]:.2f}"
