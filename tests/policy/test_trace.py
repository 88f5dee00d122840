"""A trace tells every step of the very decision that the resolver takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.model.decision import Cause, Rejected
from sidecar.model.policy import Operators, Policy, Rule, Segment, Split
from sidecar.policy.codec import decode, encode
from sidecar.policy.resolver import resolve
from sidecar.policy.snapshot import compile_snapshot
from sidecar.policy.trace import Asked, Checked, Draw, Outcome, Trace, trace
from tests.policy.examples import caller, make_head, make_policy
from tests.policy.policies import KILLS, PINS, UNREADY, callers, heads, policies

if TYPE_CHECKING:
    from sidecar.model.identity import Identity
    from sidecar.model.request import RequestHead

GLOBEX = Rule(id="globex", when={"tenant": "globex", "header.x-beta": True}, serve="v2")
CANARY = Rule(id="canary", split=Split(arms={"v1": 90, "v2": 10}))


def traced(policy: Policy, identity: Identity, **kills: str) -> Trace:
    return trace(compile_snapshot(policy, {}, kills), identity, make_head())


@given(policies(), PINS, KILLS, UNREADY, st.tuples(callers(), heads()))
def test_a_trace_ends_in_the_decision_of_the_resolver(
    policy: Policy,
    pins: dict[str, str],
    kills: dict[str, str],
    unready: frozenset[str],
    request: tuple[Identity, RequestHead],
) -> None:
    snapshot = compile_snapshot(decode(encode(policy), source=""), pins, kills, unready)
    identity, head = request

    told = trace(snapshot, identity, head)

    assert told.decision == replace(resolve(snapshot, identity, head), detail="")
    served = [step.version for step in told.steps if step.outcome is Outcome.SERVES]
    assert served == ([told.decision.version] if told.decision.version else [])
    for one in told.versions:
        assert (one.by_name is Cause.NOT_ENTITLED) == (one.barrier is not None)
    rejected = [one for step in told.steps for one in step.rejected]
    assert set(told.decision.rejected) <= set(rejected)


@given(policies(), st.tuples(callers(), heads()))
def test_a_rule_matches_when_every_condition_of_it_holds(
    policy: Policy, request: tuple[Identity, RequestHead]
) -> None:
    told = trace(compile_snapshot(policy, {}, {}), *request)

    rules = [step for step in told.steps if step.asked is Asked.RULE]
    for rule, step in zip(policy.rules, rules, strict=False):
        assert [one.attribute for one in step.conditions] == list(rule.when)
        assert (step.outcome is Outcome.NO) != all(one.holds for one in step.conditions)
    asked = [step.asked for step in told.steps]
    is_by_rules = Asked.PIN in asked and Asked.EXPLICIT in asked
    assert len(rules) + told.unreached == len(policy.rules)
    assert is_by_rules or not rules


def test_a_rule_that_does_not_match_says_which_condition_failed_and_on_what() -> None:
    told = traced(make_policy(GLOBEX), caller("globex"))

    assert told.steps[3].outcome is Outcome.NO
    assert told.steps[3].conditions == (
        Checked("tenant", "globex", ["globex"], holds=True),
        Checked("header.x-beta", wanted=True, seen=[], holds=False),
    )
    assert [(step.asked, step.outcome) for step in told.steps] == [
        (Asked.KILL, Outcome.NO),
        (Asked.EXPLICIT, Outcome.NO),
        (Asked.PIN, Outcome.NO),
        (Asked.RULE, Outcome.NO),
        (Asked.DEFAULT, Outcome.SERVES),
    ]


def test_a_draw_is_told_with_the_arms_that_were_left() -> None:
    told = traced(make_policy(CANARY, GLOBEX), caller("acme"), v2="wrong scores")

    assert told.steps[-1].draw == Draw("tenant", "acme", {"v1": 90}, "v1")
    assert told.steps[-1].rejected == (Rejected("v2", Cause.KILLED),)
    assert told.unreached == 1


def test_a_split_without_its_key_draws_nothing() -> None:
    told = traced(make_policy(CANARY), caller(""))

    assert told.steps[3].outcome is Outcome.PASSED_OVER
    assert told.steps[3].draw == Draw("tenant", None, {"v1": 90, "v2": 10}, None)


def test_segments_and_time_are_told_as_they_were_found() -> None:
    rule = Rule(
        id="window",
        when={"segment": ("pilots", "others"), "time": Operators(until="2026-01-01T00:00:00Z")},
        serve="v2",
    )
    policy = replace(
        make_policy(rule),
        segments={"pilots": Segment(include=("acme",)), "others": Segment(exclude=("acme",))},
    )
    head = make_head()
    head.at_s = 1_767_225_600.0  # 2026-01-01T00:00:00Z: just too late

    told = trace(compile_snapshot(policy, {}, {}), caller("acme"), head)

    segment, time = told.steps[3].conditions
    assert (segment.seen, segment.holds) == (["pilots"], True)
    assert (time.seen, time.holds) == (["2026-01-01T00:00:00+00:00"], False)
