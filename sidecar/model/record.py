"""What one exchange did."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from sidecar.model.decision import Decision

CLIENT_GONE: Final = "client-gone"  # recorded, never sent: nobody is there to read it
CLIENT_GONE_STATUS: Final = 499  # nginx's, known to every log reader


class ExchangeRecord(Struct, frozen=True, gc=False, omit_defaults=True):
    """What is known when an exchange ends: the only thing metrics and logs see.

    Times are seconds; `at_s` is epoch time of the last byte of the head. `first_byte_s` and
    `duration_s` count from there; `first_byte_s` is -1 when no response came from an upstream.
    `code` is the slug of the error the sidecar answered with. Sizes are body bytes.
    """

    at_s: float
    request_id: str
    method: str
    target: str
    tenant: str
    subject: str
    app: str
    decision: Decision
    status: int
    code: str
    endpoint: str
    first_byte_s: float
    duration_s: float
    request_bytes: int
    response_bytes: int
    is_stale: bool = False
    shadows: tuple[str, ...] = ()
