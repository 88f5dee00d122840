"""Every fault of meaning is found, all at once, each with its path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from sidecar.model.policy import (
    Condition,
    DefaultAccess,
    Deprecation,
    Health,
    Matcher,
    Operators,
    Policy,
    Rewrite,
    Rule,
    Segment,
    Shadow,
    Split,
    State,
    Version,
)
from sidecar.policy import reach
from sidecar.policy.address import AllowList
from sidecar.policy.compiled import MAX_FALLBACKS
from sidecar.policy.resolver import resolve
from sidecar.policy.shape import NAME_RULE
from sidecar.policy.snapshot import compile_snapshot
from sidecar.policy.validate import validate, warnings
from tests.policy.examples import make_policy, version
from tests.policy.policies import callers, heads, policies

if TYPE_CHECKING:
    from sidecar.model.identity import Identity
    from sidecar.model.request import RequestHead

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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://127.0.0.1", "http://127.0.0.1:80"),
        ("https://localhost", "https://LOCALHOST.:443"),
        ("http://[::1]", "http://[0:0:0:0:0:0:0:1]"),
    ],
)
def test_an_endpoint_in_two_spellings_is_given_twice(one: str, other: str) -> None:
    policy = make_policy(versions={"v1": Version(endpoints=(one, other))})

    assert found(policy) == [
        f'versions.v1.endpoints[1]: the endpoint "{other}" is given twice: "{one}" is the same'
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


def test_access_of_a_model_is_checked_like_that_of_a_version() -> None:
    policy = structs.replace(
        make_policy(),
        allow=({"tenant": "acme"}, {"tenent": "acme"}),
        deny=({"segment": "beta"}, {"app": ()}),
    )

    assert [one.split(": ")[0] for one in found(policy)] == [
        "allow[1].tenent",
        "deny[0].segment",
        "deny[1].app",
    ]
    (problem,) = found(structs.replace(make_policy(), allow=()))
    assert problem.startswith("allow: an empty list lets nobody in")


CLOSED = structs.replace(make_policy(), default_access=DefaultAccess.DENY)


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        (CLOSED, "default: no caller may use it: v1 is allowed to nobody (default_access: deny)"),
        (
            structs.replace(make_policy(), deny=({"app": "x"}, {})),
            "default: no caller may use it: v1 is denied to everybody",
        ),
        (
            structs.replace(
                make_policy(Rule(id="r", split=Split(arms={"v1": 1})), default=None), deny=({},)
            ),
            "rules[0].split.arms: no arm can serve anybody: v1 is denied to everybody",
        ),
    ],
)
def test_a_version_that_nobody_may_use_serves_nobody(policy: Policy, problem: str) -> None:
    assert found(policy) == [problem]


def test_a_version_that_somebody_may_use_may_be_the_default() -> None:
    open_to_some = Version(endpoints=ENDPOINTS, allow=({"scope": "x"},))

    assert found(structs.replace(CLOSED, versions={"v1": open_to_some})) == []
    assert found(structs.replace(CLOSED, allow=({"scope": "x"},))) == []


def test_no_rule_answers_all_of_a_model_that_is_not_open_to_all() -> None:
    rules = (Rule(id="all", serve="v1"), Rule(id="rest", serve="v2"))
    some: tuple[Matcher, ...] = ({"scope": "x"},)

    assert len(found(make_policy(*rules))) == 1
    for policy in (
        structs.replace(make_policy(*rules), allow=some),
        structs.replace(make_policy(*rules), deny=some),
        structs.replace(make_policy(*rules), default_access=DefaultAccess.DENY, default=None),
    ):
        assert found(policy) == []


@pytest.mark.parametrize(
    "policy",
    [
        structs.replace(make_policy(), default_access=DefaultAccess.DENY, default=None),
        structs.replace(make_policy(), deny=({},), default=None),
    ],
)
def test_that_nobody_may_use_a_version_is_warned_of(policy: Policy) -> None:
    told = [str(one) for one in warnings(policy)]

    for name in policy.versions:
        assert any(one.startswith(f"versions.{name}: is ") for one in told)


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
        ("path", Operators(regex="(?=a)b"), "without look-around"),
        ("path", Operators(regex=r"(a)\1"), "without look-around and back-references"),
        ("path", Operators(regex="a{1001}"), "bad regex"),
        ("path", Operators(regex=".{1000}"), "8004 instructions when compiled, and 2000 is"),
        ("path", Operators(regex=r"\pL{1000}"), "takes too much memory"),
        ("path", Operators(regex="(" * 900), "bad regex"),
        ("path", Operators(regex="a" * 1001), "longer than 1000"),
        ("app", Operators(cidr=("10.0.0.0/255.0.0.0",)), "a number of bits"),
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


def serving(**versions: Version) -> dict[str, Version]:
    """Return v1 to v3, some of them in the place of plain ones."""
    return {"v1": version(), "v2": version(), "v3": version()} | versions


def in_state(state: State, **members: str) -> Version:
    return Version(endpoints=ENDPOINTS, state=state, fallback=members.get("fallback"))


def odd(policy: Policy) -> list[str]:
    assert found(policy) == []
    return [str(problem) for problem in warnings(policy)]


def labelled(*rules: Rule, **labels: str) -> Policy:
    return structs.replace(make_policy(*rules), labels=labels)


def segmented(**segments: Segment) -> Policy:
    return structs.replace(make_policy(), segments=segments)


def test_a_label_may_stand_wherever_a_version_does() -> None:
    split = Split(arms={"stable": 1, "canary": 1}, otherwise="stable")
    policy = structs.replace(
        labelled(
            Rule(id="a", when={"app": "a"}, serve="canary"),
            Rule(id="b", split=split),
            stable="v1",
            canary="v2",
        ),
        default="stable",
        shadows=(Shadow(version="next"),),
        labels={"stable": "v1", "canary": "v2", "next": "v3"},
        versions=serving(v3=Version(endpoints=ENDPOINTS, fallback="stable")),
    )

    assert found(policy) == []


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ({"canary": "v22"}, 'labels.canary: unknown version "v22"; did you mean "v2"?'),
        ({"v2": "v1"}, 'labels.v2: "v2" is a version; a label needs a name of its own'),
        (
            {"a": "v1", "b": "a"},
            'labels.b: a label names a version, and "a" is a label',
        ),
        ({"a b": "v1"}, f'labels["a b"]: "a b" is not a name: {NAME_RULE}'),
    ],
)
def test_a_label_that_names_no_version_is_refused(labels: dict[str, str], problem: str) -> None:
    assert found(labelled(**labels)) == [problem]


def test_what_names_a_broken_label_is_not_told_again() -> None:
    policy = structs.replace(labelled(stable="gone"), default="stable")

    assert [one.split(":")[0] for one in found(policy)] == ["labels.stable"]


def test_two_arms_that_are_the_same_version_are_refused() -> None:
    policy = labelled(Rule(id="r", split=Split(arms={"v1": 1, "stable": 1})), stable="v1")

    assert found(policy) == ['rules[0].split.arms.stable: is v1, and so is the arm "v1"']


def test_a_version_is_shadowed_once_by_whatever_name() -> None:
    shadows = (Shadow(version="v2"), Shadow(version="canary"))
    policy = structs.replace(labelled(canary="v2"), shadows=shadows)

    assert found(policy) == ['shadows[1].version: "v2" is shadowed twice']


def test_nothing_but_a_label_names_a_retired_version() -> None:
    policy = structs.replace(
        make_policy(
            Rule(id="a", when={"app": "a"}, serve="old"),
            Rule(id="b", split=Split(arms={"v1": 1, "v3": 1}, otherwise="v3")),
            versions=serving(
                v2=Version(endpoints=ENDPOINTS, fallback="v3"), v3=in_state(State.RETIRED)
            ),
            shadows=(Shadow(version="v3"),),
        ),
        labels={"old": "v3"},
    )

    assert found(policy) == [
        'versions.v2.fallback: "v3" is retired: name another version here, or none',
        'rules[0].serve: "old" (v3) is retired: name another version here, or none',
        'rules[1].split.arms.v3: "v3" is retired: name another version here, or none',
        'rules[1].split.otherwise: "v3" is retired: name another version here, or none',
        'shadows[0].version: "v3" is retired: name another version here, or none',
    ]


def test_so_many_fallbacks_follow_each_other_and_no_more() -> None:
    def chain(fallbacks: int) -> Policy:
        following = {n: f"v{n + 1}" for n in range(1, fallbacks + 1)}
        versions = {
            f"v{n}": Version(endpoints=ENDPOINTS, fallback=following.get(n))
            for n in range(1, fallbacks + 2)
        }
        return make_policy(versions=versions)

    assert found(chain(MAX_FALLBACKS)) == []
    way = "v4 -> v5 -> v6 -> v7 -> v8 -> v9 -> v10 -> v11 -> ... -> v21"
    assert found(chain(MAX_FALLBACKS + 4)) == [
        f"versions.v4.fallback: over 16 fallbacks in a row: {way}"
    ]


def test_fallbacks_that_lead_back_are_named() -> None:
    def falling(ref: str) -> Version:
        return Version(endpoints=ENDPOINTS, fallback=ref)

    policy = make_policy(
        versions={
            "own": falling("own"),
            "a": falling("b"),
            "b": falling("label"),
            "c": falling("a"),
            "v1": version(),
        }
    )

    assert found(structs.replace(policy, labels={"label": "c"})) == [
        "versions.own.fallback: falls back in a circle: own -> own",
        "versions.a.fallback: falls back in a circle: a -> b -> c -> a",
    ]


@pytest.mark.parametrize(
    ("segment", "problem"),
    [
        (Segment(), "segments.s: nobody is in it"),
        (Segment(exclude=("acme",)), "segments.s: nobody is in it"),
        (Segment(include=("a", "")), "segments.s.include[1]: no caller can be of this tenant"),
        (Segment(include=("a",), exclude=("é",)), "segments.s.exclude[0]: no caller can be"),
        (Segment(when=({"x": 1},)), 'segments.s.when[0].x: unknown attribute "x"'),
        (
            Segment(when=({"segment": "golb"},)),
            'segments.s.when[0].segment: unknown segment "golb"; did you mean "gold"?',
        ),
        (
            Segment(when=({"segment": Operators(not_in=("gold", "gone"))},)),
            'segments.s.when[0].segment.not_in[1]: unknown segment "gone"',
        ),
    ],
)
def test_a_segment_that_cannot_be_meant_is_refused(segment: Segment, problem: str) -> None:
    (only,) = found(segmented(gold=Segment(include=("acme",)), s=segment))

    assert only.startswith(problem)


def test_segments_that_are_made_of_themselves_are_named() -> None:
    def of(*names: str) -> Segment:
        return Segment(include=("acme",), when=({"segment": names},))

    policy = segmented(
        a=of("b"), b=of("c", "plain"), c=of("a"), own=of("own"), plain=Segment(include=("acme",))
    )

    assert found(policy) == [
        "segments.a: is made of itself: a -> b -> c -> a",
        "segments.own: is made of itself: own -> own",
    ]


def test_a_segment_cannot_ask_whether_its_callers_are_in_any() -> None:
    some = Segment(when=({"segment": Operators(exists=True)},))

    assert found(segmented(some=some)) == ["segments.some: is made of itself: some -> some"]


def test_any_number_of_segments_that_ask_for_all_are_refused_at_once() -> None:
    some = Segment(when=({"segment": Operators(exists=True)},))

    assert len(found(segmented(**{f"s{n}": some for n in range(20_000)}))) == 101


def test_circles_of_all_with_all_are_refused_at_once() -> None:
    names = tuple(f"s{n}" for n in range(400))
    every = Segment(when=({"segment": names},))

    assert len(found(segmented(**dict.fromkeys(names, every)))) == 101


def test_segments_are_named_at_most_sixteen_deep() -> None:
    def chain(length: int) -> Policy:
        rest = {
            f"s{n}": Segment(when=({"segment": f"s{n - 1}"},)) for n in reversed(range(1, length))
        }
        return segmented(s0=Segment(include=("acme",)), **rest)

    assert found(chain(16)) == []
    assert found(chain(18)) == ["segments.s16: names segments that name others, over 16 deep"]
    compile_snapshot(chain(16), {}, {})


def test_a_long_chain_of_segments_costs_no_stack() -> None:
    (problem,) = found(
        segmented(
            s0=Segment(when=({"segment": "s4999"},)),
            **{f"s{n}": Segment(when=({"segment": f"s{n - 1}"},)) for n in range(1, 5000)},
        )
    )

    assert problem.startswith("segments.s0: is made of itself: s0 -> s4999 -> s4998 -> ")
    assert problem.endswith("-> ... -> s0")


@pytest.mark.parametrize(
    ("attribute", "condition", "words"),
    [
        ("segment", 1, "named by text"),
        ("segment", "gold", 'unknown segment "gold"'),
        ("segment", Operators(prefix="g"), "by its name, a list of names, in, not_in or exists"),
        ("time", "2026-11-23T13:00:00Z", "matched by from and until"),
        ("time", (), "matched by from and until"),
        ("time", Operators(exists=True), "from and until alone"),
        ("time", Operators(from_="2026-11-23"), "is not a time such as"),
        ("time", Operators(from_="2026-11-23T13:00:00"), "is not a time such as"),
        ("time", Operators(until="2026-02-30T13:00:00Z"), "when[0]"),
        (
            "time",
            Operators(from_="2026-11-23T13:00:00Z", until="2026-11-23T13:00:00Z"),
            "until: is not after from, 2026-11-23T13:00:00Z",
        ),
        ("tenant", Operators(until="2026-11-23T13:00:00Z"), "until is for the attribute time"),
        ("claim.v", Operators(semver=">="), "semver: "),
        ("claim.v", Operators(semver=""), "semver: "),
        ("header.x-ip", Operators(cidr=()), "the list is empty"),
        ("header.x-ip", Operators(cidr=("10.0.0.0/8", "10.0.0.1/8")), "cidr[1]: "),
        ("header.x-ip", Operators(cidr=("0x7f.1",)), "cidr[0]: "),
        ("claim.n", Operators(gte=2, lte=1), "no number is at least 2 and at most 1"),
        ("claim.n", Operators(gte=float("nan")), "gte: a bound is a finite number"),
    ],
)
def test_an_operator_that_does_not_fit_is_refused(
    attribute: str, condition: Condition, words: str
) -> None:
    (problem,) = one_condition(attribute, condition)

    assert words.replace("when[0]", "rules[0].when.time.until") in problem


@pytest.mark.parametrize(
    ("attribute", "condition"),
    [
        ("time", Operators(from_="2026-11-23T13:00:00Z")),
        ("time", Operators(from_="2026-11-23T13:00:00Z", until="2026-11-23T15:00:00+01:00")),
        ("header.x-version", Operators(semver=">=2.1 <3 || ^4")),
        ("header.x-ip", Operators(cidr=("10.0.0.0/8", "fd00::/8", "192.0.2.1"))),
        ("claim.n", Operators(gte=1, lte=1.5, exists=True)),
    ],
)
def test_an_operator_that_fits_is_accepted(attribute: str, condition: Condition) -> None:
    assert one_condition(attribute, condition) == []


def test_a_version_that_accepts_nothing_is_a_slip() -> None:
    (problem,) = found(make_policy(versions={"v1": Version(endpoints=ENDPOINTS, accepts=())}))

    assert problem.startswith("versions.v1.accepts: an empty list fits no request")


@pytest.mark.parametrize(
    ("deprecation", "problem"),
    [
        (Deprecation(), ": it says nothing"),
        (Deprecation(since="soon"), '.since: "soon" is not a time'),
        (
            Deprecation(since="2026-11-23T13:00:00Z", sunset="2026-11-22T13:00:00Z"),
            ".sunset: is not after since, 2026-11-23T13:00:00Z",
        ),
        (Deprecation(link="/changes"), ".link: a link is http:// or https://"),
        (Deprecation(link="https://"), ".link: "),
        (Deprecation(link="https://h/>; rel=x"), ".link: "),
        (Deprecation(link="https://h/a b"), ".link: "),
        (Deprecation(link="https://h/\r\nX: y"), ".link: "),
        (Deprecation(link="https://h/ä"), ".link: "),
        (Deprecation(link="javascript:alert(1)"), ".link: "),
        (Deprecation(link="https://h/" + "a" * 2000), ".link: "),
    ],
)
def test_a_deprecation_that_cannot_be_told_is_refused(
    deprecation: Deprecation, problem: str
) -> None:
    leaving = Version(endpoints=ENDPOINTS, state=State.DRAINING, deprecation=deprecation)
    (only,) = found(make_policy(versions=serving(v2=leaving)))

    assert only.startswith(f"versions.v2.deprecation{problem}")


@pytest.mark.parametrize("state", [State.REGISTERED, State.WARMING, State.DRAINING])
def test_a_default_that_no_caller_may_use_is_refused(state: State) -> None:
    policy = make_policy(
        versions=serving(v1=in_state(state, fallback="v2"), v2=in_state(State.DRAINING))
    )

    assert found(policy) == [f"default: no caller may use it: v1 is {state.value}, v2 is draining"]


def test_a_default_that_is_denied_to_everybody_is_refused() -> None:
    closed = Version(endpoints=ENDPOINTS, deny=({"tenant": "a"}, {}))

    assert found(make_policy(versions=serving(v1=closed))) == [
        "default: no caller may use it: v1 is denied to everybody"
    ]


def test_a_default_whose_fallback_serves_is_only_warned_of() -> None:
    policy = make_policy(versions=serving(v1=in_state(State.DRAINING, fallback="v2")))

    assert odd(policy) == ["default: serves nobody now: v1 is draining"]


def test_a_split_whose_arms_all_serve_nobody_is_refused() -> None:
    versions = serving(v2=in_state(State.DRAINING), v3=in_state(State.WARMING))
    split = Split(arms={"v1": 0, "v2": 1, "v3": 1})

    assert found(make_policy(Rule(id="r", split=split), versions=versions)) == [
        "rules[0].split.arms: no arm can serve anybody: v2 is draining, v3 is warming"
    ]


def test_what_leads_to_a_version_that_is_not_active_is_warned_of() -> None:
    policy = make_policy(
        Rule(id="a", when={"app": "a"}, serve="v2"),
        Rule(id="b", split=Split(arms={"v1": 1, "v2": 1, "v3": 0}, otherwise="v3")),
        versions=serving(
            v1=Version(endpoints=ENDPOINTS, fallback="v2"),
            v2=in_state(State.DRAINING),
            v3=in_state(State.REGISTERED),
        ),
        shadows=(Shadow(version="v3", methods=("*",)),),
    )

    assert odd(policy) == [
        "versions.v1.fallback: serves nobody now: v2 is draining",
        "rules[0].serve: serves nobody now: v2 is draining",
        "rules[1].split.arms.v2: serves nobody now: v2 is draining",
        "rules[1].split.otherwise: serves nobody now: v3 is registered",
    ]


def test_what_has_no_effect_is_warned_of() -> None:
    soon = Deprecation(link="https://h/changes")
    versions = serving(
        v2=Version(endpoints=ENDPOINTS, max_queue=3, deprecation=soon),
        v3=in_state(State.RETIRED),
    )
    policy = structs.replace(
        make_policy(versions=versions),
        labels={"old": "v3"},
        segments={"s": Segment(include=("a", "b"), exclude=("c", "b"))},
    )

    assert [one.split(":")[0] for one in odd(policy)] == [
        "versions.v2.deprecation",
        "versions.v2.max_queue",
        "labels.old",
        "segments.s.exclude[1]",
    ]


@pytest.mark.parametrize(
    ("before", "when", "reason"),
    [
        ({"app": "a"}, {"app": "a"}, 'rule "r0" before it answers all whom this one matches'),
        ({"app": ("a", "b")}, {"app": Operators(in_=("b", "a"))}, 'rule "r0" before it answers'),
        ({"app": "a"}, {"app": "a", "method": "GET"}, 'rule "r0" before it answers all'),
        (
            {"app": "a", "method": Operators(prefix="P")},
            {"method": Operators(prefix="P"), "app": "a"},
            'rule "r0" before it answers all',
        ),
        (
            {"tenant": ("a", "b", "c")},
            {"tenant": ("c", "a"), "app": "x"},
            'all of its tenants are answered before, by rule "r0"',
        ),
        ({"tenant": ("5", "c")}, {"tenant": 5}, "all of its tenants are answered before"),
    ],
)
def test_a_rule_whose_callers_are_all_answered_before_is_refused(
    before: Matcher, when: Matcher, reason: str
) -> None:
    first, second = Rule(id="r0", when=before, serve="v1"), Rule(id="r1", when=when, deny="no")

    (problem,) = found(make_policy(first, second))

    assert problem.startswith(f"rules[1]: never reached: {reason}")


def test_tenants_may_be_answered_by_several_rules_together() -> None:
    rules = (
        Rule(id="a", when={"tenant": "a"}, serve="v1"),
        Rule(id="bc", when={"tenant": ("b", "c")}, serve="v2"),
        Rule(id="all", when={"tenant": ("a", "b")}, serve="v3"),
    )

    assert found(make_policy(*rules)) == [
        'rules[2]: never reached: all of its tenants are answered before, by rule "a", "bc"'
    ]


@pytest.mark.parametrize(
    ("before", "when"),
    [
        ({"app": "a"}, {"app": ("a", "b")}),
        ({"app": "a", "method": "GET"}, {"app": "a"}),
        ({"tenant": ("a", "b")}, {"tenant": ("b", "c")}),
        ({"tenant": "a"}, {"tenant": ("a", 1)}),
        ({"tenant": "a", "app": "x"}, {"tenant": "a"}),
        ({"claim.n": 1}, {"claim.n": "1"}),
        ({"tenant": Operators(not_in=("a",))}, {"tenant": "a"}),
    ],
)
def test_a_rule_that_some_of_its_callers_reach_is_accepted(before: Matcher, when: Matcher) -> None:
    first, second = Rule(id="r0", when=before, serve="v1"), Rule(id="r1", when=when, serve="v2")

    assert found(make_policy(first, second)) == []


@given(policies(), callers(), heads())
def test_a_rule_that_is_never_reached_answers_nobody(
    policy: Policy, identity: Identity, head: RequestHead
) -> None:
    decision = resolve(compile_snapshot(policy, {}, {}), identity, head)

    unreached = {
        rule.id for rule, why in zip(policy.rules, reach.judged(policy), strict=True) if why
    }
    assert decision.reason.partition(":")[2] not in unreached


def test_an_endpoint_outside_of_the_allow_list_is_refused() -> None:
    policy = make_policy(versions={"v1": Version(endpoints=("http://a:1", "http://b:1"))})

    assert [str(one) for one in validate(policy, "", AllowList(["a"]))] == [
        'versions.v1.endpoints[1]: "http://b:1": not one of the hosts and networks '
        "of the setting endpoints.allow"
    ]


@given(policies(), callers(), heads())
def test_a_version_that_is_told_to_serve_nobody_serves_those_alone_who_ask(
    policy: Policy, identity: Identity, head: RequestHead
) -> None:
    decision = resolve(compile_snapshot(policy, {}, {}), identity, head)

    if decision.version and decision.reason != "EXPLICIT":
        assert reach.bar(policy, decision.version) == ""


@given(policies(), callers(), heads())
def test_where_rules_answer_everybody_nobody_is_left_to_the_default(
    policy: Policy, identity: Identity, head: RequestHead
) -> None:
    decision = resolve(compile_snapshot(policy, {}, {}), identity, head)

    if reach.answers_everybody(policy):
        assert decision.reason not in {"DEFAULT", "DENIED:no-default"}


MOMENTS = st.from_regex(
    r"20\d\d-[01]\d-[0-3]\dT\d\d:\d\d:\d\d(\.\d)?(Z|[+-]\d\d:\d\d)", fullmatch=True
)
ODD_OPERATORS = st.builds(
    Operators,
    regex=st.none() | st.text("(a+*[)]{1,}\\?:|^$", max_size=8),
    gte=st.none() | st.integers() | st.floats(),
    semver=st.none() | st.text("<>=^~ .x*|-v01", max_size=8),
    cidr=st.none() | st.lists(st.text("01:./af%", max_size=9) | st.just("10.0.0.0/8")).map(tuple),
    from_=st.none() | MOMENTS,
    until=st.none() | MOMENTS,
)


@given(st.sampled_from(("time", "header.x-a", "claim.a", "tenant", "segment")), ODD_OPERATORS)
def test_whatever_operators_are_valid_can_be_compiled(attribute: str, condition: Operators) -> None:
    policy = make_policy(Rule(id="r", when={attribute: condition}, serve="v1"))

    if not validate(policy):
        compile_snapshot(policy, {}, {})


def test_a_deleted_model_has_nothing_but_what_commits_write() -> None:
    gone = Policy("tumor", {}, revision=7, actor="ann", comment="old", deleted=True, signature="x")

    assert validate(gone) == ()
    assert next(one.path for one in validate(structs.replace(gone, default="v1"))) == "deleted"
