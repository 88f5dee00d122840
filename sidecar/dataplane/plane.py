"""What all exchanges of one worker share, and how those of one decision travel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.dataplane.spelling import Spelling, TenantLines, deprecation_lines
from sidecar.dataplane.waits import KeyWaits
from sidecar.model.policy import Audited, VersionTimeouts

if TYPE_CHECKING:
    from sidecar.audit.decisions import Decisions
    from sidecar.dataplane.mirror import Mirror
    from sidecar.decide import Decider
    from sidecar.identity.callers import Callers
    from sidecar.model.decision import Decision
    from sidecar.model.limits import Limits, Timeouts
    from sidecar.model.policy import Version
    from sidecar.runtime.clock import Clock
    from sidecar.runtime.ids import RequestIds
    from sidecar.store.live import LivePolicies
    from sidecar.telemetry.metrics import Metrics
    from sidecar.telemetry.recorder import Recorder
    from sidecar.telemetry.sampler import Sampler, Tally
    from sidecar.upstream.pool import Group, Upstreams

MAX_LANES: Final = 4096  # decisions are few; those that list rejected candidates may be many


class Lane:
    """How requests of one decision travel: rendered once, used for each.

    `response_lines` are whole header lines. Bounds are those of the version, else of the settings.
    """

    def __init__(
        self,
        version: Version,
        spelling: Spelling,
        response_lines: bytes,
        group: Group,
        plane: Plane,
    ) -> None:
        self.spelling = spelling
        self.response_lines = response_lines
        self.group = group
        own = version.timeouts or VersionTimeouts()
        self.first_byte_s = own.first_byte_s or plane.first_byte_s
        self.body_idle_s = own.body_idle_s or plane.body_idle_s
        limits = (plane.max_body_bytes, version.max_body_bytes)
        self.max_body_bytes = min([limit for limit in limits if limit is not None], default=None)
        self.is_idempotent = version.idempotent
        self.has_fallback = version.fallback is not None
        self.tally: Tally | None = None
        self.audit: Decisions | None = None  # where every request is told to


class Plane:
    """Shared by all exchanges of a worker. Hot attributes are bound methods, looked up once."""

    def __init__(  # noqa: PLR0913 -- parts, each named where they are wired
        self,
        *,
        decider: Decider,
        live: LivePolicies,
        upstreams: Upstreams,
        mirror: Mirror,
        recorder: Recorder,
        sampler: Sampler,
        metrics: Metrics,
        ids: RequestIds,
        clock: Clock,
        timeouts: Timeouts,
        limits: Limits,
        shows_decisions: bool,
        shows_lineage: bool = False,
        callers: Callers | None = None,
    ) -> None:
        self.decide = decider.decide
        self.instead = decider.instead
        self.live = live
        self.upstreams = upstreams
        self.turns = upstreams.turns
        self.mirror = mirror
        self.recorder = recorder
        self.record = recorder.add
        self.sampler = sampler
        self.metrics = metrics
        self.make_id = ids.make
        self.now_s = clock.now_s
        self.monotonic_s = clock.monotonic_s
        self.timeouts = timeouts
        self.body_idle_s = timeouts.body_idle_s
        self.first_byte_s = timeouts.first_byte_s
        self.limits = limits
        self.max_body_bytes = limits.body_bytes
        self.max_field_parts = 4 * limits.headers
        self.shows_decisions = shows_decisions
        self._shows_lineage = shows_lineage
        self.audit: Decisions | None = None  # told of what is denied, and of all where asked for
        self.is_unaudited = False  # no request may be served, as audit cannot be written
        self.key_waits = KeyWaits(metrics)
        self.callers = callers
        self.is_draining = False
        self.tenant_lines = TenantLines()
        self.lanes: dict[Decision, Lane] = {}
        self.epoch_s = 0.0  # the epoch time at the monotonic clock's zero
        self.read_clock()

    def read_clock(self) -> None:
        """Note the epoch time; between two notes it is told from the monotonic clock."""
        self.epoch_s = self.now_s() - self.monotonic_s()

    def make_lane(self, decision: Decision) -> Lane:
        """Render and keep the lane of a decision that serves a version."""
        version = decision.version
        policy = self.live.snapshots[decision.model].policy
        deployed = policy.versions[version]
        # A parameter as RFC 9651 spells them.
        is_told = self._shows_lineage and decision.lineage
        told = f"{version}; lineage={decision.lineage}" if is_told else version
        lines = f"X-Model-Version: {told}\r\nX-Model-Decision: {decision.reason}\r\n"
        shown = lines.encode("latin-1") if self.shows_decisions else b""
        shown += deprecation_lines(deployed)
        group = self.upstreams.group_of(decision.model, version, deployed)
        if len(self.lanes) >= MAX_LANES:
            self.lanes.clear()
        lane = Lane(deployed, Spelling(policy, version), shown, group, self)
        lane.tally = self.sampler.tally(decision.model)
        if policy.audit is Audited.DECISIONS:
            lane.audit = self.audit
        self.lanes[decision] = lane
        return lane

    def on_refusing(self, is_unaudited: bool) -> None:  # noqa: FBT001 -- audit calls it
        """Refuse requests from now on, or no longer, as audit can or cannot be written."""
        self.is_unaudited = is_unaudited

    def on_policy_change(self, model: str) -> None:
        """Forget what was rendered from the policies before, and endpoints that none names."""
        changed = self.live.snapshots.get(model)
        self.sampler.follow(model, None if changed is None else changed.policy)
        self.lanes.clear()
        if self.audit is not None:
            self.audit.forget(model)
        self.mirror.on_policy_change(model)
        named = {
            url
            for snapshot in self.live.snapshots.values()
            for version in snapshot.policy.versions.values()
            for url in version.endpoints
        }
        self.upstreams.retain_versions(
            (model, version)
            for model, snapshot in self.live.snapshots.items()
            for version in snapshot.policy.versions
        )
        self.upstreams.retain(named)
        self.mirror.upstreams.retain(named)
