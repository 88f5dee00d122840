"""What an exchange leaves in audit: the decision, what came of it, and what it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.audit.entry import Event, Inputs
from sidecar.model.audit import Kind
from sidecar.model.identity import ANONYMOUS
from sidecar.policy.attributes import MAX_VERSION_CHARS, attributes_of, take

if TYPE_CHECKING:
    from sidecar.audit.log import AuditLog
    from sidecar.model.decision import Decision
    from sidecar.model.identity import Identity
    from sidecar.model.record import ExchangeRecord
    from sidecar.model.request import RequestHead
    from sidecar.policy.compiled import CompiledPolicy
    from sidecar.policy.snapshot import Snapshot

MAX_KNOWN: Final = 4096  # decisions; those that list rejected candidates may be many
_RULED: Final = frozenset(("RULE", "SPLIT"))  # reasons that an id follows


class _Known(NamedTuple):
    """What every request of one decision has in common."""

    kind: str
    rule: str
    rejected: dict[str, str]


class Decisions:
    """Makes events of exchanges. Nothing here waits, and no head or body outlives the call."""

    def __init__(self, log: AuditLog, *, are_callers_known: bool = True) -> None:
        """Tell `log`; where `are_callers_known` is false, nobody has shown who they are."""
        self._add = log.add
        self._admit = log.strangers.admit
        self._are_callers_known = are_callers_known
        self._known: dict[Decision, _Known] = {}
        self._attributes: dict[str, tuple[CompiledPolicy, frozenset[str]]] = {}

    def take(
        self,
        record: ExchangeRecord,
        identity: Identity,
        head: RequestHead,
        snapshot: Snapshot | None,
        pin: str | None,
    ) -> None:
        """Take an exchange that has ended; `pin` is what its tenant was pinned to as it began."""
        decision = record.decision
        is_stranger = identity is ANONYMOUS or not self._are_callers_known
        if is_stranger and decision.refusal and not self._admit(decision.refusal.slug):
            return
        known = self._known.get(decision) or self._know(decision)
        # By position: twenty names a request would cost as much as all else here.
        self._add(
            Event(
                record.at_s,
                known.kind,
                record.request_id,
                "",
                record.tenant,
                record.subject,
                record.app,
                decision.model,
                decision.version,
                decision.lineage,
                decision.revision,
                decision.reason,
                known.rule,
                known.rejected,
                record.status,
                record.code,
                record.duration_s,
                None if snapshot is None else self._inputs(identity, head, snapshot, pin),
            )
        )

    def forget(self, model: str) -> None:
        """Let go of a model's policy, which another one has replaced."""
        self._attributes.pop(model, None)

    def _inputs(
        self, identity: Identity, head: RequestHead, snapshot: Snapshot, pin: str | None
    ) -> Inputs:
        compiled, attributes = self._attributes.get(snapshot.model, (None, frozenset()))
        if compiled is not snapshot.compiled:
            attributes = attributes_of(snapshot.policy)
            self._attributes[snapshot.model] = snapshot.compiled, attributes
        asked = head.asked_version
        return Inputs(
            take(attributes, identity, head),
            None if asked is None else _version_text(asked),
            pin,
            snapshot.kills,
            tuple(sorted(snapshot.unready)) if snapshot.unready else (),
            identity.grants,
        )

    def _know(self, decision: Decision) -> _Known:
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        reason, _, rule = decision.reason.partition(":")
        known = self._known[decision] = _Known(
            (Kind.DECISION if decision.refusal is None else Kind.DENIED).value,
            rule if reason in _RULED else "",
            {one.version: one.cause.value for one in decision.rejected},
        )
        return known


def _version_text(asked: bytes) -> str:
    return asked.decode("utf-8", "replace")[:MAX_VERSION_CHARS]
