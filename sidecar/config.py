"""Process configuration: what one sidecar is told at its start, in frozen structs.

Policies are not configuration: they live in Redis and change while it runs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0)]
Algorithm = Literal["RS256", "ES256", "EdDSA", "HS256"]


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """How long each phase of an exchange may take, in seconds."""

    head_s: Seconds = 10.0
    idle_s: Seconds = 75.0  # a kept-alive client connection without a request
    connect_s: Seconds = 1.0
    first_byte_s: Seconds = 60.0  # from the request's last byte to the response's first
    body_idle_s: Seconds = 60.0  # between two pieces of a body, either way
    upstream_idle_s: Seconds = 30.0  # a pooled upstream connection without a request
    drain_s: Seconds = 30.0
    mirror_s: Seconds = 10.0  # a whole mirrored exchange


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of each thing is held at most."""

    head_bytes: Annotated[int, Meta(ge=256)] = 16 * 1024  # HAProxy's buffer
    headers: Annotated[int, Meta(ge=1)] = 100
    token_bytes: Annotated[int, Meta(ge=64)] = 8 * 1024
    body_bytes: Annotated[int, Meta(ge=0)] | None = None  # unlimited unless set
    connections: Annotated[int, Meta(ge=1)] = 10_000
    idle_upstreams: Annotated[int, Meta(ge=0)] = 256  # pooled connections per endpoint
    mirror_body_bytes: Annotated[int, Meta(ge=0)] = 1024 * 1024
    mirror_queue: Annotated[int, Meta(ge=1)] = 1_000  # copies in flight per shadow version
    identities: Annotated[int, Meta(ge=1)] = 10_000  # verified tokens remembered


class IdentitySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose tokens are believed, and which claims say who calls.

    Claim names may be paths: `org.tenant` is member `tenant` of claim `org`.
    """

    jwks_file: str
    issuer: str
    audience: str
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
    tenant_claim: str = "tenant"
    subject_claim: str = "sub"
    app_claim: str = "azp"
    scope_claim: str = "scope"
    leeway_s: Annotated[float, Meta(ge=0, le=300)] = 30.0


class Route(Struct, frozen=True, forbid_unknown_fields=True):
    """Requests of this host and path prefix (both, where both are given) are for `model`."""

    model: str
    host: str = ""
    prefix: str = ""


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """One sidecar. `identity` absent means auth is off, which `no_auth` must confirm."""

    listen: str = "127.0.0.1:8080"
    admin: str | None = "127.0.0.1:8081"
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    redis: str = "embedded"
    state_dir: str = ""  # of the embedded server; empty: $XDG_STATE_HOME/rmv or ~/.local/state/rmv
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "rmv"
    model: str | None = None  # for requests that name no other: the single model it fronts
    routes: tuple[Route, ...] = ()
    identity: IdentitySettings | None = None
    no_auth: bool = False
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    exchange_log: str = "stdout"  # `stdout`, `off` or the path of a file
    decision_headers: bool = True  # X-Model-Version and X-Model-Decision to the client
