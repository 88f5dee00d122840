"""What can go wrong, named once: a stable code, its status, whose fault it is."""

from __future__ import annotations

from enum import Enum


class Source(Enum):
    """Who caused the failure."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    SIDECAR = "sidecar"


class Code(Enum):
    """A stable error code of the HTTP contract: slug, status, title and source (RFC 9457).

    The slug is what clients, metrics and logs see; it never changes its meaning.
    """

    MALFORMED_REQUEST = "malformed-request", 400, "Malformed request", Source.CLIENT
    TOKEN_MISSING = "token-missing", 401, "Token missing", Source.CLIENT
    TOKEN_INVALID = "token-invalid", 401, "Token invalid", Source.CLIENT
    TOKEN_EXPIRED = "token-expired", 401, "Token expired", Source.CLIENT
    VERSION_FORBIDDEN = "version-forbidden", 403, "Version forbidden", Source.CLIENT
    TENANT_DENIED = "tenant-denied", 403, "Tenant denied", Source.CLIENT
    NO_SUCH_MODEL = "no-such-model", 404, "No such model", Source.CLIENT
    NO_SUCH_VERSION = "no-such-version", 404, "No such version", Source.CLIENT
    REQUEST_TIMEOUT = "request-timeout", 408, "Request timeout", Source.CLIENT
    VERSION_UNAVAILABLE = "version-unavailable", 409, "Version unavailable", Source.SIDECAR
    BODY_TOO_LARGE = "body-too-large", 413, "Body too large", Source.CLIENT
    HEAD_TOO_LARGE = "head-too-large", 431, "Head too large", Source.CLIENT
    SIDECAR_FAULT = "sidecar-fault", 500, "Sidecar fault", Source.SIDECAR
    NOT_IMPLEMENTED = "not-implemented", 501, "Not implemented", Source.CLIENT
    UPSTREAM_FAILED = "upstream-failed", 502, "Upstream failed", Source.UPSTREAM
    NO_ELIGIBLE_VERSION = "no-eligible-version", 503, "No eligible version", Source.SIDECAR
    OVERLOADED = "overloaded", 503, "Overloaded", Source.SIDECAR
    NOT_READY = "not-ready", 503, "Not ready", Source.SIDECAR
    DRAINED = "drained", 503, "Drained", Source.SIDECAR
    AUDIT_UNAVAILABLE = "audit-unavailable", 503, "Audit unavailable", Source.SIDECAR
    UPSTREAM_TIMEOUT = "upstream-timeout", 504, "Upstream timeout", Source.UPSTREAM

    slug: str
    status: int
    title: str
    source: Source

    def __new__(cls, slug: str, status: int, title: str, source: Source) -> Code:
        """Make a member whose value is its slug: what it is written as."""
        member = object.__new__(cls)
        member._value_ = member.slug = slug
        member.status = status
        member.title = title
        member.source = source
        return member


class SidecarError(Exception):
    """Base of every error that this package raises on purpose; its text is fit for an operator."""


class StoreUnavailableError(SidecarError):
    """Redis did not answer in time, or not at all."""


class StoreRefusedError(StoreUnavailableError):
    """Redis answered that it does not: rights, a password, a replica that takes no writes."""


class WrongTypeError(StoreUnavailableError):
    """A key that this program uses holds another type of value; the text names it."""


class HistoryError(SidecarError):
    """A history does not take the next revision; the text says why, and what to do."""


class RegistryError(SidecarError):
    """A registry of models cannot be asked, refuses, or has no such thing."""


class StoreConflictError(SidecarError):
    """A commit lost the race: the document changed since it was read."""


class AuditUnwritableError(SidecarError):
    """Entries of audit cannot be kept just now; the text says where, and why."""


class ConfigError(SidecarError):
    """The process configuration cannot be used; the text names the setting and the reason."""
