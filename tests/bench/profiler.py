"""Where the subject's time goes: a sampling profiler on a worker under load, as a table.

`functions` is py-spy: self time of each Python function, with the C code that it calls.
`native` is py-spy too, with the C functions apart, and `phases` the same samples by what a request
was at, in microseconds of the worker's CPU time. `kernel` is perf: symbols of the interpreter, of
libraries and of the kernel. Nothing in the sidecar knows about any of them.
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

PROFILERS = ("functions", "phases", "native", "kernel")
RATE_HZ = 400
COST_S = 4
ELSEWHERE = "event loop: transports, callbacks, the rest"
# Names in a stack (all of those joined by " + ") and what a request is at then; the first fits.
PHASES = (
    ("Exchange____write + write (libc", "write to the upstream (system call)"),
    ("write_out + write (libc", "write to the upstream (system call)"),
    ("on_response_data + write (libc", "write to the client (system call)"),
    (";read (libc", "read from client and upstream (system calls)"),
    ("epoll_", "wait for sockets (system calls)"),
    ("Recorder", "metrics and exchange log, in batches"),
    ("read_request", "parse the request's head"),
    ("Decider___decide", "decide: token, route, policy"),
    ("_joined", "write to the upstream: join, transport"),
    ("Exchange____write", "write to the upstream: join, transport"),
    ("write_out", "write to the upstream: join, transport"),
    ("Exchange___begin", "compose the request for the upstream"),
    ("Exchange____end", "end: record, release"),
    ("on_response_head", "compose the head of the answer"),
    ("read_response", "parse the answer's head"),
    ("_read_heads", "parse the answer's head"),
    ("on_response_data", "write to the client: transport"),
    ("ClientConnection", "the rest of the client's connection"),
    ("UpstreamConnection", "the rest of the upstream's connection"),
)
GRACE_S = 20.0  # to read symbols, and to write the file
RAW = WORK / "run" / "profile.raw"


def profile(bench: Bench, item: Item, plan: Plan, profiler: str, lines: int) -> str:
    """Load the subject with one item and sample it meanwhile; a Markdown table of self time."""
    script = wrk.write_script(item, bench.tokens, is_peer=False)
    RAW.unlink(missing_ok=True)
    with bench.started(bench.subject.name, item) as (subject, _):
        idle_s = {pid: subject.cpu_s_of(pid) for pid in subject.family()}
        wrk.warm_up(item, script, cpu=bench.load_cpu, seconds=plan.warmup)
        # By what the load cost: the control process may have spent more on starting.
        busiest = max(idle_s, key=lambda pid: subject.cpu_s_of(pid) - idle_s[pid])
        cost_us = _cost_us(bench, item, subject, busiest, script) if profiler == "phases" else 0.0
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
    if profiler == "kernel":
        table = symbols(lines)
    elif profiler == "phases":
        table = phases(RAW.read_text().splitlines(), cost_us)
    else:
        table = self_times(RAW, lines)
    return f"{heading}{faults}\n\n{table}"


def command(profiler: str, pid: int, seconds: int) -> list[str]:
    if profiler == "kernel":
        perf = find("perf", "Debian package linux-perf")
        # cpu-clock needs no hardware counters, which virtual machines seldom have.
        options = ["-e", "cpu-clock", "-F", str(RATE_HZ), "-o", str(RAW)]
        return [perf, "record", *options, "-p", str(pid), "--", "sleep", str(seconds)]
    options = ["--format", "raw", "--rate", str(RATE_HZ), "--duration", str(seconds)]
    options += ["--native"] if profiler in {"native", "phases"} else []
    spy = find("py-spy", "requirements/bench.txt")
    return [spy, "record", "--function", *options, "--pid", str(pid), "--output", str(RAW)]


def _cost_us(bench: Bench, item: Item, subject: Pinned, pid: int, script: Path) -> float:
    """CPU time of process `pid` for a request, without a profiler."""
    before_s = subject.cpu_s_of(pid)
    text = wrk.run(item, script, cpu=bench.load_cpu, seconds=COST_S)
    return (subject.cpu_s_of(pid) - before_s) / (wrk.Figures.read(text).rps * COST_S) * 1e6


def wait(sampler: Pinned) -> None:
    try:
        sampler.process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        sampler.log.write_text("it did not end in time")
    sampler.stop()


def phases(stacks: list[str], cost_us: float) -> str:
    """Collapsed stacks of the event loop's thread, as share and microseconds of each phase."""
    counts = Counter[str]()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not any("_bootstrap" in frame or "Condition.wait" in frame for frame in frames):
            counts[_phase(frames)] += int(count)
    samples = counts.total()
    rows = ["| µs | share | phase |", "| ---: | ---: | --- |"]
    for phase in [*dict.fromkeys(phase for _, phase in PHASES), ELSEWHERE]:
        share = counts[phase] / samples
        rows.append(f"| {share * cost_us:.1f} | {share:.1%} | {phase} |")
    total = f"| {cost_us:.1f} | 100% | CPU time of the worker for a request, without the profiler |"
    return "\n".join([*rows, total, "", f"{samples} samples"])


def _phase(frames: list[str]) -> str:
    """The first phase of PHASES one of whose names is in the stack."""
    stack = ";".join(frames)
    for names, phase in PHASES:
        if all(name in stack for name in names.split(" + ")):
            return phase
    return ELSEWHERE


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
