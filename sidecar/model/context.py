"""What a decision was made from: kept of some requests, so that other policies can be tried."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from sidecar.model.policy import Scalar

Values = tuple[Scalar, ...]
"""What an attribute of a request holds; nothing when it has none."""


class Context(Struct, frozen=True, omit_defaults=True):
    """One request, as far as policies look at requests: no body, no token, no query.

    `attributes` has what the policy of its time asked for, by the names of matchers; an attribute
    without values was absent, one that is not there was not looked at. What is always told stands
    apart. `version` is empty for a refused request, and `code` then says with which error.
    `stands_for` requests of this worker this one was taken from; `duration_s` is as in its record.
    """

    request_id: str
    at_s: float
    model: str
    tenant: str
    version: str
    reason: str
    revision: int
    duration_s: float
    instance: str
    attributes: dict[str, Values] = {}
    asked_version: str | None = None
    rejected: dict[str, str] = {}  # version -> cause
    code: str = ""
    stands_for: float = 1.0


class ContextSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How many contexts are taken, and how long they are kept."""

    per_second: Annotated[int, Meta(ge=0, le=10_000)] = 10  # of a worker; 0 takes none
    per_model: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000  # kept in the store
    keep_s: Annotated[int, Meta(ge=1, le=366 * 86_400)] = 86_400
