"""What a shadow that hangs costs clients: `python -m tests.bench.hanging` prints their p99.

One worker of a real sidecar, three models in front of the same origin: one without a shadow, one
whose shadow answers, one whose shadow takes copies and says nothing. Each gets the same open-loop
load in turn, round after round, so that a slow minute of the host is everybody's.
"""

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from statistics import median
from typing import NamedTuple

from sidecar.model.limits import Timeouts
from tests.bench import fixtures
from tests.bench.addresses import HOST, ORIGINS, SILENT_PORT
from tests.bench.fixtures import WORK
from tests.bench.idle import cpu_s
from tests.bench.openloop import LATE_S
from tests.bench.origins import Origins
from tests.bench.processes import Pinned, accepts, require_free, stop_all
from tests.bench.report import table
from tests.support.memory import resident_bytes
from tests.support.sidecar import Sidecar, flags, sidecar

KINDS = NONE, HEALTHY, HANGING = "no shadow", "a shadow that answers", "a shadow that hangs"
AT_MOST = 1.05  # of the p99 without a shadow
RATE = 2_000  # requests a second: less than a tenth of what a core serves
ROUNDS = 7
LEAD_S = 0.7  # of load before each slice: by then a line of copies that nobody answers is full
MORE_S = 0.5  # than the timeout of copies, after which none is under way
Z_95 = 1.96  # standard deviations about the middle, on either side
SETTINGS = "workers = 1\n[timeouts]\nmirror_s = {}\n"
COLUMNS = "load|p50 ms|p99 ms|CPU µs/req|p50 / no shadow|p99 / no shadow"

Document = dict[str, object]


class Slice(NamedTuple):
    """One kind of load in one round."""

    p50_ms: float
    p99_ms: float
    cpu_us: float  # of the worker, for one request


class Middle(NamedTuple):
    """The median of some ratios, and between which of them that of all such lies, at 95 %."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.least:.3f}-{self.most:.3f})"


def documents() -> dict[str, Document]:
    """A policy for each kind, with a model of its own."""
    shadows = {HEALTHY: ORIGINS["shadow"], HANGING: f"{HOST}:{SILENT_PORT}"}
    made: dict[str, Document] = {}
    for number, kind in enumerate(KINDS):
        versions = {"v1": {"endpoints": [f"http://{ORIGINS['v1']}"]}}
        made[kind] = {"model": f"m{number}", "versions": versions, "default": "v1"}
        if kind in shadows:
            versions["v2"] = {"endpoints": [f"http://{shadows[kind]}"]}
            made[kind]["shadows"] = [{"version": "v2", "methods": ["POST"]}]
    return made


@contextmanager
def endpoints(cpu: int) -> Iterator[None]:
    """The origins, and who says nothing."""
    require_free(SILENT_PORT)
    fixtures.write()
    try:
        Origins(cpu)
        Pinned([sys.executable, "-m", "tests.bench.silent"], cpu, WORK / "logs" / "silent.log")
        while not accepts(SILENT_PORT):
            time.sleep(0.05)
        yield
    finally:
        stop_all()


class Bench:
    """A running sidecar, and the CPU that its load has.

    A slice lasts as long as a copy may take: so each sees those expire that hang once.
    """

    def __init__(self, running: Sidecar, load_cpu: int, options: argparse.Namespace) -> None:
        self.running = running
        self.load_cpu = load_cpu
        self.rate, self.rounds, self.seconds = options.rate, options.rounds, options.timeout
        (self.worker,) = running.workers()
        self.models = {kind: str(made["model"]) for kind, made in documents().items()}

    async def prepare(self) -> None:
        """Bring the policies into force."""
        async with self.running.editor() as editor:
            for made in documents().values():
                await editor.put(made, str(made["model"]))
        for model in self.models.values():

            async def is_served(path: str = f"/v1/models/{model}") -> bool:
                return (await self.running.ask(path=path)).status == 200

            await self.running.until(is_served, f"policy of {model}")

    def slices(self) -> dict[str, list[Slice]]:
        """Measure all kinds in each round, in an order of its own."""
        found: dict[str, list[Slice]] = {kind: [] for kind in KINDS}
        for _ in range(self.rounds):
            for kind in random.sample(KINDS, len(KINDS)):
                found[kind].append(self.measure(self.models[kind]))
                if kind == HANGING:
                    time.sleep(self.seconds + MORE_S)
        return found

    def measure(self, model: str) -> Slice:
        began_s = cpu_s(self.worker)
        command = [sys.executable, "-m", "tests.bench.openloop", str(self.running.listen[1])]
        command += [model, str(self.rate), str(LEAD_S), str(self.seconds)]
        load = Pinned(command, self.load_cpu, WORK / "logs" / "openloop.log")
        status = load.process.wait(LEAD_S + self.seconds + 2 * LATE_S)
        used_s = cpu_s(self.worker) - began_s
        load.stop()
        if status:
            raise SystemExit(load.last_words())
        p50_ms, p99_ms = map(float, load.log.read_text().split())
        return Slice(p50_ms, p99_ms, used_s / (self.rate * (LEAD_S + self.seconds)) * 1e6)

    async def outcomes(self, kind: str) -> str:
        """What became of copies, by the sidecar's metrics."""
        _, page = await self.running.asked_admin("/metrics")
        wanted = f'rmv_mirrors_total{{model="{self.models[kind]}",version="v2",outcome="'
        lines = [line for line in page.splitlines() if line.startswith(wanted)]
        told = [line.removeprefix(wanted).split('"} ') for line in lines]
        return ", ".join(f"{outcome} {count}" for outcome, count in told if count != "0")


def ratio(found: dict[str, list[Slice]], kind: str, figure: str) -> Middle:
    """A kind's over that without a shadow, round by round.

    The interval is of order statistics: it assumes nothing about how rounds differ.
    """
    pairs = zip(found[kind], found[NONE], strict=True)
    values = sorted(getattr(one, figure) / getattr(other, figure) for one, other in pairs)
    outside = max(0, int((len(values) - Z_95 * len(values) ** 0.5) / 2))
    return Middle(median(values), values[outside], values[-1 - outside])


def row(found: dict[str, list[Slice]], kind: str) -> list[str]:
    p50_ms, p99_ms, cpu_us = map(median, zip(*found[kind], strict=True))
    ratios = [str(ratio(found, kind, figure)) for figure in ("p50_ms", "p99_ms")]
    return [kind, f"{p50_ms:.3f}", f"{p99_ms:.3f}", f"{cpu_us:.1f}", *ratios]


async def run(options: argparse.Namespace, proxy_cpu: int, load_cpu: int) -> bool:
    """Print the figures; return whether the target was met."""
    settings = SETTINGS.format(options.timeout)
    os.sched_setaffinity(0, {proxy_cpu})  # which the sidecar inherits
    async with sidecar(*flags(v1=f"http://{ORIGINS['v1']}"), settings=settings) as running:
        os.sched_setaffinity(0, {load_cpu})
        bench = Bench(running, load_cpu, options)
        await bench.prepare()
        before = resident_bytes(bench.worker)
        found = bench.slices()  # this loop has no part in it: all others are processes
        grown = resident_bytes(bench.worker) - before
        is_compiled = "compiled=True" in running.said()
        told = {kind: await bench.outcomes(kind) for kind in (HEALTHY, HANGING)}
    form = "compiled" if is_compiled else "interpreted"
    print(
        f"one worker, {form}; {bench.rounds} slices of {bench.seconds:g} s of each kind,", end=" "
    )
    print(f"{bench.rate:,} requests a second\n")
    print("\n".join(table(COLUMNS, [row(found, kind) for kind in KINDS])))
    for kind, outcomes in told.items():
        print(f"\n{kind}: {outcomes}")
    print(f"\nresident memory of the worker: {grown / 2**20:.1f} MiB more than before")
    reached = ratio(found, HANGING, "p99_ms")
    print(f"p99 beside a shadow that hangs / without: {reached}; to hold: {AT_MOST}")
    return reached.median <= AT_MOST


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hanging")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--timeout", type=float, default=Timeouts().mirror_s, help="of copies; a slice is as long"
    )
    parser.add_argument("--rate", type=int, default=RATE, help="requests a second")
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise SystemExit("needs 2 CPUs, one for the sidecar and one for the load")
    with suppress(PermissionError):  # who is not root measures what else the machine does, too
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # which all children inherit
    with endpoints(cpus[1]):
        holds = asyncio.run(run(options, *cpus[:2]))
    sys.exit(not holds)


if __name__ == "__main__":
    main()
