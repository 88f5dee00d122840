"""What one command did, as a chain of one entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.audit.chain import Chain
from sidecar.audit.entry import encode
from sidecar.audit.log import writer_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.audit.entry import Event
    from sidecar.audit.outlet import Sink
    from sidecar.runtime.ed25519 import PrivateKey


async def record(sinks: Sequence[Sink], done: Event, key: PrivateKey | None = None) -> None:
    """Keep what was done in each of `sinks`, signed if there is a key.

    Raises:
        AuditUnwritableError: one of them did not take it; those before it have.
    """
    body = encode(done)
    for sink in sinks:
        chain = Chain(writer_name("command"))
        line = chain.link(body, None if key is None else key.sign, is_last=True)
        await sink.append([line])
        await sink.close()
