"""What audit has of a request is enough to decide it again, and to see what was changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.audit.again import again
from sidecar.model.decision import Cause
from sidecar.model.policy import Lineage, Policy, Rule, Segment, Split, Version
from sidecar.policy import codec
from sidecar.policy.resolver import fallback_of, resolve
from sidecar.policy.snapshot import compile_snapshot
from sidecar.policy.trace import Asked
from tests.audit.requests import asked, audited
from tests.policy.examples import caller, make_head, make_policy, version
from tests.policy.policies import KILLS, PINS, UNREADY, callers, heads, policies

if TYPE_CHECKING:
    from sidecar.model.identity import Identity
    from sidecar.model.request import RequestHead


def committed(policy: Policy) -> Policy:
    """Return a policy as a history gives it back."""
    return codec.decode(codec.encode(policy), source="")


@given(policies(), PINS, KILLS, UNREADY, st.tuples(callers(), heads()))
def test_a_request_is_decided_again_as_it_was(
    policy: Policy,
    pins: dict[str, str],
    kills: dict[str, str],
    unready: frozenset[str],
    request: tuple[Identity, RequestHead],
) -> None:
    snapshot = compile_snapshot(policy, pins, kills, unready)
    entry = audited(snapshot, *request, resolve(snapshot, *request))

    found = again(entry, committed(policy))

    assume(not found.missing)  # a claim that no matcher compares, say
    assert found.differences == ()
    assert found.parting is None


LATER = Cause.UPSTREAM_FAILED, Cause.UPSTREAM_TIMEOUT, Cause.OVERLOADED


@given(
    policies(),
    st.tuples(callers(), heads()),
    st.lists(st.sampled_from(LATER), min_size=1, max_size=3),
)
def test_versions_that_failed_then_fail_again(
    policy: Policy, request: tuple[Identity, RequestHead], causes: list[Cause]
) -> None:
    snapshot = compile_snapshot(policy, {}, {})
    decision = resolve(snapshot, *request)
    for cause in causes:
        decision = fallback_of(snapshot, *request, decision, cause) or decision
    entry = audited(snapshot, *request, decision)

    found = again(entry, committed(policy))

    assume(not found.missing)
    assert found.differences == ()


@pytest.mark.parametrize("cause", LATER)
def test_who_served_in_the_place_of_one_that_failed_serves_again(cause: Cause) -> None:
    policy = make_policy(*_RULES, versions=_FALLING_BACK)
    snapshot, request = compile_snapshot(policy, {}, {}), (caller(), make_head())
    first = resolve(snapshot, *request)
    second = fallback_of(snapshot, *request, first, cause)
    assert second is not None

    found = again(audited(snapshot, *request, second), committed(policy))

    assert (found.trace.decision.version, found.decision.version) == ("v2", "v1")
    assert found.decision.reason == f"FALLBACK:{cause.value}"
    assert found.differences == ()


def test_a_version_that_was_put_into_the_entry_is_seen() -> None:
    entry = asked(make_policy(Rule(id="acme", when={"tenant": "acme"}, serve="v2")))

    found = again(replace(entry, version="v3"), make_policy(*_RULES))

    assert [(one.what, one.then, one.now) for one in found.differences] == [
        ("version", "v3", "v2"),
    ]
    assert found.parting is not None
    assert (found.parting.asked, found.parting.of) == (Asked.RULE, "acme")


_RULES = (Rule(id="acme", when={"tenant": "acme"}, serve="v2"),)
_FALLING_BACK = {"v1": version(), "v2": replace(version(), fallback="v1")}


def test_ways_part_at_the_first_step_that_went_otherwise() -> None:
    entry = asked(make_policy())  # by default
    earlier = again(entry, make_policy(*_RULES))
    later = again(asked(make_policy(*_RULES)), make_policy())

    assert earlier.parting is not None
    assert (earlier.parting.asked, earlier.parting.version) == (Asked.RULE, "v2")
    assert later.parting is None or later.parting.asked is Asked.DEFAULT


def test_another_split_draws_otherwise_at_the_split() -> None:
    one = make_policy(Rule(id="canary", split=Split(arms={"v1": 1, "v2": 0})))
    other = make_policy(Rule(id="canary", split=Split(arms={"v1": 0, "v2": 1})))

    found = again(asked(one), other)

    assert {one.what for one in found.differences} == {"version"}
    assert found.parting is not None
    assert found.parting.draw is not None


def test_another_lineage_is_a_difference_though_nothing_was_decided_by_it() -> None:
    made = Version(endpoints=("http://127.0.0.1:9001",), lineage=Lineage(run="r1"))
    entry = asked(make_policy(versions={"v1": made}))

    found = again(entry, make_policy(versions={"v1": version()}))

    assert [one.what for one in found.differences] == ["lineage"]


def test_a_claim_that_audit_does_not_have_is_missing() -> None:
    policy = make_policy(Rule(id="gold", when={"claim.plan": "gold"}, serve="v2"))
    entry = asked(policy, caller(claims={"plan": "x" * 300}))  # too long to be kept

    assert again(entry, policy).missing == ("claim.plan",)


def test_a_pin_and_a_kill_of_that_moment_count_and_no_others() -> None:
    policy = make_policy()
    snapshot = compile_snapshot(policy, {"acme": "v2"}, {"v2": "leaks"})
    head, identity = make_head(), caller()
    entry = audited(snapshot, identity, head, resolve(snapshot, identity, head))

    assert entry.reason == "DENIED:killed"
    assert again(entry, policy).differences == ()
    assert entry.inputs is not None
    unpinned = replace(entry, inputs=replace(entry.inputs, pin=None))
    assert [one.what for one in again(unpinned, policy).differences][:2] == ["version", "reason"]


def test_versions_without_a_healthy_endpoint_at_that_moment_count() -> None:
    policy, head, identity = make_policy(*_RULES, versions=_FALLING_BACK), make_head(), caller()
    snapshot = compile_snapshot(policy, {}, {}, frozenset({"v2"}))
    entry = audited(snapshot, identity, head, resolve(snapshot, identity, head))

    assert (entry.version, entry.rejected) == ("v1", {"v2": "not-ready"})
    assert again(entry, committed(policy)).differences == ()
    assert entry.inputs is not None
    healthy = replace(entry, inputs=replace(entry.inputs, unready=()))
    assert next(one.what for one in again(healthy, policy).differences) == "version"


def test_what_a_token_grants_and_lists_counts_again() -> None:
    beta = Rule(id="beta", when={"segment": "beta"}, serve="v2")
    policy = replace(make_policy(beta), segments={"beta": Segment(claimed=True)})
    listed = replace(caller(), segments=("beta",))
    granted = replace(listed, grants={"tumor": ("v1",)})

    entries = [asked(policy, one) for one in (caller(), listed, granted)]

    assert [one.reason for one in entries] == ["DEFAULT", "RULE:beta", "DEFAULT"]
    found = [again(one, committed(policy)) for one in entries]
    assert [one.differences for one in found] == [()] * 3
    assert [one.missing for one in found] == [()] * 3
