"""Segments: include beats exclude beats conditions, and they may name each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from sidecar.model.context import Context
from sidecar.model.policy import Operators, Policy, Rule, Segment, Version
from sidecar.policy.attributes import CLAIMED, attributes_of, identity_of, take
from sidecar.policy.gaps import Gaps
from sidecar.policy.match import Needs
from sidecar.policy.resolver import resolve
from sidecar.policy.segment import MAX_DEPTH, compile_segments
from sidecar.policy.snapshot import compile_snapshot
from tests.policy.examples import caller, make_head

if TYPE_CHECKING:
    from sidecar.model.policy import Matcher

HEAD = make_head()
GOLD: Matcher = {"claim.plan": "gold"}


def test_include_beats_exclude_beats_conditions() -> None:
    beta = compile_segments(
        {"beta": Segment(include=("acme",), exclude=("acme", "globex"), when=(GOLD,))}
    )["beta"]

    assert beta.test(caller("acme"), HEAD)
    assert not beta.test(caller("globex", claims={"plan": "gold"}), HEAD)
    assert beta.test(caller("initech", claims={"plan": "gold"}), HEAD)
    assert not beta.test(caller("initech", claims={"plan": "tin"}), HEAD)


def test_any_matcher_of_when_is_enough() -> None:
    staff = compile_segments({"staff": Segment(when=({"app": "ops"}, {"scope": "staff"}))})["staff"]

    assert staff.test(caller(app="ops"), HEAD)
    assert staff.test(caller(scopes=("staff",)), HEAD)
    assert not staff.test(caller(), HEAD)


def test_membership_by_a_header_follows_each_request_of_an_identity() -> None:
    beta = compile_segments({"beta": Segment(when=({"header.x-beta": True},))})["beta"]
    identity, asking = caller(), make_head(headers=((b"X-Beta", b"true"),))

    assert [beta.test(identity, head) for head in (HEAD, asking, HEAD)] == [False, True, False]


def test_a_caller_without_a_tenant_is_in_no_list() -> None:
    listed = compile_segments({"one": Segment(include=("",)), "two": Segment(exclude=("",))})

    assert not listed["one"].test(caller(""), HEAD)


def test_a_segment_may_name_others_in_any_order() -> None:
    compiled = compile_segments(
        {
            "outer": Segment(when=({"segment": ("inner", "other"), "app": "web"},)),
            "other": Segment(include=("globex",)),
            "inner": Segment(include=("acme",)),
            "rest": Segment(when=({"segment": Operators(not_in=("outer",))},)),
        }
    )

    assert compiled["outer"].test(caller("acme", app="web"), HEAD)
    assert not compiled["outer"].test(caller("acme", app="ios"), HEAD)
    assert not compiled["outer"].test(caller("initech", app="web"), HEAD)
    assert compiled["rest"].test(caller("initech"), HEAD)
    assert not compiled["rest"].test(caller("globex", app="web"), HEAD)


@pytest.mark.parametrize(
    "when", [{"segment": "b"}, {"segment": "a"}, {"segment": Operators(exists=True)}]
)
def test_a_circle_is_refused(when: Matcher) -> None:
    with pytest.raises(ValueError, match="circle"):
        compile_segments({"a": Segment(when=(when,)), "b": Segment(when=({"segment": "a"},))})


def test_names_that_lead_too_deep_are_refused() -> None:
    chain = {f"s{n}": Segment(when=({"segment": f"s{n + 1}"},)) for n in range(5_000)}
    end = {"s5000": Segment(include=("acme",))}
    short = {f"s{n}": chain[f"s{n}"] for n in range(5_001 - MAX_DEPTH, 5_000)}

    assert compile_segments(short | end)[f"s{5_001 - MAX_DEPTH}"].test(caller("acme"), HEAD)
    with pytest.raises(ValueError, match="deep"):
        compile_segments(chain | end)


def test_an_unknown_segment_is_refused() -> None:
    with pytest.raises(KeyError):
        compile_segments({"a": Segment(when=({"segment": "gone"},))})


@pytest.mark.parametrize(
    ("segment", "needed"),
    [
        (Segment(include=("acme",)), Needs.TENANT),
        (Segment(exclude=("acme",), when=({},)), Needs.TENANT),
        (Segment(include=("acme",), when=(GOLD,)), Needs.IDENTITY),
        (Segment(when=({"header.x-beta": True},)), Needs.REQUEST),
        (Segment(when=({"time": Operators(until="2026-01-01T00:00:00Z")},)), Needs.REQUEST),
        (Segment(when=({"segment": "gold"},)), Needs.IDENTITY),
    ],
)
def test_a_segment_needs_what_its_matchers_need(segment: Segment, needed: Needs) -> None:
    compiled = compile_segments({"one": segment, "gold": Segment(when=(GOLD,))})

    assert compiled["one"].needs is needed


def test_a_segment_of_lists_alone_knows_its_tenants() -> None:
    compiled = compile_segments(
        {
            "listed": Segment(include=("acme", "globex"), exclude=("globex", "initech")),
            "open": Segment(include=("acme",), when=(GOLD,)),
        }
    )

    assert compiled["listed"].tenants == frozenset({"acme", "globex"})
    assert compiled["open"].tenants is None


@pytest.mark.parametrize(
    ("base", "first"),
    [
        ({"header.x": "no"}, {"header.h": Operators(exists=False)}),
        ({"tenant": "nobody"}, {"tenant": Operators(not_in=("nobody",))}),
        ({"claim.x": "no"}, {"app": Operators(exists=False)}),
    ],
)
def test_a_segment_is_looked_at_once_for_a_request(base: Matcher, first: Matcher) -> None:
    segments = {"s0": Segment(when=(base,))}
    for n in range(1, MAX_DEPTH):
        before: Matcher = {"segment": f"s{n - 1}", **first}
        segments[f"s{n}"] = Segment(when=(before,) * 4)
    last = compile_segments(segments)[f"s{MAX_DEPTH - 1}"]

    # Asked anew by each that names it, the first would be asked a thousand million times.
    assert not last.test(caller("acme"), make_head())


def test_an_answer_is_that_of_the_caller_and_not_of_the_head_alone() -> None:
    beta = compile_segments({"beta": Segment(when=({"path": "/", "tenant": "acme"},))})["beta"]
    head = make_head(b"/")

    assert [beta.test(caller(tenant), head) for tenant in ("globex", "acme", "globex")] == [
        False,
        True,
        False,
    ]


def test_a_claimed_segment_takes_in_whose_token_lists_it() -> None:
    compiled = compile_segments(
        {
            "beta": Segment(include=("acme",), exclude=("globex",), when=(GOLD,), claimed=True),
            "plain": Segment(include=("acme",)),
            "outer": Segment(when=({"segment": "beta"},)),
        }
    )
    beta, outer = compiled["beta"], compiled["outer"]

    assert beta.test(replace(caller("initech"), segments=("other", "beta")), HEAD)
    assert outer.test(replace(caller("initech"), segments=("beta",)), HEAD)
    assert beta.test(caller("initech", claims={"plan": "gold"}), HEAD)
    assert beta.test(caller("acme"), HEAD)
    assert not beta.test(replace(caller("initech"), segments=("betas", "Beta")), HEAD)
    assert not beta.test(replace(caller("globex"), segments=("beta",)), HEAD)
    assert not compiled["plain"].test(replace(caller("initech"), segments=("plain",)), HEAD)
    assert (beta.needs, beta.tenants, compiled["plain"].needs) == (
        Needs.IDENTITY, None, Needs.TENANT,
    )  # fmt: skip


def test_what_a_token_lists_is_kept_of_a_request_only_where_a_segment_asks() -> None:
    identity = replace(caller("initech"), segments=("beta", "gold"))
    versions = {"v1": Version(endpoints=("http://127.0.0.1:9001",))}
    claimed = Policy(model="m", versions=versions, segments={"beta": Segment(claimed=True)})
    plain = Policy(model="m", versions=versions, segments={"beta": Segment(include=("acme",))})

    taken = take(attributes_of(claimed), identity, HEAD)
    context = Context(
        request_id="r", at_s=1.0, model="m", tenant="initech", version="v1", reason="DEFAULT",
        revision=1, duration_s=0.1, instance="i", attributes=taken,
    )  # fmt: skip

    assert taken == {CLAIMED: ("beta", "gold")}
    assert identity_of(context).segments == identity.segments
    assert take(attributes_of(plain), identity, HEAD) == {}


def test_a_decision_hangs_on_what_a_token_lists_if_that_was_not_kept() -> None:
    versions = {name: Version(endpoints=("http://127.0.0.1:9001",)) for name in ("v1", "v2")}
    policy = Policy(
        model="m",
        versions=versions,
        segments={
            "beta": Segment(exclude=("globex",), claimed=True),
            "all": Segment(include=("acme",)),
        },
        rules=(
            Rule(id="beta", when={"segment": "beta"}, serve="v2"),
            Rule(id="all", when={"segment": "all"}, serve="v2"),
        ),
        default="v1",
    )
    decision = resolve(compile_snapshot(policy, {}, {}), caller("initech"), HEAD)

    assert Gaps(policy, frozenset()).met(caller("initech"), HEAD, decision) == {CLAIMED}
    assert Gaps(policy, frozenset({CLAIMED})).met(caller("initech"), HEAD, decision) == frozenset()
