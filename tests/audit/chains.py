"""Chains in real files, and what a reader says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.audit.files import FileSink, files_in
from sidecar.audit.log import AuditLog
from sidecar.audit.verify import ChainReport, Fault, Head, Verifier
from sidecar.model.audit import AuditSettings
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.ed25519 import PrivateKey
from sidecar.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sidecar.audit.outlet import Sink
    from sidecar.runtime.clock import Clock

KEY = PrivateKey(Ed25519PrivateKey.generate())


def settings_for(folder: Path, **others: object) -> AuditSettings:
    """Small files, and a checkpoint every ten entries."""
    own = {"dir": str(folder), "file_bytes": 4096, "files": 100, "checkpoint_entries": 10}
    return AuditSettings(**{**own, **others})  # type: ignore[arg-type]


def log_of(
    settings: AuditSettings,
    *,
    sinks: list[Sink] | None = None,
    clock: Clock | None = None,
    metrics: Metrics | None = None,
    key: PrivateKey | None = KEY,
) -> AuditLog:
    clock = clock or SystemClock()
    return AuditLog(
        [FileSink(settings, clock)] if sinks is None else sinks,
        settings,
        role="worker",
        clock=clock,
        metrics=metrics or Metrics(),
        key=key,
    )


async def write(folder: Path, entries: int, *, key: PrivateKey | None = KEY) -> None:
    """Write a chain of so many entries, its first and last and the checkpoints aside."""
    log = log_of(settings_for(folder), key=key)
    for number in range(entries):
        log.note("denied", request_id=f"request-{number}", model="fraud", tenant="acme")
    await log.close()


def lines_in(folder: Path) -> list[bytes]:
    return [line for path in files_in(folder) for line in path.read_bytes().splitlines()]


def rewrite(folder: Path, lines: list[bytes]) -> None:
    """Put other lines into the files, as if they had been written so: all into the first."""
    first, *others = files_in(folder)
    first.write_bytes(b"".join(line + b"\n" for line in lines))
    for path in others:
        path.unlink()


class Outcome(NamedTuple):
    """What a reader says."""

    faults: list[Fault]
    chains: list[ChainReport]
    notes: list[str]


def verified(
    lines: Iterable[bytes],
    *,
    key: PrivateKey | None = KEY,
    is_whole: bool = True,
    known: Iterable[Head] = (),
) -> Outcome:
    verify = None if key is None else key.public.verify
    verifier = Verifier(verify, is_whole=is_whole, known=known)
    verifier.read("log", enumerate(lines, 1))
    chains = verifier.end(SystemClock().now_s())
    return Outcome(verifier.faults, chains, verifier.notes)
