"""How long the loop stands still while large policies and many pins come into force."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path
from timeit import timeit
from typing import TYPE_CHECKING

from redis import Redis

from sidecar.model.policy import Policy, Rule, Version
from sidecar.policy import codec
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.live import LivePolicies
from sidecar.store.redis import RedisStore
from tests.support.valkey import running_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.bench.policy import Row

RULES = 10_000
PINS = 1_000_000
MODELS = 1_000
SWAPS = 5
CHUNK = 10_000
CALM_S = 0.4  # for what goes on after a policy is in force: its adoption, and the old one's end
TARGET = "under 5 ms"
VERSIONS = {name: Version(endpoints=("http://127.0.0.1:9001",)) for name in ("v1", "v2")}


class Probe:
    """Goes round the loop without a pause and notes the longest round, in milliseconds.

    `cpu_ms` leaves out the time in which the host did something else.
    """

    def __init__(self) -> None:
        self.wall_ms = 0.0
        self.cpu_ms = 0.0

    async def run(self) -> None:
        while True:
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0)
            self.wall_ms = max(self.wall_ms, (time.perf_counter() - wall_s) * 1e3)
            self.cpu_ms = max(self.cpu_ms, (time.thread_time() - cpu_s) * 1e3)

    def __str__(self) -> str:
        return f"{self.wall_ms:.1f} ms ({self.cpu_ms:.1f} ms of CPU)"


class Stage:
    """A watch of a real Valkey, and a plain client that edits from a thread of its own."""

    def __init__(self, url: str) -> None:
        self.live = LivePolicies()
        self.client = Redis.from_url(url)
        self._store = RedisStore(url)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        watch = spawn(self._store.watch(self.live), name="watch")
        try:
            yield
        finally:
            await stop(watch)
            await self._store.close()

    async def probed(self, holds: Callable[[], bool]) -> tuple[Probe, float]:
        """Return the longest round until `holds` and a while after, and the seconds until then."""
        probe, began_s = Probe(), time.perf_counter()
        probing = spawn(probe.run(), name="probe")
        while not holds():  # noqa: ASYNC110 -- the probe keeps the loop going round anyway
            await asyncio.sleep(0)
        took_s = time.perf_counter() - began_s
        await asyncio.sleep(CALM_S)
        await stop(probing)
        return probe, took_s


def document(revision: int, serve: str = "v1", rules: int = RULES) -> bytes:
    made = tuple(
        Rule(id=f"r{n}", when={"tenant": f"tenant-{n}"}, serve=serve) for n in range(rules)
    )
    policy = Policy(model="m", versions=VERSIONS, rules=made, default="v1", revision=revision)
    return codec.encode(policy)


async def swap_rows() -> AsyncIterator[Row]:
    """Yield the longest rounds of the loop while large documents come into force."""
    async with running_valkey() as valkey:
        stage = Stage(valkey.url)
        stage.client.set("rmv:policy:m", document(1, rules=10))
        async with stage.watching():
            await stage.probed(lambda: stage.live.is_loaded)
            idle, _ = await stage.probed(lambda: True)
            yield "longest round of an idle loop", str(idle), "what this host adds to those below"
            worst, times = Probe(), []
            for revision in range(2, 2 + SWAPS):
                raw = document(revision)
                writing = asyncio.to_thread(stage.client.set, "rmv:policy:m", raw)
                sent = asyncio.ensure_future(writing)
                probe, took_s = await stage.probed(lambda: _revision(stage.live) == revision)  # noqa: B023
                await sent
                times.append(took_s)
                worst.wall_ms = max(worst.wall_ms, probe.wall_ms)
                worst.cpu_ms = max(worst.cpu_ms, probe.cpu_ms)
            size = f"{len(raw) // 1024} KiB"
            yield f"longest stall, {RULES:,} rules swapped ({size})", str(worst), TARGET
            yield f"{RULES:,} rules in force", f"{min(times) * 1e3:.0f} ms after the write", ""
            wrong = document(99, serve="v9")
            sent = asyncio.ensure_future(asyncio.to_thread(stage.client.set, "rmv:policy:m", wrong))
            probe, _ = await stage.probed(lambda: "m" in stage.live.faults)
            await sent
            yield f"longest stall, {RULES:,} faulty rules refused", str(probe), TARGET


async def pin_rows() -> AsyncIterator[Row]:
    """Yield what a million pins cost: to load, to compare with the store, to hold, to change."""
    async with running_valkey() as valkey:
        stage = Stage(valkey.url)
        stage.client.set("rmv:policy:m", document(1, rules=10))
        for start in range(0, PINS, CHUNK):
            names = range(start, start + CHUNK)
            stage.client.mset({f"rmv:pin:m:tenant-{n:07}": "v2" for n in names})
        before_kib = resident_kib()
        async with stage.watching():
            probe, took_s = await stage.probed(lambda: stage.live.is_loaded)
            held_kib = resident_kib() - before_kib
            pins = stage.live.snapshots["m"].pins
            if len(pins) != PINS:
                raise RuntimeError(f"{len(pins)} pins were loaded")
            yield f"longest stall, {PINS:,} pins loaded", str(probe), TARGET
            yield f"{PINS:,} pins loaded", f"{took_s:.1f} s, while serving", ""
            per = f"{held_kib / 1024 * 100_000 / PINS:.1f} MiB"
            yield "memory per 100,000 pins", per, ""
            stage.live.is_stale = True
            await asyncio.to_thread(stage.client.client_kill_filter, _type="normal", skipme=True)
            probe, took_s = await stage.probed(lambda: not stage.live.is_stale)
            yield f"longest stall, {PINS:,} pins compared again", str(probe), TARGET
            more_kib = max(0, resident_kib() - before_kib - held_kib)
            yield (
                f"{PINS:,} pins compared again",
                f"{took_s:.1f} s, {more_kib / 1024:.0f} MiB more",
                "no second copy",
            )
        yield "one pin changed, of 10", _change_us(LivePolicies(), 10), ""
        yield f"one pin changed, of {PINS:,}", _change_us(stage.live, PINS), "as of 10"


async def model_rows() -> AsyncIterator[Row]:
    """Yield what a thousand models cost to load."""
    async with running_valkey() as valkey:
        stage = Stage(valkey.url)
        for n in range(MODELS):
            policy = Policy(model=f"m{n}", versions=VERSIONS, default="v1", revision=1)
            stage.client.set(f"rmv:policy:m{n}", codec.encode(policy))
        async with stage.watching():
            probe, took_s = await stage.probed(lambda: stage.live.is_loaded)
            yield f"longest stall, {MODELS:,} models loaded", str(probe), TARGET
            yield f"{MODELS:,} models loaded", f"{took_s * 1e3:.0f} ms", ""


def resident_kib() -> int:
    """Return the memory that this process holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def _revision(live: LivePolicies) -> int:
    snapshot = live.snapshots.get("m")
    return 0 if snapshot is None else snapshot.revision


def _change_us(live: LivePolicies, number: int) -> str:
    if not live.snapshots:
        live.put_policy("m", document(1, rules=10))
        for n in range(number):
            live.put_pin("m", f"tenant-{n:07}", "v2")
    tenant = f"tenant-{number // 2:07}"
    turns = 20_000
    took_s = timeit(lambda: live.put_pin("m", tenant, "v1"), number=turns)
    return f"{took_s / turns * 1e6:.2f} us"
