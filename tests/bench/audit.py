"""What audit costs: a decision that is told, and a million entries that are verified.

.venv/bin/python -m tests.bench.audit [ENTRIES]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar import is_compiled
from sidecar.audit.decisions import Decisions
from sidecar.audit.files import FileReader, FileSink, files_in
from sidecar.audit.log import AuditLog
from sidecar.audit.verify import Verifier
from sidecar.model.audit import AuditSettings
from sidecar.model.decision import Decision
from sidecar.model.identity import Identity
from sidecar.model.record import ExchangeRecord
from sidecar.model.request import RequestHead
from sidecar.policy import codec
from sidecar.policy.snapshot import compile_snapshot
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.ed25519 import PrivateKey
from sidecar.telemetry.metrics import Metrics

ENTRIES = 1_000_000
AT_ONCE = 10_000  # between two turns of the loop, as a busy worker would in a third of a second
POLICY = {
    "model": "fraud",
    "audit": "decisions",
    "versions": {"v1": {"endpoints": ["http://127.0.0.1:9001"]}},
    "rules": [
        {"id": "beta", "when": {"header.x-beta": "yes"}, "serve": "v1"},
        {"id": "gold", "when": {"claim.plan": "gold", "method": "POST"}, "serve": "v1"},
    ],
    "default": "v1",
}


async def main() -> None:
    """Print the figures."""
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else ENTRIES
    with tempfile.TemporaryDirectory() as folder:
        key = PrivateKey(Ed25519PrivateKey.generate())
        await _write(Path(folder), entries, key)
        _verify(Path(folder), key)


async def _write(folder: Path, entries: int, key: PrivateKey) -> None:
    settings = AuditSettings(dir=str(folder), files=100_000, buffer_entries=entries + AT_ONCE)
    clock = SystemClock()
    log = AuditLog([FileSink(settings, clock)], settings, role="bench", clock=clock,
                   metrics=Metrics(), key=key)  # fmt: skip
    take = Decisions(log).take
    snapshot = compile_snapshot(codec.load(msgspec.json.encode(POLICY), source="the bench"), {}, {})
    identity = Identity("acme", "ada", "console", claims={"plan": "silver"})
    head = RequestHead(b"POST", b"/infer", [b"X-Beta: no\r\n"], request_id=b"0" * 32)
    decision = Decision("fraud", "v1", "DEFAULT", 1)
    record = ExchangeRecord(
        clock.now_s(), "0" * 32, "POST", "/infer", "acme", "ada", "console", decision, 200, "",
        "http://127.0.0.1:9001", 0.001, 0.002, 1024, 1024,
    )  # fmt: skip
    await log.start()
    told_s = 0.0
    began_s, cpu_s = time.perf_counter(), time.process_time()
    for _ in range(0, entries, AT_ONCE):
        at_s = time.thread_time()
        for _ in range(AT_ONCE):
            take(record, identity, head, snapshot, None)
        told_s += time.thread_time() - at_s
        await asyncio.sleep(0)
    await log.close()
    cpu_s = time.process_time() - cpu_s
    spent_s = time.perf_counter() - began_s
    size = sum(path.stat().st_size for path in files_in(folder)) / entries
    form = "compiled" if is_compiled() else "interpreted"
    print(f"{entries:,} decisions of {size:.0f} bytes, one file sink, signed every 1,000 ({form})")
    print(f"  told and encoded            {told_s / entries * 1e6:6.2f} us a decision")
    print(f"  all, hashed and written     {cpu_s / entries * 1e6:6.2f} us of CPU a decision")
    print(f"  that is                     {entries / spent_s:,.0f} decisions a second")


def _verify(folder: Path, key: PrivateKey) -> None:
    verifier = Verifier(key.public.verify, is_whole=True)
    began_s, cpu_s = time.perf_counter(), time.process_time()
    for path, lines in FileReader(folder).pages():
        verifier.read(path.name, lines)
    (chain,) = verifier.end(SystemClock().now_s())
    spent_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    if verifier.faults or not chain.is_ended or chain.notes:
        raise SystemExit(f"not what was written: {verifier.faults or chain.notes}")
    print(f"{chain.entries:,} entries verified, {chain.checkpoints:,} of them signed")
    print(f"  in                          {spent_s:6.2f} s, {cpu_s:.2f} of them CPU")
    print(f"  that is                     {cpu_s / chain.entries * 1e6:6.2f} us of CPU an entry")


if __name__ == "__main__":
    asyncio.run(main())
