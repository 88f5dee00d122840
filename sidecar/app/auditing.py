"""The audit of a process that serves, wired from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.audit.files import FileSink
from sidecar.audit.log import AuditLog
from sidecar.audit.stream import StreamSink

if TYPE_CHECKING:
    from sidecar.audit.outlet import Sink
    from sidecar.audit.stream import AuditStore
    from sidecar.model.audit import AuditSettings
    from sidecar.runtime.clock import Clock
    from sidecar.runtime.ed25519 import PrivateKey
    from sidecar.telemetry.metrics import Metrics


def audit_log(
    settings: AuditSettings, store: AuditStore, *, role: str, clock: Clock, metrics: Metrics
) -> AuditLog:
    """Return the audit of a process of this `role`; raises KeyFileError for a key of no use."""
    sinks: list[Sink] = []
    if settings.dir:
        sinks.append(FileSink(settings, clock))
    if settings.stream:
        sinks.append(StreamSink(store, settings.stream_entries))
    key = signing_key(settings) if sinks else None
    return AuditLog(sinks, settings, role=role, clock=clock, metrics=metrics, key=key)


def signing_key(settings: AuditSettings) -> PrivateKey | None:
    """Return what signs checkpoints, if anything does; raises KeyFileError."""
    if not settings.key_file:
        return None
    # Only who signs pays for it: cryptography is a fifth of a worker's memory.
    from sidecar.runtime.ed25519 import load_private  # noqa: PLC0415

    return load_private(settings.key_file)
