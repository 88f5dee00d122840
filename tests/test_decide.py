"""From a head to a verdict; `tests/dataplane/test_decisions.py` sees the same from outside."""

from __future__ import annotations

import msgspec
import pytest

from sidecar import decide as subject
from sidecar.decide import ClaimedTenants, Decider
from sidecar.errors import Code
from sidecar.identity.refusal import TokenRefused
from sidecar.model.decision import Cause
from sidecar.model.identity import ANONYMOUS
from sidecar.model.policy import Policy, Version
from sidecar.model.request import RequestHead
from sidecar.policy.route import RouteTable
from sidecar.policy.snapshot import Snapshot, compile_snapshot
from sidecar.store.live import Contents, LivePolicies

POLICY = {
    "model": "m",
    "versions": {name: {"endpoints": ["http://127.0.0.1:9001"]} for name in ("v1", "v2")},
    "default": "v1",
    "shadows": [{"version": "v2"}],
}


def decider(*, is_loaded: bool = True) -> Decider:
    live = LivePolicies()
    if is_loaded:
        live.replace(Contents(policies={"m": msgspec.json.encode(POLICY)}))
    return Decider(live, RouteTable((), "m"), ClaimedTenants())


def labelled() -> Decider:
    versions = {name: Version(endpoints=("http://127.0.0.1:9001",)) for name in ("v1", "v2")}
    policy = Policy(model="m", versions=versions, labels={"canary": "v2"}, default="v1")
    live = LivePolicies()
    live.snapshots["m"] = compile_snapshot(policy, {}, {})
    return Decider(live, RouteTable((), "m"), ClaimedTenants())


def chained() -> tuple[Snapshot, Decider, LivePolicies]:
    """Decide by versions v1, the default, v2 and v3, each the fallback of the one before."""
    versions = {
        "v1": Version(endpoints=("http://127.0.0.1:9001",), fallback="v2"),
        "v2": Version(endpoints=("http://127.0.0.1:9002",), fallback="v3"),
        "v3": Version(endpoints=("http://127.0.0.1:9003",)),
    }
    snapshot = compile_snapshot(Policy(model="m", versions=versions, default="v1"), {}, {})
    live = LivePolicies()
    live.snapshots["m"] = snapshot
    return snapshot, Decider(live, RouteTable((), "m"), ClaimedTenants()), live


def head(target: bytes = b"/", **members: bytes) -> RequestHead:
    made = RequestHead(b"GET", target, [], host=b"h", request_id=b"id")
    for name, value in members.items():
        setattr(made, name, value)
    return made


def test_a_verdict_has_caller_decision_shadows_and_the_rest_of_the_path() -> None:
    verdict = decider().decide(head(b"/v2/models/m/infer?a", claimed_tenant=b"acme"), 0.0)

    assert verdict.identity.tenant == "acme"
    assert (verdict.decision.version, verdict.decision.reason) == ("v1", "DEFAULT")
    assert [one.shadow.version for one in verdict.shadows.due] == ["v2"]
    assert verdict.rest == b"/infer"


def test_a_path_that_can_be_read_as_another_version_is_refused() -> None:
    for target in (b"/v2/models/m/./versions/v2/infer", b"/v2%2Fmodels%2Fm%2Fversions%2Fv2/infer"):
        decision = decider().decide(head(target), 0.0).decision

        assert (decision.refusal, decision.reason) == (Code.MALFORMED_REQUEST, "DENIED:conflict")


def test_a_version_in_the_path_is_the_one_asked_for_and_not_its_own_shadow() -> None:
    verdict = decider().decide(head(b"/v2/models/m/versions/v2/infer"), 0.0)

    assert (verdict.decision.version, verdict.decision.reason) == ("v2", "EXPLICIT")
    assert not verdict.shadows.is_any


@pytest.mark.parametrize(
    ("target", "asked", "version"),
    [
        (b"/v1/models/m/labels/canary:predict", None, "v2"),
        (b"/v1/models/m/versions/canary:predict", None, "v2"),
        (b"/", b"canary", "v2"),
        (b"/v1/models/m/labels/canary:predict", b"v2", "v2"),
        (b"/v2/models/m/versions/v2/infer", b"canary", "v2"),
    ],
)
def test_a_label_asks_for_its_version(target: bytes, asked: bytes | None, version: str) -> None:
    made = head(target)
    made.asked_version = asked

    verdict = labelled().decide(made, 0.0)

    assert (verdict.decision.version, verdict.decision.reason) == (version, "EXPLICIT")


@pytest.mark.parametrize(
    ("target", "asked", "code"),
    [
        (b"/v1/models/m/labels/gone:predict", None, Code.NO_SUCH_VERSION),
        (b"/v1/models/m/labels/v2:predict", None, Code.NO_SUCH_VERSION),
        (b"/v1/models/m/labels/canary:predict", b"v1", Code.MALFORMED_REQUEST),
        (b"/v1/models/m/labels/gone:predict", b"also-gone", Code.MALFORMED_REQUEST),
    ],
)
def test_a_label_that_is_none_or_of_another_version_is_refused(
    target: bytes, asked: bytes | None, code: Code
) -> None:
    made = head(target)
    made.asked_version = asked

    assert labelled().decide(made, 0.0).decision.refusal is code


def test_all_rules_of_a_request_see_the_time_at_which_it_was_decided() -> None:
    made = head()

    decider().decide(made, 1_234.5)

    assert made.at_s == 1_234.5


@pytest.mark.parametrize(
    ("request_head", "code"),
    [
        (head(b"/v2/models/m/versions/v2/infer", asked_version=b"v1"), Code.MALFORMED_REQUEST),
        (head(b"/v1/models/m/labels/stable:predict"), Code.NO_SUCH_VERSION),
        (head(b"/v2/models/m/versions/%FF/infer"), Code.NO_SUCH_VERSION),
        (head(asked_model=b"other"), Code.NO_SUCH_MODEL),
        (head(asked_version=b"\xff"), Code.NO_SUCH_VERSION),
        (head(claimed_tenant=b"a\x00b"), Code.TENANT_DENIED),
    ],
)
def test_what_cannot_be_decided_is_refused_by_code(request_head: RequestHead, code: Code) -> None:
    verdict = decider().decide(request_head, 0.0)

    assert verdict.decision.refusal is code
    assert verdict.decision.version == ""
    assert not verdict.shadows.is_any


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (head(asked_model=b"other"), "the model of the request has no policy here"),
        (head(b"/v2/models/other/infer"), "the model of the request has no policy here"),
        (head(asked_model=b""), "the request names no model"),
        (head(b"/else"), "the request names no model"),
    ],
)
def test_a_404_tells_whether_the_request_named_a_model(made: RequestHead, told: str) -> None:
    live = LivePolicies()
    live.replace(Contents())

    decision = Decider(live, RouteTable((), None), ClaimedTenants()).decide(made, 0.0).decision

    assert decision.refusal is Code.NO_SUCH_MODEL
    assert decision.detail.startswith(told)
    assert "other" not in decision.detail


@pytest.mark.parametrize(
    ("kills", "after"),
    [
        ({}, ("v2", "FALLBACK:upstream-failed")),
        ({"v2": "why"}, ("v3", "FALLBACK:upstream-failed")),
        ({"": "why"}, None),
    ],
)
def test_a_version_that_failed_is_followed_by_its_fallback_unless_killed_meanwhile(
    kills: dict[str, str], after: tuple[str, str] | None
) -> None:
    snapshot, own, live = chained()
    made = head(claimed_tenant=b"acme")
    failed = own.decide(made, 0.0)

    live.snapshots["m"] = snapshot.with_health(kills, frozenset())
    decision = own.instead(failed, made, Cause.UPSTREAM_FAILED)

    assert (None if decision is None else (decision.version, decision.reason)) == after


def test_a_fallback_is_that_of_the_document_that_decided() -> None:
    _, own, live = chained()
    made = head()
    failed = own.decide(made, 0.0)

    live.snapshots["m"] = compile_snapshot(
        Policy(model="m", versions={"v9": Version(endpoints=("http://127.0.0.1:9001",))}), {}, {}
    )
    decision = own.instead(failed, made, Cause.UPSTREAM_FAILED)

    assert decision is not None
    assert decision.version == "v2"


def test_an_explicit_request_is_followed_by_nobody() -> None:
    _, own, _ = chained()
    made = head(asked_version=b"v1")

    assert own.instead(own.decide(made, 0.0), made, Cause.UPSTREAM_FAILED) is None


def test_nothing_a_client_made_up_is_in_a_decision() -> None:
    decisions = {
        decider().decide(made, 0.0).decision
        for n in range(3)
        for made in (
            head(asked_model=b"other-%d" % n),
            head(asked_version=b"v-%d" % n),
            head(b"/v2/models/m/versions/v-%d/infer" % n),
        )
    }

    assert len(decisions) == 2  # no such model, no such version


def test_before_the_first_load_a_model_may_just_be_late() -> None:
    verdict = decider(is_loaded=False).decide(head(), 0.0)

    assert verdict.decision.refusal is Code.NOT_READY


def test_without_auth_callers_are_whom_they_say() -> None:
    tenants = ClaimedTenants()

    assert tenants.lookup(None, 0.0) is ANONYMOUS
    assert tenants.lookup(b" acme ", 0.0).tenant == "acme"
    assert tenants.lookup(b"acme", 0.0) == tenants.lookup(b"acme", 1.0)


@pytest.mark.parametrize("name", [b"a\tb", b"\xc3\xa9", b"x" * 129, b"a\x7f"])
def test_an_unusable_tenant_is_refused(name: bytes) -> None:
    with pytest.raises(TokenRefused) as refused:
        ClaimedTenants().lookup(name, 0.0)

    assert refused.value.code is Code.TENANT_DENIED


def test_made_up_tenants_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MAX_TENANTS", 10)
    tenants = ClaimedTenants()

    made = [tenants.lookup(b"t%d" % n, 0.0) for n in range(30)]

    assert [one.tenant for one in made] == [f"t{n}" for n in range(30)]
    assert tenants.lookup(b"t5", 0.0) is made[5]
    assert tenants.lookup(b"t25", 0.0) is not made[25]
