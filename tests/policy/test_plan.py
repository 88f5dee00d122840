"""Requests replayed through two policies: who moves, and what cannot be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.model.context import Context
from sidecar.model.policy import OnUnavailable, Policy, Rule, Segment, Split, Version
from sidecar.policy.attributes import attributes_of, head_of, identity_of, take, take_grants
from sidecar.policy.bucket import choose
from sidecar.policy.gaps import Gaps
from sidecar.policy.plan import Plan, plan
from sidecar.policy.resolver import resolve
from sidecar.policy.segment import MAX_DEPTH
from sidecar.policy.snapshot import compile_snapshot
from tests.policy.examples import make_policy, version
from tests.policy.policies import TENANTS, VERSIONS, callers, heads, policies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.errors import Code
    from sidecar.model.context import Values
    from sidecar.model.decision import Decision
    from sidecar.model.identity import Identity
    from sidecar.model.policy import Matcher
    from sidecar.model.request import RequestHead

ALL = ("subject", "app", "scope", "method", "claim.level", "claim.org.unit", "header.x-word")
REQUESTS = st.lists(st.tuples(callers(), heads()), min_size=1, max_size=8)
SUBSETS = st.frozensets(st.sampled_from(ALL))
WEIGHTS = st.sampled_from((0.5, 1.0, 2.25, 100.0))  # floats whose sums and differences are exact


def context_of(
    identity: Identity, head: RequestHead, told: Sequence[str] | frozenset[str], **members: float
) -> Context:
    asked = head.asked_version
    made = Context(
        request_id=head.request_id.decode(),
        at_s=head.at_s,
        model="tumor",
        tenant=identity.tenant,
        version="v1",
        reason="DEFAULT",
        revision=1,
        duration_s=0.1,
        instance="here",
        attributes=take(told, identity, head) | take_grants(identity, "tumor"),
        asked_version=None if asked is None else asked.decode("utf-8", "replace"),
    )
    return replace(made, **members)


def of(  # noqa: PLR0913 -- a test names those it means
    tenant: str,
    *,
    at_s: float = 0.0,
    duration_s: float = 0.1,
    instance: str = "here",
    stands_for: float = 1.0,
    served: str = "v1",
    asked: str | None = None,
    **attributes: Values,
) -> Context:
    """Return a context; `_` in the name of an attribute is a dot or a dash of it."""
    return Context(
        request_id=f"r-{tenant}-{at_s}",
        at_s=at_s,
        model="tumor",
        tenant=tenant,
        version=served,
        reason="DEFAULT",
        revision=1,
        duration_s=duration_s,
        instance=instance,
        attributes={name.replace("__", ".").replace("_", "-"): v for name, v in attributes.items()},
        asked_version=asked,
        stands_for=stands_for,
    )


def planned(contexts: Sequence[Context], before: Policy, after: Policy) -> Plan:
    return plan(
        "tumor", contexts, compile_snapshot(before, {}, {}), compile_snapshot(after, {}, {})
    )


def outcome(decision: Decision) -> tuple[str, str, Code | None]:
    return decision.version, decision.reason, decision.refusal


def moved(found: Plan) -> dict[str, tuple[str, str]]:
    return {move.tenant: (move.before, move.after) for move in found.moves}


@given(policies(), st.dictionaries(st.sampled_from(TENANTS[1:]), st.sampled_from(VERSIONS)),
       REQUESTS, SUBSETS)  # fmt: skip
def test_a_decision_without_gaps_is_that_of_the_whole_request(
    policy: Policy,
    pins: dict[str, str],
    requests: list[tuple[Identity, RequestHead]],
    told: frozenset[str],
) -> None:
    snapshot, untouched = compile_snapshot(policy, pins, {}), compile_snapshot(policy, pins, {})
    for identity, head in requests:
        for attributes in (told, attributes_of(policy)):
            context = context_of(identity, head, attributes)
            whole = resolve(untouched, identity, head)
            caller, request = identity_of(context), head_of(context)
            decision = resolve(snapshot, caller, request)

            missing = Gaps(policy, frozenset(context.attributes)).met(caller, request, decision)

            if not missing:
                assert outcome(decision) == outcome(whole)
            if attributes_of(policy) <= context.attributes.keys():
                assert not missing


@settings(max_examples=20)
@given(policies(), REQUESTS)
def test_the_same_policy_moves_nobody(
    policy: Policy, requests: list[tuple[Identity, RequestHead]]
) -> None:
    contexts = [context_of(*one, attributes_of(policy)) for one in requests]

    found = planned(contexts, policy, policy)

    assert found.moves == ()
    assert all(one.before == one.after for one in found.versions)


@settings(max_examples=20)
@given(policies(), st.sampled_from(TENANTS[1:]), st.sampled_from(VERSIONS), REQUESTS)
def test_a_pin_moves_its_tenant_alone(
    policy: Policy, tenant: str, pinned: str, requests: list[tuple[Identity, RequestHead]]
) -> None:
    contexts = [context_of(*one, attributes_of(policy)) for one in requests]
    before, after = compile_snapshot(policy, {}, {}), compile_snapshot(policy, {tenant: pinned}, {})

    found = plan("tumor", contexts, before, after)

    assert {move.tenant for move in found.moves} <= {tenant}
    if policy.on_unavailable is OnUnavailable.REFUSE:
        assert all(move.after in {pinned, ""} for move in found.moves)


@settings(max_examples=20)
@given(policies(), policies(), REQUESTS, st.lists(WEIGHTS, min_size=8, max_size=8))
def test_totals_add_up(
    before: Policy,
    after: Policy,
    requests: list[tuple[Identity, RequestHead]],
    weights: list[float],
) -> None:
    told = attributes_of(before)
    contexts = [
        context_of(*one, told, stands_for=weight)
        for one, weight in zip(requests, weights, strict=False)
    ]

    found = planned(contexts, before, after)

    known = found.requests - found.unknown_requests
    assert found.contexts == len(contexts)
    assert sum(one.before.requests for one in found.versions) == pytest.approx(known)
    assert sum(one.after.requests for one in found.versions) == pytest.approx(known)
    assert sum(one.after.share for one in found.versions) == pytest.approx(1 if known else 0)
    for one in found.versions:
        arrived = sum(move.requests for move in found.moves if move.after == one.version)
        left = sum(move.requests for move in found.moves if move.before == one.version)
        assert one.after.requests == pytest.approx(one.before.requests + arrived - left)
    assert sum(move.requests for move in found.refused) == pytest.approx(
        sum(move.requests for move in found.moves if move.after == "")
    )


def test_a_grown_arm_is_told_by_tenant_and_share() -> None:
    def split(weight: int) -> Policy:
        arms = {"v1": 100 - weight, "v2": weight}
        return make_policy(Rule(id="canary", split=Split(arms=arms)))

    contexts = [of(f"t{n}", at_s=n, stands_for=3) for n in range(400)]

    found = planned(contexts, split(10), split(50))

    v1, v2, refused = found.versions[0], found.versions[1], found.versions[-1]
    assert set(moved(found).values()) == {("v1", "v2")}
    assert (v1.version, v2.version, refused.version) == ("v1", "v2", "v3")
    assert v2.after.requests == v2.before.requests + 3 * len(found.moves)
    assert v2.after.tenants == v2.before.tenants + len(found.moves)
    assert 0.4 < v2.after.share < 0.6
    assert (found.contexts, found.requests, found.unknown_contexts) == (400, 1200, 0)


def test_who_would_be_refused_is_told_with_the_cause() -> None:
    closed = {"v1": Version(endpoints=("http://127.0.0.1:1",), deny=({"tenant": "acme"},))}

    found = planned(
        [of("acme"), of("globex")],
        make_policy(versions={"v1": version()}),
        make_policy(versions=closed),
    )

    [move] = found.refused
    assert (move.tenant, move.before, move.after) == ("acme", "v1", "")
    assert move.reason == "DENIED:not-entitled"
    assert "is open to this caller" in move.detail


def test_an_attribute_that_was_not_looked_at_is_unknown_and_not_absent() -> None:
    rule = Rule(id="beta", when={"header.x-beta": "yes"}, serve="v2")
    told, untold = of("acme", header__x_beta=("yes",)), of("globex", stands_for=3)

    found = planned([told, untold], make_policy(), make_policy(rule))

    assert moved(found) == {"acme": ("v1", "v2")}
    [unknown] = found.unknown
    assert (unknown.attribute, unknown.contexts, unknown.requests) == ("header.x-beta", 1, 3)
    assert (found.unknown_contexts, found.unknown_requests) == (1, 3)


def test_a_gap_that_cannot_matter_leaves_nothing_unknown() -> None:
    rules = (
        Rule(id="pilot", when={"tenant": "acme", "header.x-beta": "yes"}, serve="v2"),
        Rule(id="all", when={"tenant": ("globex", "hooli")}, serve="v3"),
        Rule(id="late", when={"claim.plan": "gold"}, serve="v2"),
    )

    found = planned(
        [of("globex"), of("acme"), of("x", asked="v2")], make_policy(), make_policy(*rules)
    )

    assert moved(found) == {"globex": ("v1", "v3")}
    assert {one.attribute for one in found.unknown} == {"header.x-beta", "claim.plan"}
    assert found.unknown_contexts == 1


def test_an_arm_that_may_be_closed_matters_to_those_who_drew_it_alone() -> None:
    members = Version(endpoints=("http://127.0.0.1:1",), deny=({"claim.plan": "free"},))
    split = Rule(id="half", split=Split(arms={"v1": 1, "v2": 1}))
    after = make_policy(split, versions={"v1": version(), "v2": members})
    contexts = [of(f"t{n}") for n in range(40)]

    found = planned(contexts, make_policy(versions={"v1": version()}), after)

    drawn = sum(choose({"v1": 1, "v2": 1}, "tumor/half", b"t%d" % n) == "v2" for n in range(40))
    assert 0 < drawn < 40
    assert found.unknown_contexts == drawn
    assert found.moves == ()


def test_a_segment_hangs_on_what_its_matchers_ask() -> None:
    after = replace(
        make_policy(Rule(id="vip", when={"segment": "outer"}, serve="v2")),
        segments={
            "inner": Segment(when=({"claim.plan": "gold"},)),
            "outer": Segment(when=({"segment": "inner"},)),
        },
    )

    found = planned([of("acme")], make_policy(), after)

    assert [one.attribute for one in found.unknown] == ["claim.plan"]


def test_segments_are_looked_through_once_however_often_others_name_them() -> None:
    segments = {"s0": Segment(when=({"claim.plan": "gold"},))}
    for n in range(1, MAX_DEPTH):
        before: Matcher = {"segment": f"s{n - 1}"}
        segments[f"s{n}"] = Segment(when=(before,) * 4)
    rule = Rule(id="vip", when={"segment": f"s{MAX_DEPTH - 1}"}, serve="v2")

    # Looked through anew by each that names it, the first would be a thousand million times.
    found = planned([of("acme")], make_policy(), replace(make_policy(rule), segments=segments))

    assert [one.attribute for one in found.unknown] == ["claim.plan"]


def test_a_version_over_its_limit_is_told_by_rate_and_latency() -> None:
    def policy(served: str) -> Policy:
        small = Version(endpoints=("http://127.0.0.1:1",), max_concurrency=4)
        return make_policy(versions={"v1": version(), "v2": small}, default=served)

    # 10 requests a second for 10 seconds, each of half a second, at each of two sidecars.
    contexts = [
        of("acme", at_s=n / 10, duration_s=0.5, instance=instance)
        for instance in ("a", "b")
        for n in range(101)
    ]

    found = planned(contexts, policy("v1"), policy("v2"))

    [over] = found.over
    assert over.version == "v2"
    assert over.after.concurrency == pytest.approx(5, rel=0.02)
    assert over.after.max_concurrency == 4
    assert over.before.concurrency == 0


def test_the_latency_of_a_version_is_its_own_where_it_was_measured() -> None:
    contexts = [of("acme", at_s=n, duration_s=0.1) for n in range(11)]
    contexts += [of("x", at_s=n, duration_s=2.0, served="v2", asked="v2") for n in range(11)]

    found = planned(contexts, make_policy(), make_policy(default="v2"))

    v2 = next(one for one in found.versions if one.version == "v2")
    assert v2.after.concurrency == pytest.approx(22 * 2.0 / 10)


def test_no_contexts_plan_nothing() -> None:
    found = planned([], make_policy(), make_policy(default="v2"))

    assert (found.contexts, found.requests, found.moves, found.unknown) == (0, 0, (), ())


def test_what_is_unknown_still_tells_how_long_was_watched_and_how_fast_versions_are() -> None:
    rule = Rule(id="trial", when={"tenant": "x", "header.x-trial": "yes"}, serve="v1")
    contexts = [of("acme", at_s=100, stands_for=50), of("x", at_s=0, duration_s=1.0, served="v2")]

    found = planned(contexts, make_policy(), make_policy(rule, default="v2"))

    v2 = next(one for one in found.versions if one.version == "v2")
    assert found.unknown_contexts == 1
    assert v2.after.concurrency == pytest.approx(50 * 1.0 / 100)


def test_requests_that_were_decided_otherwise_when_they_came_are_counted() -> None:
    contexts = [of("acme", stands_for=2), of("globex", served="v3", stands_for=5)]

    found = planned(contexts, make_policy(), make_policy())

    assert found.decided_otherwise == 5
    assert found.moves == ()


def test_sidecars_are_counted() -> None:
    found = planned([of("a", instance="x"), of("b", instance="y")], make_policy(), make_policy())

    assert found.instances == 2
