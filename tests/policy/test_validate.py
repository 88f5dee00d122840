"""Every fault of meaning is found, all at once, each with its path."""

from __future__ import annotations

import pytest
from hypothesis import given

from sidecar.model.policy import (
    Condition,
    Health,
    Matcher,
    Operators,
    Policy,
    Rewrite,
    Rule,
    Shadow,
    Split,
    Version,
)
from sidecar.policy.snapshot import compile_snapshot
from sidecar.policy.validate import validate
from tests.policy.examples import make_policy, version
from tests.policy.policies import policies

ENDPOINTS = ("http://127.0.0.1:9001",)


def found(policy: Policy) -> list[str]:
    return [str(problem) for problem in validate(policy)]


def one_rule(rule: Rule) -> list[str]:
    return found(make_policy(rule))


def one_condition(attribute: str, condition: Condition) -> list[str]:
    return one_rule(Rule(id="r", when={attribute: condition}, serve="v1"))


def one_rewrite(path: str = "{path}", **headers: str) -> list[str]:
    rewrite = Rewrite(path=path, headers=headers)
    return found(make_policy(versions={"v1": Version(endpoints=ENDPOINTS, rewrite=rewrite)}))


def one_health(path: str, *status: int) -> list[str]:
    health = Health(path=path, status=status)
    return found(make_policy(versions={"v1": Version(endpoints=ENDPOINTS, health=health)}))


def test_a_good_policy_has_no_problems() -> None:
    assert found(make_policy(Rule(id="r", when={"tenant": "acme"}, serve="v2"))) == []


@given(policies())
def test_whatever_is_valid_can_be_compiled(policy: Policy) -> None:
    if not validate(policy):
        compile_snapshot(policy, {}, {})


def test_every_problem_is_reported_at_once_and_with_its_source() -> None:
    policy = Policy(
        model="bad model",
        versions={"v1": Version(endpoints=("ftp://h",))},
        rules=(
            Rule(id="r", serve="v2"),
            Rule(id="r", split=Split(arms={"v1": 0, "vl": 0}, key="tenent", otherwise="x")),
        ),
        default="v10",
        shadows=(Shadow(version="y"),),
    )

    problems = validate(policy, "doc")

    assert {problem.source for problem in problems} == {"doc"}
    assert [problem.path for problem in problems] == [
        "model",
        "versions.v1.endpoints[0]",
        "rules[0].serve",
        "rules[1].id",
        "rules[1].split.arms",
        "rules[1].split.arms.vl",
        "rules[1].split.key",
        "rules[1].split.otherwise",
        "default",
        "shadows[0].version",
    ]


def test_a_near_miss_is_suggested() -> None:
    assert one_rule(Rule(id="r", serve="v22")) == [
        'rules[0].serve: unknown version "v22"; did you mean "v2"?'
    ]
    (problem,) = one_condition("tenent", "acme")
    assert problem.endswith('did you mean "tenant"?')


def test_a_policy_needs_a_version() -> None:
    assert found(Policy(model="m", versions={})) == [
        "versions: a policy needs at least one version"
    ]


def test_an_endpoint_twice_is_one_too_many() -> None:
    policy = make_policy(versions={"v1": Version(endpoints=ENDPOINTS * 2)})

    assert found(policy) == [
        'versions.v1.endpoints[1]: the endpoint "http://127.0.0.1:9001" is given twice'
    ]


def test_an_empty_allow_is_a_slip() -> None:
    (problem,) = found(make_policy(versions={"v1": Version(endpoints=ENDPOINTS, allow=())}))

    assert problem.startswith("versions.v1.allow: an empty list lets nobody in")


@pytest.mark.parametrize("path", ["ready", "", "/a b", "/a\r\nX: y", "/ä", "/a#b", "http://h/"])
def test_a_health_path_that_is_no_target_is_refused(path: str) -> None:
    (problem,) = one_health(path)

    assert problem.startswith("versions.v1.health.path: a path ")


@pytest.mark.parametrize("status", [0, 101, 199, 600, -200])
def test_a_health_status_that_no_answer_ends_with_is_refused(status: int) -> None:
    assert one_health("/ready?deep=1", 200, status) == [
        f"versions.v1.health.status[1]: {status} is no final status: 200 to 599"
    ]


def test_entitlements_are_checked_like_rules() -> None:
    matchers: tuple[Matcher, ...] = ({"tenant": "a"}, {"tenant": ()})
    limited = Version(endpoints=ENDPOINTS, allow=({"x": 1},), deny=matchers, accepts=matchers)

    assert [one.split(":")[0] for one in found(make_policy(versions={"v1": limited}))] == [
        "versions.v1.allow[0].x",
        "versions.v1.deny[1].tenant",
        "versions.v1.accepts[1].tenant",
    ]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(id="r"), "this one has none"),
        (Rule(id="r", serve="v1", deny="no"), "has serve and deny"),
        (Rule(id="r", deny=" "), "deny needs words"),
        (Rule(id="r", split=Split(arms={})), "at least one arm"),
        (Rule(id="r", split=Split(arms={"v1": 0})), "sum to zero"),
        (Rule(id="r", split=Split(arms={"v1": 1}, key="header.")), "not a header name"),
        (Rule(id="r", split=Split(arms={"v1": 1}, key="header.x-tenant")), "no rule can see it"),
        (Rule(id="r", split=Split(arms={"v1": 1}, key="scope")), 'unknown key "scope"'),
        (Rule(id="r\n", serve="v1"), "is not a name"),
    ],
)
def test_a_rule_has_one_outcome_that_can_be_reached(rule: Rule, words: str) -> None:
    (problem,) = one_rule(rule)

    assert words in problem


@pytest.mark.parametrize(
    ("attribute", "condition", "words"),
    [
        ("user", "x", "unknown attribute"),
        ("Tenant", "x", "unknown attribute"),
        ("claim.", "x", "claim.<name>"),
        ("claim.a..b", "x", "claim.<name>"),
        ("header.", "x", "not a header name"),
        ("header.a b", "x", "not a header name"),
        ("header.Connection", "x", "no rule can see it"),
        ("header.x-model-version", "x", "no rule can see it"),
        ("tenant", (), "matches nobody"),
        ("tenant", "", "empty text"),
        ("app", ("a", ""), "empty text"),
        ("tenant", Operators(), "no operator"),
        ("tenant", Operators(in_=()), "the list is empty"),
        ("tenant", Operators(not_in=()), "the list is empty"),
        ("tenant", Operators(prefix=""), "empty prefix"),
        ("tenant", Operators(suffix=""), "empty suffix"),
        ("path", Operators(regex="("), "bad regex"),
        ("path", Operators(regex="a{4294967296}"), "bad regex"),
        ("path", Operators(regex="(" * 900), "bad regex"),
        ("path", Operators(regex="a" * 1001), "longer than 1000"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_refused(
    attribute: str, condition: Condition, words: str
) -> None:
    (problem,) = one_condition(attribute, condition)

    assert words in problem


@pytest.mark.parametrize(
    "rule",
    [
        Rule(id="all", serve="v1"),
        Rule(id="all", deny="no"),
        Rule(id="all", split=Split(arms={"v1": 1, "v2": 1}, key="request")),
        Rule(id="all", split=Split(arms={"v1": 1}, key="subject", otherwise="v2")),
    ],
)
def test_a_rule_after_one_that_answers_everyone_is_never_reached(rule: Rule) -> None:
    (problem,) = found(make_policy(rule, Rule(id="late", when={"tenant": "a"}, serve="v1")))

    assert problem == 'rules[1]: never reached: rule "all" before it answers every caller'


@pytest.mark.parametrize(
    "rule",
    [
        Rule(id="some", when={"tenant": "acme"}, deny="no"),
        Rule(id="some", serve="v3"),
        Rule(id="some", split=Split(arms={"v1": 1, "v3": 1}, key="request")),
        Rule(id="some", split=Split(arms={"v1": 1}, key="subject")),
    ],
)
def test_a_rule_after_one_that_may_pass_a_caller_on_is_reached(rule: Rule) -> None:
    limited = Version(endpoints=ENDPOINTS, deny=({"tenant": "initech"},))
    versions = {"v1": version(), "v2": version(), "v3": limited}

    assert found(make_policy(rule, Rule(id="late", serve="v1"), versions=versions)) == []


def test_a_version_is_shadowed_once() -> None:
    shadows = (Shadow(version="v2", percent=5), Shadow(version="v2", key="nothing"))

    assert [one.split(":")[0] for one in found(make_policy(shadows=shadows))] == [
        "shadows[1].version",
        "shadows[1].key",
    ]


def test_a_default_may_be_shadowed() -> None:
    assert found(make_policy(shadows=(Shadow(version="v1"),))) == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v2/{modle}", 'unknown placeholder "{modle}"'),
        ("/v2/{", 'unknown placeholder "{"'),
        ("/v2/}{path}", 'unknown placeholder "}"'),
        ("/v2/{path }", 'unknown placeholder "{path }"'),
        ("/a b", "visible ASCII"),
        ("/a\r\nX: y", "visible ASCII"),
        ("/a\x00", "visible ASCII"),
        ("/ä", "visible ASCII"),
        ("/a?b=1", "no query"),
        ("/a#b", "no query"),
        ("v2/{path}", 'starts with "/"'),
        ("{rest}", 'starts with "/"'),
        ("", 'starts with "/"'),
    ],
)
def test_a_template_that_makes_no_path_is_refused(path: str, words: str) -> None:
    (problem,) = one_rewrite(path)

    assert problem.startswith("versions.v1.rewrite.path: ")
    assert words in problem


@pytest.mark.parametrize("path", ["{path}", "/v2/models/{model}/versions/{version}{rest}", "/x"])
def test_a_template_that_makes_a_path_is_accepted(path: str) -> None:
    assert one_rewrite(path, **{"X-Stage": "preview", "Accept": "text/plain, */*\t;q=1"}) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("X Stage", "a", "not a header name"),
        ("X-Stage:", "a", "not a header name"),
        ("", "a", "not a header name"),
        ("Host", "a", "written by the sidecar"),
        ("Content-Length", "1", "written by the sidecar"),
        ("transfer-encoding", "chunked", "written by the sidecar"),
        ("Connection", "close", "written by the sidecar"),
        ("X-Tenant", "acme", "written by the sidecar"),
        ("X-Forwarded-For", "1", "written by the sidecar"),
        ("X-Stage", "a\r\nX: b", "control characters"),
        ("X-Stage", "a\x00", "control characters"),
        ("X-Stage", "ä", "visible ASCII"),
        ("X-Stage", " a", "blanks"),
    ],
)
def test_a_header_that_a_rewrite_may_not_set_is_refused(name: str, value: str, words: str) -> None:
    (problem,) = one_rewrite(**{name: value})

    assert words in problem


def test_a_mistake_repeated_without_end_is_reported_a_hundred_times() -> None:
    rules = tuple(Rule(id=f"r{n}", when={"app": "x"}, serve="v9") for n in range(5_000))

    problems = found(make_policy(*rules))

    assert len(problems) == 101
    assert problems[-1] == "and more"


def test_one_header_in_two_cases_is_given_twice() -> None:
    (problem,) = one_rewrite(**{"X-Stage": "a", "x-stage": "b"})

    assert "given twice" in problem
