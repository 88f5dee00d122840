"""What a request would get, and why, as tools tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sidecar.policy.resolver import resolve, shadows_for
from sidecar.policy.trace import Trace, trace

if TYPE_CHECKING:
    from sidecar.model.decision import Decision
    from sidecar.model.identity import Identity
    from sidecar.model.policy import Shadow
    from sidecar.model.request import RequestHead
    from sidecar.policy.snapshot import Snapshot


class Answer(NamedTuple):
    """A decision and the way to it; `killed` is why the whole model is switched off, if it is."""

    identity: Identity
    decision: Decision
    shadows: tuple[Shadow, ...]
    trace: Trace
    killed: str

    def as_json(self, *, is_brief: bool) -> dict[str, object]:
        """Return all of it, for programs; each step to the decision unless `is_brief`."""
        decision, found = self.decision, self.trace
        code = decision.refusal
        told: dict[str, object] = {
            "model": decision.model,
            "tenant": self.identity.tenant,
            "version": decision.version or None,
            "reason": decision.reason,
            "revision": decision.revision,
            "lineage": decision.lineage or None,
            "rejected": msgspec.to_builtins(decision.rejected),
            "shadows": [shadow.version for shadow in self.shadows],
            "refusal": None
            if code is None
            else {"code": code.slug, "status": code.status, "detail": decision.detail},
        }
        if is_brief:
            return told
        way = {"versions": found.versions, "steps": found.steps, "unreached": found.unreached}
        return told | way


def answer(snapshot: Snapshot, identity: Identity, head: RequestHead) -> Answer:
    """Decide a request by a snapshot, and write down each step."""
    decision = resolve(snapshot, identity, head)
    return Answer(
        identity,
        decision,
        tuple(
            one.shadow
            for one in shadows_for(snapshot, identity, head, decision).due
            if one.may_copy(head)
        ),
        trace(snapshot, identity, head),
        snapshot.kills.get("", ""),
    )
