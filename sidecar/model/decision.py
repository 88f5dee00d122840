"""Where one request goes, and why."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from sidecar.errors import Code


class Reason(Enum):
    """Why a version was chosen or refused; stable strings: headers, metrics and audit carry them.

    RULE, SPLIT, FALLBACK and DENIED are followed by `:` and the id or the cause.
    """

    KILLED = "KILLED"
    EXPLICIT = "EXPLICIT"
    PINNED = "PINNED"
    TARGET = "TARGET"
    RULE = "RULE"
    SPLIT = "SPLIT"
    DEFAULT = "DEFAULT"
    FALLBACK = "FALLBACK"
    DENIED = "DENIED"


class Cause(Enum):
    """Why a candidate version was rejected, or a caller denied; stable strings."""

    UNKNOWN = "unknown"  # no such version in the policy
    NOT_ENTITLED = "not-entitled"
    KILLED = "killed"
    NOT_ACTIVE = "not-active"  # registered or warming
    DRAINING = "draining"  # serves those alone who are pinned to it or ask for it
    RETIRED = "retired"
    NOT_READY = "not-ready"  # none of its endpoints is healthy
    INCOMPATIBLE = "incompatible"  # none of its `accepts` fits
    UPSTREAM_FAILED = "upstream-failed"  # it was asked, and failed before an answer began
    UPSTREAM_TIMEOUT = "upstream-timeout"
    OVERLOADED = "overloaded"
    RULE = "rule"  # a rule's `deny`
    MODEL = "model"  # no such model
    NO_DEFAULT = "no-default"  # nothing chose a version


class Rejected(Struct, frozen=True, gc=False):
    """A version that was considered and may not serve, with the cause."""

    version: str
    cause: Cause


class Decision(Struct, frozen=True, cache_hash=True, gc=False, omit_defaults=True):
    """The resolver's whole answer for one request.

    `version` is empty when the request is refused; then `refusal` says with which code and
    `detail` in words fit for the caller. `reason` is spelled as `Reason` says, e.g. `SPLIT:canary`.
    `lineage` is the digest of what the version was made from, empty where that is not told.
    """

    model: str
    version: str
    reason: str
    revision: int
    rejected: tuple[Rejected, ...] = ()
    refusal: Code | None = None
    detail: str = ""
    lineage: str = ""
