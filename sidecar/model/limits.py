"""The numbers that bound an exchange: how long, how much, how many."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MAX_S = 604_800  # a week: what is meant to last longer is a mistake, and `inf` is no number in JSON
Seconds = Annotated[float, Meta(ge=0.01, le=MAX_S)]


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """How long each phase of an exchange may take, in seconds."""

    head_s: Seconds = 10.0
    idle_s: Seconds = 75.0  # a kept-alive client connection without a request
    connect_s: Seconds = 1.0
    first_byte_s: Seconds = 60.0  # from the request's last byte to the response's first
    body_idle_s: Seconds = 60.0  # between two pieces of a body, either way
    tunnel_idle_s: Seconds = 300.0  # an upgraded connection without a byte, either way
    upstream_idle_s: Seconds = 30.0  # a pooled upstream connection without a request
    queue_s: Seconds = 1.0  # for a request of a version that is busy, see `max_concurrency`
    drain_s: Seconds = 30.0
    drain_tunnel_s: Seconds = 60.0  # the same for upgraded connections, if it is longer
    drain_idle_s: Annotated[float, Meta(ge=0, le=MAX_S)] = 1.0  # for requests on their way
    worker_start_s: Seconds = 30.0  # for a new worker to get ready, before the old one is kept
    worker_hang_s: Seconds = 30.0  # for a worker that answers no more, before it is killed
    mirror_s: Seconds = 10.0  # a copy in line; its answer to begin; and that to end


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of each thing is held at most."""

    head_bytes: Annotated[int, Meta(ge=256)] = 16 * 1024  # HAProxy's buffer
    headers: Annotated[int, Meta(ge=1)] = 100
    token_bytes: Annotated[int, Meta(ge=64)] = 8 * 1024
    body_bytes: Annotated[int, Meta(ge=0)] | None = None  # unlimited unless set
    connections: Annotated[int, Meta(ge=1)] = 10_000
    body_pace_bytes: Annotated[int, Meta(ge=1)] = 1024  # of a body, in each `body_idle_s`
    idle_upstreams: Annotated[int, Meta(ge=0)] = 256  # pooled connections per endpoint
    mirror_body_bytes: Annotated[int, Meta(ge=0)] = 1024 * 1024
    mirror_queue: Annotated[int, Meta(ge=1)] = 1_000  # copies in flight per shadow version
    mirror_connections: Annotated[int, Meta(ge=1)] = 64  # per shadow version
    mirror_memory_bytes: Annotated[int, Meta(ge=0)] = 64 * 1024 * 1024  # of all copies
    compare_cpu_share: Annotated[float, Meta(ge=0, le=1)] = 0.1  # of a core, for answers of shadows
    identities: Annotated[int, Meta(ge=1)] = 10_000  # verified tokens remembered
