"""Records of exchanges as a test wants them."""

from __future__ import annotations

import msgspec

from sidecar.model.decision import Decision
from sidecar.model.record import ExchangeRecord

DECISION = Decision("m", "v1", "SPLIT:canary", 3)
_PLAIN = ExchangeRecord(
    at_s=1_800_000_000.5,
    request_id="id-1",
    method="POST",
    target="/infer?a=\xff",
    tenant="acme",
    subject="ada",
    app="console",
    decision=DECISION,
    status=200,
    code="",
    endpoint="http://127.0.0.1:9001",
    first_byte_s=0.002,
    duration_s=0.003,
    request_bytes=10,
    response_bytes=20,
)


def record(**changes: str | float | Decision | tuple[str, ...]) -> ExchangeRecord:
    """Return a record that differs from a plain one in `changes`."""
    return msgspec.structs.replace(_PLAIN, **changes)
