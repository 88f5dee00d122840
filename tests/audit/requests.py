"""Requests as audit has them: decided by a real snapshot, told as a worker tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sidecar.audit.chain import Chain
from sidecar.audit.decisions import Decisions
from sidecar.audit.entry import decode, encode
from sidecar.audit.strangers import Strangers
from sidecar.model.record import ExchangeRecord
from sidecar.policy.resolver import resolve
from sidecar.policy.snapshot import compile_snapshot
from sidecar.telemetry.metrics import Metrics
from tests.policy.examples import caller, make_head
from tests.support.clock import HandClock

if TYPE_CHECKING:
    from sidecar.audit.entry import Entry, Event
    from sidecar.audit.log import AuditLog
    from sidecar.model.decision import Decision
    from sidecar.model.identity import Identity
    from sidecar.model.policy import Policy
    from sidecar.model.request import RequestHead
    from sidecar.policy.snapshot import Snapshot


class Kept:
    """Takes what is told to audit."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.strangers = Strangers(1, clock=HandClock(), metrics=Metrics())

    def add(self, one: Event) -> None:
        self.events.append(one)


def record_of(identity: Identity, head: RequestHead, decision: Decision) -> ExchangeRecord:
    """Return what is known of a request that has ended."""
    refusal = decision.refusal
    return ExchangeRecord(
        at_s=head.at_s,
        request_id=head.request_id.decode(),
        method="POST",
        target="/",
        tenant=identity.tenant,
        subject=identity.subject,
        app=identity.app,
        decision=decision,
        status=200 if refusal is None else refusal.status,
        code="" if refusal is None else refusal.slug,
        endpoint="",
        first_byte_s=-1.0,
        duration_s=0.0,
        request_bytes=0,
        response_bytes=0,
    )


def told(snapshot: Snapshot, identity: Identity, head: RequestHead, decision: Decision) -> Event:
    """Return what a worker tells audit of a request."""
    record = record_of(identity, head, decision)
    kept = Kept()
    pin = snapshot.pins.get(identity.tenant)
    Decisions(cast("AuditLog", kept)).take(record, identity, head, snapshot, pin)
    (event,) = kept.events
    return event


def audited(snapshot: Snapshot, identity: Identity, head: RequestHead, decision: Decision) -> Entry:
    """Return the entry of a request, read from the bytes that audit keeps of it."""
    return decode(Chain("worker-x").link(encode(told(snapshot, identity, head, decision))))


def asked(policy: Policy, identity: Identity | None = None) -> Entry:
    """Return what audit has of a request, decided by a policy."""
    snapshot, head = compile_snapshot(policy, {}, {}), make_head()
    identity = identity or caller()
    return audited(snapshot, identity, head, resolve(snapshot, identity, head))
