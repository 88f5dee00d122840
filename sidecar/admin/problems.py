"""What the admin API refuses by: stable codes, told as RFC 9457 problems."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPE = "application/problem+json"


class Refusal(Enum):
    """A stable code of the admin API: slug, status and title."""

    MALFORMED_REQUEST = "malformed-request", 400, "Malformed request"
    CREDENTIAL_MISSING = "credential-missing", 401, "Credential missing"
    CREDENTIAL_INVALID = "credential-invalid", 401, "Credential invalid"
    ROLE_TOO_LOW = "role-too-low", 403, "Role too low"
    WRITES_OFF = "writes-off", 403, "Nobody may write"
    HOST_REFUSED = "host-refused", 403, "Host refused"
    BROWSER_REFUSED = "browser-refused", 403, "Page of a browser refused"
    PROXIED = "proxied", 403, "Passed on by a sidecar"
    NOT_FOUND = "not-found", 404, "Not found"
    METHOD_NOT_ALLOWED = "method-not-allowed", 405, "Method not allowed"
    REQUEST_TIMEOUT = "request-timeout", 408, "Request timeout"
    CONFLICT = "conflict", 409, "Changed meanwhile"
    SIGNATURE_REQUIRED = "signature-required", 409, "Signature required"
    STORED_INVALID = "stored-invalid", 409, "What is stored is not valid"
    REVISION_MISMATCH = "revision-mismatch", 412, "Another revision"
    BODY_TOO_LARGE = "body-too-large", 413, "Body too large"
    NOT_JSON = "not-json", 415, "Not JSON"
    INVALID = "invalid", 422, "Not valid"
    REVISION_REQUIRED = "revision-required", 428, "Revision required"
    TOO_MANY_FAILURES = "too-many-failures", 429, "Too many failures"
    SIDECAR_FAULT = "sidecar-fault", 500, "Sidecar fault"
    STORE_UNAVAILABLE = "store-unavailable", 503, "Store unavailable"
    AUDIT_UNAVAILABLE = "audit-unavailable", 503, "Audit unavailable"

    slug: str
    status: int
    title: str

    def __new__(cls, slug: str, status: int, title: str) -> Refusal:
        """Make a member whose value is its slug."""
        member = object.__new__(cls)
        member._value_ = member.slug = slug
        member.status = status
        member.title = title
        return member


class RefusedError(Exception):
    """A request is not done. `problems` are places and reasons in a document, if it has any."""

    def __init__(
        self,
        refusal: Refusal,
        detail: str,
        *,
        retry_after_s: float = 0.0,
        problems: tuple[str, ...] = (),
    ) -> None:
        super().__init__(detail)
        self.refusal = refusal
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.problems = problems


def respond(error: RefusedError, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return what a client is told of a refusal."""
    refusal = error.refusal
    told: dict[str, object] = {
        "type": f"urn:rmv:admin:{refusal.slug}",
        "title": refusal.title,
        "status": refusal.status,
        "code": refusal.slug,
        "detail": error.detail,
    }
    if error.problems:
        told["problems"] = error.problems
    more = dict(headers or {})
    if refusal.status == 401:  # noqa: PLR2004 -- RFC 9110 section 11.6.1
        more["WWW-Authenticate"] = 'Bearer realm="rmv-admin"'
    if error.retry_after_s:
        more["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return web.Response(
        body=msgspec.json.encode(told), status=refusal.status, content_type=TYPE, headers=more
    )
