"""An entry of a request has all that the exchange and its decision have, each in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from msgspec.structs import asdict, replace

from sidecar.audit.decisions import Decisions
from sidecar.audit.entry import Event, Inputs
from sidecar.errors import Code
from sidecar.model.decision import Cause, Decision, Rejected
from sidecar.model.policy import Rule
from sidecar.policy.snapshot import compile_snapshot
from tests.audit.requests import Kept, record_of
from tests.policy.examples import caller, make_head, make_policy

if TYPE_CHECKING:
    from sidecar.audit.log import AuditLog

SERVED = Decision(
    model="tumor",
    version="v1",
    reason="RULE:gold",
    revision=7,
    rejected=(Rejected("v2", Cause.NOT_READY), Rejected("v3", Cause.KILLED)),
    lineage=f"sha256:{'a' * 64}",
)
POLICY = make_policy(Rule(id="gold", when={"claim.plan": "gold", "header.x-a": "b"}, serve="v1"))


def event_of(decision: Decision, **changes: str | float) -> Event:
    """Return what audit is told of a request that was answered late."""
    identity = replace(
        caller(subject="ada", app="console", claims={"plan": "gold", "secret": "s"}),
        grants={"tumor": ("v1", "v2")},
    )
    head = make_head(
        request_id=b"r-7",
        asked_version=b"v1",
        headers=((b"X-A", b"b"), (b"X-B", b"c"), (b"Authorization", b"Bearer secret")),
    )
    head.at_s = 1000.25
    snapshot = compile_snapshot(POLICY, {"acme": "v2"}, {"v3": "leaks"}, frozenset({"v2", "v1"}))
    record = replace(record_of(identity, head, decision), duration_s=0.75, **changes)
    kept = Kept()
    Decisions(cast("AuditLog", kept)).take(record, identity, head, snapshot, "v2")
    (event,) = kept.events
    return event


def test_a_decision_is_told_whole_and_nothing_besides() -> None:
    assert asdict(event_of(SERVED)) == asdict(
        Event(
            at_s=1000.25,
            kind="decision",
            request_id="r-7",
            tenant="acme",
            subject="ada",
            app="console",
            model="tumor",
            version="v1",
            lineage=f"sha256:{'a' * 64}",
            revision=7,
            reason="RULE:gold",
            rule="gold",
            rejected={"v2": "not-ready", "v3": "killed"},
            status=200,
            duration_s=0.75,
            inputs=Inputs(
                attributes={"claim.plan": ("gold",), "header.x-a": ("b",)},
                asked_version="v1",
                pin="v2",
                kills={"v3": "leaks"},
                unready=("v1", "v2"),
                grants={"tumor": ("v1", "v2")},
            ),
        )
    )


def test_a_version_that_failed_is_told_with_the_error_that_was_answered() -> None:
    event = event_of(SERVED, status=504, code="upstream-timeout")

    assert (event.kind, event.version) == ("decision", "v1")
    assert (event.status, event.code) == (504, "upstream-timeout")


def test_a_refusal_is_told_as_denied_with_its_cause() -> None:
    refused = replace(
        SERVED, version="", reason="DENIED:killed", lineage="", refusal=Code.NO_ELIGIBLE_VERSION
    )

    event = event_of(refused)

    assert (event.kind, event.version, event.rule, event.lineage) == ("denied", "", "", "")
    assert (event.reason, event.revision) == ("DENIED:killed", 7)
    assert (event.status, event.code) == (503, "no-eligible-version")
    assert event.rejected == {"v2": "not-ready", "v3": "killed"}
