"""How connections to endpoints are kept, by all pools of one worker."""

from __future__ import annotations

from msgspec import Struct, field

from sidecar.runtime.inbox import Inbox
from sidecar.runtime.turns import Turns
from sidecar.upstream.dial import Dialer


class PoolSettings(Struct, frozen=True):
    """How a pool behaves; times in seconds."""

    connect_timeout_s: float = 1.0
    idle_timeout_s: float = 30.0
    max_idle: int = 256
    hides_decisions: bool = True  # X-Model-* of the upstream are replaced by the sidecar's
    queue_timeout_s: float = 1.0  # of a request that waits for another one of its version to end
    workers: int = 1  # that share the concurrency of a version
    traffic: str = "requests"  # what is sent, as metrics and log tell it: these, or their "copies"
    dialer: Dialer = field(default_factory=Dialer)
    turns: Turns = field(default_factory=Turns)
    inbox: Inbox = field(default_factory=Inbox)
