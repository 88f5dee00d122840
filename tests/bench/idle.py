"""What connections cost that do nothing: `python -m tests.bench.idle` prints memory, CPU and delay.

One worker of a real sidecar, before and while so many clients (default 10,000, or as many as there
may be open files) are connected, each after one request.
"""

import argparse
import asyncio
import resource
import socket
import statistics
import time
from typing import NamedTuple

from tests.support.memory import resident_bytes
from tests.support.origin import origin
from tests.support.sidecar import flags, sidecar, spell

CONNECTIONS = 10_000
SPARE_FILES = 200  # of either process, for all else that it opens
REQUESTS = 3_000
REST_S = 10.0
SETTINGS = "workers = 1\n[timeouts]\nidle_s = 3600.0\n[limits]\nconnections = 1000000\n"
REQUEST = spell()
END = b"\r\n\r\nok"


class Figures(NamedTuple):
    """What was seen of one worker."""

    resident_bytes: int
    cpu_share: float  # of one CPU, at rest
    p50_us: float  # of a request on a connection that is kept
    p99_us: float


def file_limit() -> int:
    """Raise the limit of open files as far as it goes; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connect(address: tuple[str, int]) -> socket.socket:
    """A connection on which one request was answered."""
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ask(connection)
    return connection


def ask(connection: socket.socket) -> float:
    """Exchange one request; return the microseconds it took."""
    began = time.perf_counter()
    connection.sendall(REQUEST)
    answer = b""
    while not answer.endswith(END):
        data = connection.recv(65_536)
        if not data:
            raise SystemExit(f"the sidecar closed the connection after {answer!r}")
        answer += data
    return (time.perf_counter() - began) * 1e6


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, by its own clock: /proc/PID/stat counts steps of 10 ms."""
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), which Python lacks


def measure(address: tuple[str, int], worker: int) -> Figures:
    """Look at a worker at rest, then at requests one after the other."""
    with connect(address) as connection:
        for _ in range(REQUESTS // 10):
            ask(connection)
        resident = resident_bytes(worker)
        began_s, cpu_began_s = time.perf_counter(), cpu_s(worker)
        time.sleep(REST_S)
        share = (cpu_s(worker) - cpu_began_s) / (time.perf_counter() - began_s)
        took = sorted(ask(connection) for _ in range(REQUESTS))
    return Figures(resident, share, statistics.median(took), took[len(took) * 99 // 100])


async def run(number: int) -> None:
    """Print the figures without and with so many idle connections, and the difference."""
    async with origin() as upstream, sidecar(*flags(v1=upstream.url), settings=SETTINGS) as running:
        (worker,) = running.workers()
        is_compiled = "compiled=True" in running.said()
        # Blocking calls: upstream and sidecar are processes of their own, this loop has no part.
        without = measure(running.listen, worker)
        idle = [connect(running.listen) for _ in range(number)]
        beside = measure(running.listen, worker)
        for connection in idle:
            ask(connection)  # they are still there
            connection.close()

    print(f"one worker, {'compiled' if is_compiled else 'interpreted'}")
    print(f"{'idle connections':28} {0:>10} {number:>10}")
    for name, unit, scale in (
        ("resident_bytes", "resident MiB", 2**-20),
        ("cpu_share", "CPU at rest, ms a second", 1e3),
        ("p50_us", "a request, p50 us", 1),
        ("p99_us", "a request, p99 us", 1),
    ):
        first, second = getattr(without, name) * scale, getattr(beside, name) * scale
        print(f"{unit:28} {first:>10.1f} {second:>10.1f}")
    each = (beside.resident_bytes - without.resident_bytes) / number
    share_us = (beside.cpu_share - without.cpu_share) / number * 1e6
    print(f"each connection: {each:.0f} bytes resident, {share_us:.2f} us of CPU a second")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.idle")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    asked = parser.parse_args().connections
    number = min(asked, file_limit() - SPARE_FILES)
    if number < asked:
        print(f"open files are limited: {number} connections and not {asked}")
    asyncio.run(run(number))


if __name__ == "__main__":
    main()
