"""Heads, callers and policies that the tests of this room share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from sidecar.model.identity import JSON, Identity
from sidecar.model.policy import Policy, Rule, Shadow, Version
from sidecar.model.request import RequestHead
from sidecar.policy import key, ruleset
from sidecar.policy.resolver import shadows_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.model.decision import Decision
    from sidecar.policy.snapshot import Snapshot


def make_head(  # noqa: PLR0913  # a request has that many parts
    target: bytes = b"/invocations",
    *,
    method: bytes = b"POST",
    host: bytes = b"models.example",
    request_id: bytes = b"r-1",
    asked_model: bytes | None = None,
    asked_version: bytes | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> RequestHead:
    return RequestHead(
        method=method,
        target=target,
        fields=[b"%b: %b\r\n" % header for header in headers],
        host=host,
        request_id=request_id,
        asked_model=asked_model,
        asked_version=asked_version,
    )


def caller(
    tenant: str = "acme",
    *,
    subject: str = "",
    app: str = "",
    scopes: tuple[str, ...] = (),
    claims: dict[str, JSON] | None = None,
) -> Identity:
    return Identity(tenant=tenant, subject=subject, app=app, scopes=scopes, claims=claims or {})


def make_policy(
    *rules: Rule,
    versions: dict[str, Version] | None = None,
    default: str | None = "v1",
    shadows: tuple[Shadow, ...] = (),
) -> Policy:
    served = versions or {"v1": version(), "v2": version(), "v3": version()}
    return Policy(model="tumor", versions=served, rules=rules, default=default, shadows=shadows)


def due(
    snapshot: Snapshot, identity: Identity, head: RequestHead, decision: Decision
) -> tuple[Shadow, ...]:
    """Return the shadows that get a copy of a request."""
    return tuple(one.shadow for one in shadows_for(snapshot, identity, head, decision).due)


def version() -> Version:
    return Version(endpoints=("http://127.0.0.1:9001",))


@contextmanager
def everything_is_looked_up() -> Iterator[None]:
    """Have few rules found as many are, and by what of a request is most telling."""
    with patch.object(ruleset, "MIN_KEYED", 1), patch.object(key, "MAX_SHARE", 0):
        yield
