"""Where the subject's time goes: a sampling profiler on a worker under load, as a table.

`functions` is py-spy: self time of each Python function, with the C code that it calls.
`native` is py-spy too, with the C functions apart. `kernel` is perf: symbols of the interpreter,
of libraries and of the kernel. Nothing in the sidecar knows about any of them.
"""

import subprocess
from collections import Counter
from pathlib import Path

from tests.bench import wrk
from tests.bench.bench import Bench, Plan
from tests.bench.fixtures import WORK
from tests.bench.items import Item
from tests.bench.processes import Pinned
from tests.bench.programs import SkipError, find

PROFILERS = ("functions", "native", "kernel")
RATE_HZ = 400
GRACE_S = 20.0  # to read symbols, and to write the file
RAW = WORK / "run" / "profile.raw"


def profile(bench: Bench, item: Item, plan: Plan, profiler: str, lines: int) -> str:
    """Load the subject with one item and sample it meanwhile; a Markdown table of self time."""
    script = wrk.write_script(item, bench.tokens, is_peer=False)
    RAW.unlink(missing_ok=True)
    with bench.started(bench.subject.name, item) as (subject, _):
        wrk.run(item, script, cpu=bench.load_cpu, seconds=plan.warmup)
        busiest = max(subject.family(), key=subject.cpu_s_of)
        argv = command(profiler, busiest, plan.seconds)
        # On the proxy's own CPU: from the other one it would run when the load does not, and see
        # little but system calls.
        sampler = Pinned(argv, bench.proxy_cpu, WORK / "logs" / "profiler.log")
        text = wrk.run(item, script, cpu=bench.load_cpu, seconds=plan.seconds + 1)
        figures = wrk.Figures.read(text)
        wait(sampler)
    if not RAW.exists():
        raise SkipError(f"{profiler}: no samples: {sampler.last_words()}")
    heading = f"{item.name}, {figures.rps:.0f} req/s under the profiler, process {busiest}"
    faults = "".join(f"\nFAULT: {fault}" for fault in figures.faults)
    table = symbols(lines) if profiler == "kernel" else self_times(RAW, lines)
    return f"{heading}{faults}\n\n{table}"


def command(profiler: str, pid: int, seconds: int) -> list[str]:
    if profiler == "kernel":
        perf = find("perf", "Debian package linux-perf")
        # cpu-clock needs no hardware counters, which virtual machines seldom have.
        options = ["-e", "cpu-clock", "-F", str(RATE_HZ), "-o", str(RAW)]
        return [perf, "record", *options, "-p", str(pid), "--", "sleep", str(seconds)]
    options = ["--format", "raw", "--rate", str(RATE_HZ), "--duration", str(seconds)]
    options += ["--native"] if profiler == "native" else []
    spy = find("py-spy", "requirements/bench.txt")
    return [spy, "record", "--function", *options, "--pid", str(pid), "--output", str(RAW)]


def wait(sampler: Pinned) -> None:
    try:
        sampler.process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        sampler.log.write_text("it did not end in time")
    sampler.stop()


def self_times(raw: Path, lines: int) -> str:
    """Collapsed stacks, `frame;frame;frame count`, as self and total share of each function."""
    self_n, total_n = Counter[str](), Counter[str]()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        self_n[frames[-1]] += int(count)
        for frame in set(frames):
            total_n[frame] += int(count)
    samples = self_n.total()
    rows = ["| self % | total % | function |", "| ---: | ---: | --- |"]
    for frame, count in self_n.most_common(lines):
        share, total = count / samples, total_n[frame] / samples
        rows.append(f"| {share:.1%} | {total:.1%} | {frame} |")
    return "\n".join([*rows, "", f"{samples} samples"])


def symbols(lines: int) -> str:
    """perf's own table: self share, shared object, symbol."""
    options = ["--stdio", "--no-children", "--sort", "dso,symbol", "-i", str(RAW)]
    shown = subprocess.run(
        [find("perf"), "report", *options], check=True, capture_output=True, text=True
    )
    rows = [line for line in shown.stdout.splitlines() if line and not line.startswith("#")]
    return "\n".join(rows[:lines])
