"""What is valid and never happens is warned of, and nothing else is."""

from __future__ import annotations

import pytest
from msgspec import structs

from sidecar.model.policy import Condition, Matcher, Operators, Rule, Segment, Shadow, Version
from sidecar.policy.validate import validate, warnings
from tests.policy.examples import make_policy

NOW_S = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def odd(attribute: str, condition: Condition) -> list[str]:
    policy = make_policy(Rule(id="r", when={attribute: condition}, serve="v1"))
    assert validate(policy) == ()
    return [str(one).removeprefix("rules[0].when.") for one in warnings(policy, "", NOW_S)]


@pytest.mark.parametrize(
    ("attribute", "condition", "warning"),
    [
        ("tenant", Operators(in_=("",)), "tenant.in[0]: an empty text matches nobody"),
        ("app", Operators(in_=("a", "")), "app.in[1]: an empty text matches nobody"),
        ("app", Operators(in_=("a",), not_in=("a", "b")), "app.in: matches nobody: all of it"),
        ("app", Operators(in_=("a",), exists=False), "app.exists: matches nobody"),
        ("app", Operators(prefix="a", exists=False), "app.exists: matches nobody"),
        ("tenant", " acme", "tenant: no caller can be of this tenant"),
        ("tenant", ("acme", "b\u00fccher"), "tenant[1]: no caller can be of this tenant"),
        ("method", "post", "method: methods are matched as sent, and that is POST"),
        ("method", Operators(not_in=("GET", "Head")), "method.not_in[1]: methods are matched"),
        ("path", "/a?b=1", "path: a path is matched without its query"),
        ("path", "/a%20b", "path: a path is matched percent-decoded"),
        ("path", Operators(prefix="v2"), 'path.prefix: a path starts with "/"'),
        ("path", ("/a", "b"), 'path[1]: a path starts with "/"'),
        ("scope", "a b", "scope: no scope is empty or has a blank"),
        ("time", Operators(until="2027-01-15T08:00:00Z"), "time.until: matches nobody any more"),
    ],
)
def test_a_condition_that_nobody_fulfils_is_warned_of(
    attribute: str, condition: Condition, warning: str
) -> None:
    (found,) = odd(attribute, condition)

    assert found.startswith(warning)


@pytest.mark.parametrize(
    ("attribute", "condition"),
    [
        ("tenant", 7),
        ("tenant", Operators(exists=False)),
        ("app", Operators(in_=("a", "b"), not_in=("a",))),
        ("claim.x", Operators(in_=(True,), not_in=(1,))),
        ("app", Operators(not_in=("a",), exists=False)),
        ("method", ("POST", "purge")),
        ("path", ("/a b", "*")),
        ("path", Operators(suffix="infer")),
        ("header.x-a", "a b?c=%20"),
        ("scope", "models:read"),
        ("time", Operators(until="2027-01-15T08:00:01Z")),
        ("time", Operators(from_="2020-01-01T00:00:00Z")),
    ],
)
def test_a_condition_that_somebody_may_fulfil_is_not(attribute: str, condition: Condition) -> None:
    assert odd(attribute, condition) == []


def test_matchers_are_looked_at_wherever_they_stand() -> None:
    never: Matcher = {"method": "get"}
    other: Matcher = {"method": "put"}
    version = Version(endpoints=("http://h",), allow=(never,), deny=(other,), accepts=(never,))
    policy = structs.replace(
        make_policy(Rule(id="r", when=never, serve="v1"), versions={"v1": version}),
        segments={"s": Segment(when=(never,))},
        allow=(never,),
        deny=(other,),
    )

    assert [str(one).split(": ")[0] for one in warnings(policy)] == [
        "allow[0].method",
        "deny[0].method",
        "versions.v1.allow[0].method",
        "versions.v1.deny[0].method",
        "versions.v1.accepts[0].method",
        "segments.s.when[0].method",
        "rules[0].when.method",
    ]


@pytest.mark.parametrize(
    ("allow", "deny", "is_told"),
    [
        ({"tenant": "acme"}, {"tenant": "acme"}, True),
        ({"tenant": "acme"}, {"tenant": ("acme", "hooli")}, True),
        ({"tenant": ("acme", "hooli"), "scope": "x"}, {"tenant": Operators(in_=("acme",))}, False),
        ({"scope": "x", "app": "web"}, {"app": "web"}, True),
        ({"scope": "x", "app": "web"}, {"app": "web", "scope": "x"}, True),
        ({"app": "web"}, {"app": "web", "scope": "x"}, False),
        ({"app": "web"}, {"app": ("web",)}, False),
        ({"claim.x": True}, {"claim.x": 1}, False),
        ({}, {"app": "web"}, False),
    ],
)
def test_an_allow_that_a_deny_takes_back_whole_is_warned_of(
    allow: Matcher, deny: Matcher, *, is_told: bool
) -> None:
    plain = make_policy()
    closing = Version(endpoints=("http://h",), allow=(allow,), deny=(deny,))
    policies = {
        "allow[0]": structs.replace(plain, allow=(allow,), deny=(deny,)),
        "versions.v1.allow[0]": structs.replace(plain, versions={"v1": closing}),
    }

    for place, policy in policies.items():
        told = [str(one) for one in warnings(policy) if "lets nobody in" in one.reason]
        assert [one.split(": ")[0] for one in told] == ([place] if is_told else [])
        assert validate(policy) == ()


def test_an_allow_that_a_deny_of_the_model_takes_back_is_warned_of() -> None:
    allowing = Version(endpoints=("http://h",), allow=({"app": "a"}, {"app": "b"}))
    policy = structs.replace(
        make_policy(versions={"v1": allowing}), deny=({"app": "b"}, {"app": "c"})
    )

    assert [str(one) for one in warnings(policy)] == [
        "versions.v1.allow[1]: lets nobody in: deny[0] keeps all of them out"
    ]


def test_a_shadow_that_copies_nothing_is_warned_of() -> None:
    shadows = (
        Shadow(version="v2", percent=0, methods=("*",)),
        Shadow(version="v3", percent=0.1, methods=("*",)),
    )
    policy = structs.replace(make_policy(), shadows=shadows)

    assert [str(one) for one in warnings(policy)] == ["shadows[0].percent: nothing is copied"]
