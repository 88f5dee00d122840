"""Children pinned to one CPU, and what they cost with all their descendants, from /proc."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from tests.bench.addresses import HOST

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STOP_TIMEOUT_S = 5.0
NICE = -15  # the machine may be shared; takes effect where the kernel lets us (root)


class Pinned:
    """A child on one CPU, in a session of its own, with its output in a log file."""

    running: ClassVar[list["Pinned"]] = []

    def __init__(
        self, argv: list[str], cpu: int, log: Path, env: dict[str, str] | None = None
    ) -> None:
        self.log = log
        argv = ["taskset", "-c", str(cpu), *argv]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                argv, stdout=out, stderr=out, env=os.environ | (env or {}), start_new_session=True
            )
        Pinned.running.append(self)
        self.prioritise()

    def prioritise(self) -> None:
        """Put the family before other work; what has a session of its own is no heir of that."""
        for pid in self.family():
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, pid, NICE)
                # Under autogrouping a plain nice value only counts inside its session.
                Path(f"/proc/{pid}/autogroup").write_text(str(NICE))

    def family(self) -> dict[int, list[str]]:
        """The child and its descendants: pid -> the fields of /proc/PID/stat from the third on."""
        found: dict[int, list[str]] = {}
        queue = [self.process.pid]
        while queue:
            pid = queue.pop()
            with contextlib.suppress(OSError):
                found[pid] = stat_fields(pid)
                for task in Path(f"/proc/{pid}/task").iterdir():
                    queue += map(int, (task / "children").read_text().split())
        return found

    def cpu_s(self) -> float:
        """CPU seconds so far: utime and stime of the family and of its reaped children."""
        ticks = (int(each) for fields in self.family().values() for each in fields[11:15])
        return sum(ticks) / TICKS_PER_S  # fields 14 to 17 of proc(5)

    def cpu_s_of(self, pid: int) -> float:
        """CPU seconds so far of one member of the family."""
        return sum(int(each) for each in stat_fields(pid)[11:13]) / TICKS_PER_S

    def memory_mb(self, name: str) -> float:
        """VmRSS (now) or VmHWM (peak), summed over the family; pages that it shares count twice."""
        total_kb = 0
        for pid in self.family():
            with contextlib.suppress(OSError):
                match = re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
                total_kb += int(match[1]) if match else 0
        return total_kb / 1024

    def stop(self) -> None:
        """SIGTERM to the child; SIGKILL to what is left of its family after STOP_TIMEOUT_S."""
        born = {pid: fields[19] for pid, fields in self.family().items()}
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT_S)
        for pid, start_time in born.items():
            with contextlib.suppress(OSError):
                if (
                    stat_fields(pid)[19] == start_time
                ):  # ours, not a later process with a recycled pid
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        Pinned.running.remove(self)

    def last_words(self) -> str:
        """The end of the log, and where the rest is."""
        return " | ".join(
            [*self.log.read_text(errors="replace").splitlines()[-3:], f"see {self.log}"]
        )


def stop_all() -> None:
    for child in reversed(list(Pinned.running)):
        child.stop()


def stat_fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def busy_s(cpu: int) -> float:
    """Seconds that a CPU has worked so far, for anyone."""
    line = re.search(rf"^cpu{cpu} (.*)$", Path("/proc/stat").read_text(), re.MULTILINE)
    if line is None:
        raise SystemExit(f"no CPU {cpu} in /proc/stat")
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, line[1].split())
    return (user + nice + system + irq + softirq) / TICKS_PER_S


def require_free(*ports: int) -> None:
    """Exit with a clear message if a port stays taken, e.g. by what a killed run left behind."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while taken := [port for port in ports if accepts(port)]:
        if time.monotonic() > deadline:
            raise SystemExit(f"{HOST}:{taken[0]} is in use by another process; stop it first")
        time.sleep(0.05)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
