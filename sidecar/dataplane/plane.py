"""What all exchanges of one worker share, and how those of one decision travel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sidecar.policy.rewrite import compile_rewrite

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config import Limits, Timeouts
    from sidecar.dataplane.mirror import Mirror
    from sidecar.decide import Verdict
    from sidecar.model.decision import Decision
    from sidecar.model.request import RequestHead
    from sidecar.runtime.clock import Clock
    from sidecar.runtime.ids import RequestIds
    from sidecar.store.live import LivePolicies
    from sidecar.telemetry.metrics import Metrics
    from sidecar.telemetry.recorder import Recorder
    from sidecar.upstream.pool import Group, Pool, Upstreams

MAX_LANES: Final = 4096  # decisions are few; those that list rejected candidates may be many


@dataclass(frozen=True, slots=True)
class Spelling:
    """How requests are spelled for one version.

    `lines` are whole header lines to add; `rewrite` takes the target and what follows the model
    in it.
    """

    lines: bytes
    rewrite: Callable[[bytes, bytes], bytes] | None


@dataclass(frozen=True, slots=True)
class Lane:
    """How requests of one decision travel: rendered once, used for each.

    `response_lines` are whole header lines; `pick` returns the pool of the next endpoint.
    """

    request_lines: bytes
    rewrite: Callable[[bytes, bytes], bytes] | None
    response_lines: bytes
    pick: Callable[[], Pool]


class TenantLines(dict[str, bytes]):
    """`X-Tenant` lines by tenant; bounded."""

    def __missing__(self, tenant: str) -> bytes:
        line = b"X-Tenant: %b\r\n" % tenant.encode("latin-1") if tenant else b""
        if len(self) < MAX_LANES:
            self[tenant] = line
        return line


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that a plane ties together."""

    decide: Callable[[RequestHead, float], Verdict]
    live: LivePolicies
    upstreams: Upstreams
    recorder: Recorder
    metrics: Metrics
    ids: RequestIds
    clock: Clock


class Plane:
    """Shared by all exchanges of a worker. Hot attributes are bound methods, looked up once."""

    def __init__(
        self, services: Services, timeouts: Timeouts, limits: Limits, *, shows_decisions: bool
    ) -> None:
        self.services = services
        self.timeouts = timeouts
        self.limits = limits
        self.metrics = services.metrics
        self.live = services.live
        self.decide = services.decide
        self.record = services.recorder.add
        self.make_id = services.ids.make
        self.now_s = services.clock.now_s
        self.monotonic_s = services.clock.monotonic_s
        self.tenant_lines = TenantLines()
        self.is_draining = False
        self.shows_decisions = shows_decisions
        self.mirror: Mirror | None = None  # set by the listener's wiring
        self._lanes: dict[Decision, Lane] = {}
        self._groups: dict[tuple[str, str], Group] = {}

    def lane(self, decision: Decision) -> Lane:
        """Return the lane of a decision that serves a version."""
        return self._lanes.get(decision) or self._make_lane(decision)

    def group(self, model: str, version: str) -> Group:
        """Return the endpoints of a version of the policy in force."""
        key = model, version
        if key not in self._groups:
            declared = self.live.snapshots[model].policy.versions[version]
            self._groups[key] = self.services.upstreams.group(declared.endpoints)
        return self._groups[key]

    def on_policy_change(self, _model: str) -> None:
        """Forget what was rendered from the policies before, and endpoints that none names."""
        self._lanes.clear()
        self._groups.clear()
        self.services.upstreams.retain(
            url
            for snapshot in self.live.snapshots.values()
            for version in snapshot.policy.versions.values()
            for url in version.endpoints
        )
        if self.mirror is not None:
            self.mirror.forget_lanes()

    def spelling(self, model: str, version: str) -> Spelling:
        """Return how requests are spelled for a version of the policy in force."""
        lines = f"X-Model-Version: {version}\r\n"
        rewrite = self.live.snapshots[model].policy.versions[version].rewrite
        if rewrite is None:
            return Spelling(lines.encode("latin-1"), None)
        lines += "".join(f"{name}: {value}\r\n" for name, value in rewrite.headers.items())
        return Spelling(lines.encode("latin-1"), compile_rewrite(rewrite, model, version))

    def _make_lane(self, decision: Decision) -> Lane:
        model, version = decision.model, decision.version
        spelling = self.spelling(model, version)
        lines = f"X-Model-Version: {version}\r\nX-Model-Decision: {decision.reason}\r\n"
        lane = Lane(
            spelling.lines,
            spelling.rewrite,
            lines.encode("latin-1") if self.shows_decisions else b"",
            self.group(model, version).pick,
        )
        if len(self._lanes) >= MAX_LANES:
            self._lanes.clear()
        self._lanes[decision] = lane
        return lane
