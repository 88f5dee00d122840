"""What commands do, told to audit: where the settings say, and in the store's stream if it has one.

A sidecar with `audit.stream` has begun that stream: so whoever changes something by `rmv` is in it,
also with a command that was told of no settings.
"""

from __future__ import annotations

from sidecar.app.auditing import signing_key
from sidecar.audit.command import record as record_event
from sidecar.audit.entry import event
from sidecar.audit.files import FileSink
from sidecar.audit.outlet import Sink
from sidecar.audit.stream import StreamSink
from sidecar.cli.failure import advised
from sidecar.cli.options import user
from sidecar.cli.session import Session
from sidecar.errors import AuditUnwritableError
from sidecar.model.audit import Kind
from sidecar.model.identity import JSON
from sidecar.runtime.clock import SystemClock


async def record(session: Session, kind: Kind, actor: str | None = None, **facts: JSON) -> None:
    """Tell audit of a control action that has been done; `actor` is who, else this user.

    `facts` are as in `AuditLog.note`.

    Raises:
        AuditUnwritableError: it is done, and not in audit.
    """
    settings, clock = session.config.audit, SystemClock()
    sinks: list[Sink] = [FileSink(settings, clock)] if settings.dir else []
    if settings.stream or await session.store.is_audited():
        sinks.append(StreamSink(session.store, settings.stream_entries))
    if not sinks:
        return
    done = event(kind, clock.now_s(), {"actor": actor or user(), **facts})
    try:
        await record_event(sinks, done, signing_key(settings))
    except AuditUnwritableError as error:
        msg = f"it is done, but audit did not take it ({kind.value}): {error}"
        raise advised(AuditUnwritableError(msg), "Tell your auditors of it yourself.") from error
