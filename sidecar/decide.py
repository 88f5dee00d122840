"""From a request's head to the decision about it; every listener decides through here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import Code
from sidecar.identity.callers import without_token
from sidecar.identity.refusal import TokenRefused
from sidecar.model.decision import Cause, Decision, Reason
from sidecar.model.identity import ANONYMOUS, NO_TENANT_CLAIMED, Identity, is_tenant
from sidecar.model.route import AMBIGUOUS
from sidecar.policy.compiled import NO_SHADOWS, Drawn
from sidecar.policy.resolver import fallback_of, resolve, shadows_for

if TYPE_CHECKING:
    from sidecar.identity.cache import IdentityCache
    from sidecar.identity.callers import Caller
    from sidecar.model.request import RequestHead
    from sidecar.model.route import Route
    from sidecar.policy.route import RouteTable
    from sidecar.policy.snapshot import Snapshot
    from sidecar.store.live import LivePolicies

MAX_TENANTS = 10_000  # remembered without auth; any client can name new ones


class Verdict:
    """Who calls, what was decided, and for which shadows the request is eligible.

    `rest` is what follows model and version in an inference path, for the version's rewrite.
    """

    __slots__ = ("decision", "identity", "rest", "shadows", "snapshot")

    def __init__(
        self,
        identity: Identity,
        decision: Decision,
        rest: bytes = b"",
        shadows: Drawn = NO_SHADOWS,
        snapshot: Snapshot | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.identity = identity
        self.decision = decision
        self.rest = rest
        self.shadows = shadows

    def but(self, decision: Decision) -> Verdict:
        """Return this verdict with another decision."""
        return Verdict(self.identity, decision, self.rest, self.shadows, self.snapshot)


class Pending(Verdict):
    """The verdict for now: the token names a key that is being looked for, one of `issuer`."""

    __slots__ = ("issuer",)

    def __init__(self, decision: Decision, issuer: str) -> None:
        super().__init__(ANONYMOUS, decision)
        self.issuer = issuer


class ClaimedTenants:
    """Identities by `X-Tenant`, for a sidecar that was told to check no tokens."""

    def __init__(self) -> None:
        self._known: dict[bytes | None, Identity] = {None: ANONYMOUS}

    def lookup(self, tenant: bytes | None, _now_s: float) -> Identity:
        """Return the identity of a claimed tenant; raises TokenRefused for an unusable name."""
        known = self._known.get(tenant)
        if known is not None:
            return known
        name = (tenant or b"").decode("latin-1").strip()
        if name and not is_tenant(name):
            raise TokenRefused(Code.TENANT_DENIED, NO_TENANT_CLAIMED)
        identity = Identity(tenant=name)
        if len(self._known) < MAX_TENANTS:
            self._known[tenant] = identity
        return identity


def _ask(head: RequestHead, route: Route, snapshot: Snapshot) -> Decision | None:
    """Make a version named in the path the one that is asked for; return what is wrong with it."""
    labels = snapshot.policy.labels
    name = labels.get(route.label, "") if route.label is not None else route.version or ""
    asked = name.encode("utf-8", "surrogateescape")
    if head.asked_version not in {None, asked} and not _is_same(snapshot, head, name):
        detail = "the path and X-Model-Version name different versions"
        reason = f"{Reason.DENIED.value}:conflict"
        return Decision("", "", reason, 0, refusal=Code.MALFORMED_REQUEST, detail=detail)
    head.asked_version = asked
    return None


def _is_same(snapshot: Snapshot, head: RequestHead, name: str) -> bool:
    """Return whether a label and a name, or two labels, are of one version."""
    named = snapshot.named(name)
    asked = head.asked_version or b""
    return named is not None and named is snapshot.named(asked.decode("utf-8", "replace"))


class Decider:
    """Identity, route and resolution, on one snapshot a request."""

    def __init__(
        self, live: LivePolicies, routes: RouteTable, identities: IdentityCache | ClaimedTenants
    ) -> None:
        self._live = live
        self._routes = routes
        self._lookup = identities.lookup
        self._is_authenticated = not isinstance(identities, ClaimedTenants)

    def decide(self, head: RequestHead, now_s: float, caller: Caller | None = None) -> Verdict:
        """Return the verdict on a request whose head has arrived; `now_s` is epoch seconds.

        `caller` is who calls over its connection, if there is no bearer token.
        """
        claim = head.authorization if self._is_authenticated else head.claimed_tenant
        try:
            identity = None if caller is None else without_token(caller, head, now_s)
            if identity is None:
                identity = self._lookup(claim, now_s)
        except TokenRefused as refused:
            reason = f"{Reason.DENIED.value}:{refused.code.slug}"
            decision = Decision("", "", reason, 0, refusal=refused.code, detail=refused.detail)
            if refused.awaits:
                return Pending(decision, refused.awaits)
            return Verdict(ANONYMOUS, decision)
        head.at_s = now_s
        snapshots = self._live.snapshots
        route = self._routes.find(head)
        model = route.model
        snapshot = snapshots.get(model) if model else None
        if snapshot is None:
            return Verdict(identity, self._no_snapshot(route))
        if route.version is not None or route.label is not None:
            conflict = _ask(head, route, snapshot)
            if conflict is not None:
                return Verdict(identity, conflict)
        decision = resolve(snapshot, identity, head)
        if decision.refusal is not None or not snapshot.shadows:
            return Verdict(identity, decision, route.rest, NO_SHADOWS, snapshot)
        shadows = shadows_for(snapshot, identity, head, decision)
        return Verdict(identity, decision, route.rest, shadows, snapshot)

    def instead(self, verdict: Verdict, head: RequestHead, failed: Cause) -> Decision | None:
        """Return the decision for the fallback of a version that `failed`, or None.

        By the document that the request was decided on, whatever has been committed since. What was
        killed since is out, unless another document has come as well.
        """
        snapshot = verdict.snapshot
        if snapshot is None:
            return None
        now = self._live.snapshots.get(snapshot.model)
        if now is not None and now.compiled is snapshot.compiled:
            snapshot = now
        if snapshot.model_killed is not None:
            return None
        return fallback_of(snapshot, verdict.identity, head, verdict.decision, failed)

    def _no_snapshot(self, route: Route) -> Decision:
        if route is AMBIGUOUS:
            detail = "the path names another model or version once it is decoded and resolved"
            reason = f"{Reason.DENIED.value}:conflict"
            return Decision("", "", reason, 0, refusal=Code.MALFORMED_REQUEST, detail=detail)
        # The model is left out: clients can make up any number of names, and metrics keep them.
        if not self._live.is_loaded:
            detail = "policies are not loaded yet"
            return Decision("", "", "DENIED:not-ready", 0, refusal=Code.NOT_READY, detail=detail)
        detail = "the model of the request has no policy here"
        if not route.model:
            detail = "the request names no model: neither a route, nor X-Model, nor its path does"
        reason = f"{Reason.DENIED.value}:{Cause.MODEL.value}"
        return Decision("", "", reason, 0, refusal=Code.NO_SUCH_MODEL, detail=detail)
