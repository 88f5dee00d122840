"""The one place that turns an error code into a response (RFC 9457)."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from sidecar.errors import Code

RETRY_AFTER_S: Final = 1
_INVALID: Final = frozenset((Code.TOKEN_INVALID, Code.TOKEN_EXPIRED))


class Problem(Struct):
    """The body of an error response."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


def problem_response(
    code: Code, detail: str, request_id: bytes, extra: bytes
) -> tuple[bytes, bytes]:
    """Return head and body of the response for `code`.

    `extra` are whole header lines that are put before the empty line. Nothing a client sent is
    echoed but its request id, which has been checked.
    """
    body = msgspec.json.encode(
        Problem(
            f"urn:rmv:problem:{code.slug}",
            code.title,
            code.status,
            detail,
            code.slug,
            request_id.decode("ascii"),
        )
    )
    return _head(code, len(body), extra), body


def _head(code: Code, body_bytes: int, extra: bytes) -> bytes:
    lines = [
        f"HTTP/1.1 {code.status} {code.title}",
        "Content-Type: application/problem+json",
        f"Content-Length: {body_bytes}",
        "Cache-Control: no-store",
    ]
    if code is Code.TOKEN_MISSING:
        lines.append('WWW-Authenticate: Bearer realm="rmv"')  # RFC 6750 section 3.1: no error code
    elif code in _INVALID:
        lines.append(f'WWW-Authenticate: Bearer realm="rmv", error="invalid_token", '
                     f'error_description="{code.title}"')  # fmt: skip
    elif code.status == 503:  # noqa: PLR2004 -- RFC 9110 section 10.2.3
        lines.append(f"Retry-After: {RETRY_AFTER_S}")
    return "\r\n".join(lines).encode() + b"\r\n" + extra + b"\r\n"
