"""What an exchange costs without sockets: `python -m tests.bench.exchange` prints microseconds.

One client connection and one upstream connection are fed whole requests and answers; their
transports drop what they are given. System calls and the loop are left out, so the figure is
steady enough to compare two forms of the code, and says nothing about requests a second.
"""

import asyncio
import tempfile
import time
import timeit
from pathlib import Path

from sidecar import is_compiled
from sidecar.audit.decisions import Decisions
from sidecar.audit.files import FileSink
from sidecar.audit.log import AuditLog
from sidecar.dataplane.client import Clients
from sidecar.dataplane.connection import ClientConnection
from sidecar.dataplane.trial import Trial
from sidecar.model.audit import AuditSettings
from sidecar.runtime.clock import SystemClock
from sidecar.telemetry.metrics import Metrics
from sidecar.upstream.connection import UpstreamConnection
from tests.support.proxy import policy, proxy

ROUNDS, EXCHANGES = 7, 20_000
REQUEST = (
    b"POST /v1/models/m:predict HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"
    b"Content-Type: application/json\r\nX-Tenant: acme\r\nContent-Length: 1024\r\n\r\n"
) + b"x" * 1024
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 07:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 200\r\nConnection: keep-alive\r\n\r\n"
) + b"y" * 200


class Dropping:
    """A judge that lets go of every pair: what is left is what capturing both answers costs."""

    def take(self, trial: Trial) -> None:
        trial.book.compare()
        trial.release()


KINDS = {
    "plain": {},
    "mirrored": {"is_mirrored": True},
    "mirrored, captured": {"is_mirrored": True, "judge": Dropping()},
    "audited, denials": {"audited": "denials"},
    "audited, decisions": {"audited": "decisions"},
}


class Sink:
    """A transport that drops what it is given."""

    def write(self, _data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 1) if name == "peername" else None


def connection(upstreams: object, url: str, monotonic_s: object) -> UpstreamConnection:
    """One idle connection in the pool of `url`."""
    pool = upstreams.group((url,)).pick()
    made = UpstreamConnection(pool, monotonic_s)
    made.connection_made(Sink())
    made.idle_since_s, pool.outstanding = 0.0, 1  # in use, as one that was just opened
    pool.release(made)
    return made


def decisions(folder: str) -> Decisions:
    """Audit that takes and encodes everything; nobody links and writes it meanwhile."""
    settings = AuditSettings(dir=folder, buffer_entries=(ROUNDS + 1) * EXCHANGES)
    clock = SystemClock()
    sinks = [FileSink(settings, clock)]
    log = AuditLog(sinks, settings, role="bench", clock=clock, metrics=Metrics())
    return Decisions(log)


async def measure(
    *, is_mirrored: bool = False, judge: Dropping | None = None, audited: str = ""
) -> float:
    """Return the best mean of a round, in microseconds an exchange; `audited` as policies say.

    With a `judge` the answers of the shadow are compared, as far as he does.
    """
    urls = {"v1": "http://127.0.0.1:1", "shadow": "http://127.0.0.1:2"}
    shadow = {"version": "shadow", "methods": ["POST"]} | ({"compare": {}} if judge else {})
    members = {"shadows": [shadow]} if is_mirrored else {}
    if audited:
        members["audit"] = audited
    with tempfile.TemporaryDirectory() as folder:
        async with proxy(policy(urls, **members), Path(folder, "log"), judge=judge) as running:
            plane = running.listener.plane
            plane.audit = decisions(folder) if audited else None
            client = ClientConnection(plane, Clients(1))
            client.connection_made(Sink())
            ends = [connection(plane.upstreams, urls["v1"], plane.monotonic_s)]
            if is_mirrored:
                mirror = plane.mirror.upstreams
                ends.append(connection(mirror, urls["shadow"], plane.monotonic_s))

            def exchange() -> None:
                client.data_received(REQUEST)
                for end in ends:
                    end.write_out()  # what the end of the loop's turn does
                    end.data_received(ANSWER)

            exchange()
            if not all(end.served for end in ends):
                raise SystemExit("nothing was exchanged: the figure would mean nothing")
            best = min(
                timeit.repeat(exchange, timer=time.thread_time, number=EXCHANGES, repeat=ROUNDS)
            )
            client.connection_lost(None)
            for end in ends:
                end.connection_lost(None)
    return best / EXCHANGES * 1e6


if __name__ == "__main__":
    print("compiled" if is_compiled() else "interpreted")
    for name, given in KINDS.items():
        print(f"{name:20} {asyncio.run(measure(**given)):6.2f} us an exchange")
