"""Measure a proxy beside others: one CPU for the proxy, one for the load, rounds interleaved."""

import os
import platform
import re
import resource
import shlex
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.model.shadow import Uncompared
from tests.bench import fixtures, report, wrk
from tests.bench.addresses import ADMIN_PORT, HOST, ORIGINS, PROXY_PORT
from tests.bench.fixtures import WORK
from tests.bench.items import Item
from tests.bench.origins import Origins
from tests.bench.peers import PEERS
from tests.bench.processes import Pinned, busy_s, require_free
from tests.bench.programs import SkipError, find
from tests.bench.report import Record
from tests.bench.verify import Verification

READY_TIMEOUT_S = 20.0
READY_POLL_S = 0.02
MIRROR_SETTLE_S = 0.5
MIRRORS = "rmv_mirrors_total"
ROUND_OVERHEAD_S = 2  # to start and to stop a proxy


@dataclass(frozen=True)
class Subject:
    """The proxy under test: its name in the tables, and the command that starts it.

    `others` are the same with something more in the environment, by what stands in the tables.
    """

    name: str
    command: str
    others: dict[str, dict[str, str]] = field(default_factory=dict)

    def env(self, name: str) -> dict[str, str]:
        return self.others.get(name, {})


@dataclass(frozen=True)
class Plan:
    """How long each item is measured."""

    rounds: int
    seconds: int  # the timed part of a round
    warmup: int  # seconds of load before it


@dataclass(frozen=True)
class Lookups:
    """How many tokens the subject knew, and how many it had to verify, by its own metrics."""

    known: int
    verified: int

    @classmethod
    def read(cls) -> "Lookups":
        """Read `rmv_identity_lookups_total`; raises SkipError if nobody tells."""
        name = "rmv_identity_lookups_total"
        return cls(counted(name, 'outcome="hit"'), counted(name, 'outcome="miss"'))

    def faults(self, requests: int, cut_off: int) -> Iterator[str]:
        """What is wrong if each of so many requests since then came with a token of its own."""
        now = Lookups.read()
        known, verified = now.known - self.known, now.verified - self.verified
        if known or abs(verified - requests) > cut_off:
            yield f"of {requests} fresh tokens {verified} were verified, {known} known"


def counted(name: str, label: str = "") -> int:
    """The sum of the samples of a metric of the subject; raises SkipError if nobody tells."""
    where = f"{HOST}:{ADMIN_PORT}"
    try:
        with urllib.request.urlopen(f"http://{where}/metrics", timeout=5) as page:
            text = page.read().decode()
    except OSError as error:
        raise SkipError(f"the subject tells no metrics on {where}: {error}") from None
    lines = [line for line in text.splitlines() if line.startswith(name) and label in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


def note(environment: dict[str, str]) -> str:
    """What the subject did of what its environment asks for."""
    if "BENCH_COMPARE" in environment:
        mirrored = max(counted(MIRRORS, 'outcome="mirrored"'), 1)
        causes = (f"uncompared-{cause.value}" for cause in Uncompared)
        shares = {
            outcome: counted(MIRRORS, f'outcome="{outcome}"') / mirrored
            for outcome in ("compared", *causes)
        }
        return ", ".join(f"{share:.1%} {outcome}" for outcome, share in shares.items() if share)
    told, lost = counted("rmv_audit_entries_total"), counted("rmv_audit_lost_total")
    return f"{told} entries, {lost} lost"


class Bench:
    """One run: the two CPUs, the origins and the tokens."""

    def __init__(self, subject: Subject, peers: list[str]) -> None:
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            raise SystemExit("needs 2 CPUs, one for the proxy and one for the load")
        find("wrk")
        self.proxy_cpu, self.load_cpu = cpus[:2]
        os.sched_setaffinity(0, {self.load_cpu})
        self.subject = subject
        self.names = [subject.name, *subject.others, *peers]
        self.tokens = fixtures.write()
        self.origins = Origins(self.load_cpu)
        self.records = WORK / "results" / time.strftime("%Y%m%d-%H%M%S.jsonl")

    def run(self, items: list[Item], plan: Plan) -> bool:
        """Verify, then time, item by item. False if the subject failed anywhere."""
        round_s = len(self.names) * (plan.seconds + plan.warmup + ROUND_OVERHEAD_S)
        minutes = len(items) * plan.rounds * round_s / 60
        print(f"about {minutes:.1f} min; records in {self.records}", flush=True)
        report.write_heading(self.records, self.heading(plan))
        whole = True
        for item in items:
            whole &= self.compare(item, plan)
        return whole

    def compare(self, item: Item, plan: Plan) -> bool:
        """All rounds of one item. False if the subject does not do it, or showed faults."""
        verified = [name for name in self.names if self.is_verified(name, item)]
        if self.subject.name not in verified:
            print(f"{item.name}: {self.subject.name} does not do the job: not timed", flush=True)
            return False
        whole = True
        for turn in range(plan.rounds):
            first = turn % len(verified)  # nobody is always first
            for name in verified[first:] + verified[:first]:
                record = self.timed(name, item, turn, plan)
                report.write(self.records, record)
                print(record.line(), flush=True)
                whole &= not (record.is_subject and record.faults)
        return whole

    def heading(self, plan: Plan) -> str:
        """What is compared, where and when."""
        cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        where = f"{cpu[1] if cpu else platform.machine()}, Linux {platform.release()}"
        how = f"{plan.rounds} rounds of {plan.seconds} s"
        peers = [f"{name} {PEERS[name].version()}" for name in self.names if name in PEERS]
        who = ", ".join([self.subject.name, *peers])
        return f"{time.strftime('%Y-%m-%d %H:%M')}, {where}, {how}: {who}"

    def verification(self, name: str, item: Item) -> Verification:
        is_peer = name in PEERS
        checks_token = not is_peer or PEERS[name].checks_token
        return Verification(item, self.tokens, self.origins, is_peer, checks_token)

    def command(self, name: str, item: Item) -> tuple[list[str], dict[str, str]]:
        """The command line of a proxy and what it adds to the environment."""
        if name in PEERS:
            return PEERS[name].configure(item.job), PEERS[name].env
        env = {f"UPSTREAM_{version.upper()}": address for version, address in ORIGINS.items()}
        env |= {"BENCH_WORK": str(WORK), "BENCH_ITEM": item.name[0], "BENCH_JOB": item.job}
        env |= {"BENCH_ADMIN": f"{HOST}:{ADMIN_PORT}", **self.subject.env(name)}
        return shlex.split(self.subject.command), env

    @contextmanager
    def started(self, name: str, item: Item) -> Iterator[tuple[Pinned, float]]:
        """A fresh process of this proxy, and its seconds to the first 200; or raises SkipError."""
        require_free(PROXY_PORT)
        argv, env = self.command(name, item)
        slug = re.sub(r"\W+", "-", name)
        began = time.monotonic()
        proxy = Pinned(argv, self.proxy_cpu, WORK / "logs" / f"{slug}-{item.name}.log", env)
        try:
            verification = self.verification(name, item)
            while not verification.is_ready():
                if proxy.process.poll() is not None:
                    raise SkipError(f"{name} exited at the start: {proxy.last_words()}")
                if time.monotonic() - began > READY_TIMEOUT_S:
                    raise SkipError(f"{name} gave no 200 at the start: {proxy.last_words()}")
                time.sleep(READY_POLL_S)
            boot_s = time.monotonic() - began
            proxy.prioritise()
            yield proxy, boot_s
        finally:
            proxy.stop()

    def is_verified(self, name: str, item: Item) -> bool:
        """Whether a fresh process of this proxy does the item's job; prints what is wrong."""
        try:
            with self.started(name, item):
                problems = self.verification(name, item).problems()
        except SkipError as reason:
            print(f"{item.name}: skip: {reason}", flush=True)
            return False
        print(f"{item.name} {name}: {'; '.join(problems) or 'verified'}", flush=True)
        return not problems

    def timed(self, name: str, item: Item, turn: int, plan: Plan) -> Record:
        """One round on a fresh process: start, warm up, measure, stop."""
        record = Record(item.name, name, turn, is_subject=name == self.subject.name)
        if name in PEERS:
            record.note = PEERS[name].note(item.job)
        script = wrk.write_script(item, self.tokens, is_peer=name in PEERS)
        try:
            with self.started(name, item) as (proxy, record.boot_s):
                self.origins.mark()
                wrk.warm_up(item, script, cpu=self.load_cpu, seconds=plan.warmup)
                known = Lookups.read() if record.is_subject and item.job == "fresh" else None
                self.measure(record, item, script, proxy, plan.seconds)
                if name in self.subject.others:
                    record.note = note(self.subject.others[name])
                if known is not None:
                    record.faults += known.faults(record.requests, cut_off=2 * item.connections)
                if item.job == "mirror":
                    self.check_copies(record, cut_off=2 * item.connections)
        except SkipError as reason:
            record.faults.append(str(reason))
        return record

    def measure(
        self, record: Record, item: Item, script: Path, proxy: Pinned, seconds: int
    ) -> None:
        """The timed part: wrk's figures, and who used which CPU meanwhile."""
        before = self.readings(proxy)
        figures = wrk.Figures.read(wrk.run(item, script, cpu=self.load_cpu, seconds=seconds))
        used = (b - a for a, b in zip(before, self.readings(proxy), strict=True))
        elapsed, proxy_s, load_s, busy_0_s, busy_1_s = used
        record.take(figures, item.payload_bytes)
        record.cpu_us = proxy_s / max(figures.requests, 1) * 1e6
        record.cpu = proxy_s / elapsed, load_s / elapsed
        foreign_s = max(0.0, busy_0_s - proxy_s), max(0.0, busy_1_s - load_s)
        record.foreign = foreign_s[0] / elapsed, foreign_s[1] / elapsed
        record.rss_mb, record.hwm_mb = proxy.memory_mb("VmRSS"), proxy.memory_mb("VmHWM")

    def readings(self, proxy: Pinned) -> tuple[float, ...]:
        """The clock, and CPU seconds so far: the proxy, the load, all of either CPU."""
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)  # each wrk that has ended
        load_s = self.origins.cpu_s() + reaped.ru_utime + reaped.ru_stime + time.process_time()
        busy = busy_s(self.proxy_cpu), busy_s(self.load_cpu)
        return time.monotonic(), proxy.cpu_s(), load_s, *busy

    def check_copies(self, record: Record, cut_off: int) -> None:
        """Every request's copy must arrive, save those that wrk cut off at its two ends."""
        sent, mirrored = record.copies = self.origins.counts(cut_off, MIRROR_SETTLE_S)
        if abs(sent - mirrored) > cut_off:
            record.faults.append(f"{mirrored} copies of {sent} requests")
        if short := self.origins.short_bodies():
            record.faults.append(f"{short} copies without their body")
