"""Look-ups find the rules that concern a caller, in the order of the document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.decision import Decision
from sidecar.model.policy import Condition, Matcher, Operators, Policy, Rule, Segment
from sidecar.policy import codec
from sidecar.policy.resolver import resolve
from sidecar.policy.ruleset import MIN_KEYED
from sidecar.policy.snapshot import Snapshot, compile_snapshot
from tests.policy.examples import caller, everything_is_looked_up, make_head, version
from tests.policy.plain import PlainReading, matches
from tests.policy.policies import OPTIONS, SCALARS, WORDS, callers, heads, matchers, segments

if TYPE_CHECKING:
    from sidecar.model.identity import JSON, Identity
    from sidecar.model.request import RequestHead

HEAD = make_head()
MANY = 3 * MIN_KEYED


def policy_of(*rules: Rule) -> Policy:
    listed = {f"s{n}": Segment(include=(f"t{n}", "all")) for n in range(MANY)}
    return Policy(
        model="tumor",
        versions={"v1": version(), "v2": version()},
        segments=listed | {"web": Segment(include=("t3",), when=({"app": "web"},))},
        rules=rules,
        default="v1",
    )


def rules_by(attribute: str, prefix: str) -> list[Rule]:
    return [
        Rule(id=f"{prefix}{n}", when={attribute: f"{prefix}{n}"}, serve="v2") for n in range(MANY)
    ]


@pytest.mark.parametrize(
    "first", ["app", "subject", "header.x-key", "segment", "tenant", "general"]
)
def test_whatever_is_looked_up_the_first_rule_answers(first: str) -> None:
    kinds = {
        "app": rules_by("app", "a"),
        "subject": rules_by("subject", "u"),
        "header.x-key": rules_by("header.x-key", "h"),
        "segment": rules_by("segment", "s"),
        "tenant": rules_by("tenant", "t"),
        "general": [
            Rule(id="web", when={"segment": "web", "app": "a3"}, serve="v1"),
            Rule(id="all", when={"tenant": Operators(prefix="t")}, serve="v1"),
        ],
    }
    rules = [*kinds.pop(first), *(rule for kind in kinds.values() for rule in kind)]
    policy = policy_of(*rules)
    snapshot, reading = compile_snapshot(policy, {}, {}), PlainReading(policy, {}, {})
    seen = set()

    for tenant in ("t3", "t4", "all", "other", ""):
        for app, subject, key in (
            ("", "", b""),
            ("a3", "", b""),
            ("web", "u3", b""),
            ("a4", "u4", b"h4"),
            ("", "", b"h5"),
        ):
            identity = caller(tenant, app=app, subject=subject)
            head = make_head(headers=((b"X-Key", key),) if key else ())
            decision = resolve(snapshot, identity, head)
            assert decision == reading.decide(identity, head)
            seen.add(decision.reason)

    assert len(seen) > 3


def test_few_of_many_rules_are_asked() -> None:
    snapshot = compile_snapshot(
        policy_of(*rules_by("app", "a"), *rules_by("segment", "s"), *rules_by("tenant", "t")),
        {},
        {},
    )
    identity = caller("t3", app="a5")

    rules = snapshot.rules.rules_for(identity, HEAD)
    asked = snapshot.rules.asked(rules, identity, HEAD)

    assert [rule.reason for rule in asked] == ["RULE:a5", "RULE:s3", "RULE:t3"]


def test_the_rules_that_concern_all_are_kept_once_for_all_tenants() -> None:
    general = [Rule(id=f"r{n}", when={"header.x-a": Operators(prefix=str(n))}) for n in range(50)]
    snapshot = compile_snapshot(policy_of(*general), {}, {})

    for n in range(100):
        resolve(snapshot, caller(f"other-{n}"), HEAD)

    assert {id(plan) for plan in snapshot.plans.values()} == {id(snapshot.rules.general)}


def test_what_plans_keep_of_rules_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.policy.snapshot.MAX_PLANNED_RULES", 100)
    rules = [
        Rule(
            id=f"r{n}",
            when={"tenant": Operators(prefix="t"), "path": Operators(suffix=f"{n}")},
            serve="v2",
        )
        for n in range(30)
    ]
    snapshot = compile_snapshot(policy_of(*rules), {}, {})

    for n in range(50):
        assert resolve(snapshot, caller(f"t{n}"), HEAD).reason == "DEFAULT"
        assert len(snapshot.plans) <= 4


def test_what_comes_before_all_looked_up_rules_is_decided_once_for_a_tenant() -> None:
    first = Rule(id="first", when={"tenant": "t3"}, serve="v1")
    snapshot = compile_snapshot(policy_of(first, *rules_by("app", "a")), {}, {})

    for tenant in ("t3", "t4"):
        resolve(snapshot, caller(tenant, app="a5"), HEAD)

    assert isinstance(snapshot.plans["t3"], Decision)
    assert snapshot.plans["t4"] == ()
    assert resolve(snapshot, caller("t4", app="a6"), HEAD).reason == "RULE:a6"


def deciding(rules: list[Rule]) -> Snapshot:
    return compile_snapshot(policy_of(*rules), {}, {})


def places_asked(snapshot: Snapshot, identity: Identity, head: RequestHead) -> list[int]:
    """Return the places of the rules that are asked for a request."""
    planned = snapshot.rules.rules_for(identity, head)
    return [rule.place for rule in snapshot.rules.asked(planned, identity, head)]


CLAIMS: dict[str, JSON] = {"org": "c5", "level": 7, "groups": ["g3", "g9", True]}
ASKING = caller("t3", app="a5", subject="u6", scopes=("x1", "x2"), claims=CLAIMS)
ASKED = make_head(b"/v2/5/infer", method=b"M5", headers=((b"X-Key", b"h5"),))


@pytest.mark.parametrize(
    ("attribute", "condition", "places"),
    [
        ("tenant", "t{}", [3]),
        ("tenant", Operators(prefix="t{}"), [3]),
        ("segment", "s{}", [3]),
        ("app", "a{}", [5]),
        ("subject", ("u{}", "-"), [6]),
        ("scope", "x{}", [1, 2]),
        ("scope", Operators(in_=("x{}", "x1")), list(range(MANY))),
        ("claim.org", "c{}", [5]),
        ("claim.org", Operators(in_=("c{}",), not_in=("-",)), [5]),
        ("claim.groups", "g{}", [3, 9]),
        ("header.x-key", "h{}", [5]),
        ("header.X-Key", Operators(prefix="h{}"), [5]),
        ("method", "M{}", [5]),
        ("path", "/v2/{}/infer", [5]),
        ("path", Operators(prefix="/v2/{}/"), [5]),
    ],
)
def test_only_rules_with_a_value_of_the_request_are_asked(
    attribute: str, condition: Condition, places: list[int]
) -> None:
    rules = [
        Rule(id=f"r{n}", when={attribute: filled(condition, n)}, serve="v2") for n in range(MANY)
    ]

    assert places_asked(deciding(rules), ASKING, ASKED) == places


def filled(condition: Condition, n: int) -> Condition:
    """Return a condition with a number put where its texts leave room for one."""
    policy = policy_of(Rule(id="r", when={"app": condition}))
    text = codec.encode(policy).replace(b"{}", str(n).encode())
    return codec.decode(text, source="").rules[0].when["app"]


def test_claims_are_looked_up_by_their_json_type() -> None:
    options = (1, 1.0, "1", True, "true", 7, 7.0, "7")
    rules = [
        Rule(id=f"r{n}", when={"claim.level": option}, serve="v2")
        for n, option in enumerate(options * MIN_KEYED)
    ]
    snapshot = deciding(rules)

    given: list[JSON] = [1, 1.0, "1", True, "true", 7, ["7", 7], [True, 1], {"x": 1}, None, []]
    for value in given:
        places = places_asked(snapshot, caller("t", claims={"level": value}), HEAD)

        values = value if isinstance(value, list) else [value]
        wanted = {(type(one) is bool, one) for one in values if isinstance(one, (str, int, float))}
        assert [place % len(options) for place in places] == [
            n
            for _ in range(MIN_KEYED)
            for n, one in enumerate(options)
            if (type(one) is bool, one) in wanted
        ]


def test_a_rule_is_found_by_what_it_shares_with_the_fewest() -> None:
    rules = [
        Rule(
            id=f"r{n}",
            when={"tenant": "t3", "app": "a5", "path": Operators(prefix=f"/v2/{n}/")},
            serve="v2",
        )
        for n in range(MANY)
    ]

    snapshot = deciding(rules)

    assert places_asked(snapshot, ASKING, ASKED) == [5]
    assert resolve(snapshot, ASKING, ASKED).reason == "RULE:r5"
    assert resolve(snapshot, caller("t4", app="a5"), ASKED).reason == "DEFAULT"


def test_what_many_rules_have_in_common_leaves_their_order() -> None:
    rules = [Rule(id=f"r{n}", when={"app": "a5"}, serve="v2") for n in range(MANY)]
    between = Rule(id="all", when={"path": Operators(regex=".*")}, serve="v1")

    snapshot = deciding([*rules[:9], between, *rules[9:]])

    assert places_asked(snapshot, ASKING, ASKED) == list(range(MANY + 1))


FOUND = ("tenant", "app", "scope", "claim.level", "header.x-word", "path", "method")
LOOKED_UP = st.dictionaries(
    st.sampled_from(FOUND),
    SCALARS | OPTIONS | st.sampled_from((*WORDS, "/", "/v2/")).map(lambda t: Operators(prefix=t)),
    min_size=1,
    max_size=2,
)


@given(
    st.lists(LOOKED_UP | LOOKED_UP | matchers(by_segment=True), min_size=10, max_size=30),
    segments(),
    st.lists(st.tuples(callers(), heads()), min_size=1, max_size=4),
)
def test_no_rule_that_holds_is_left_out_and_each_is_asked_once_in_order(
    whens: list[Matcher],
    known: dict[str, Segment],
    requests: list[tuple[Identity, RequestHead]],
) -> None:
    rules = tuple(Rule(id=f"r{n}", when=when, serve="v1") for n, when in enumerate(whens))
    policy = Policy(model="m", versions={"v1": version()}, segments=known, rules=rules)
    with everything_is_looked_up():
        snapshot = compile_snapshot(policy, {}, {})

    for identity, head in requests:
        places = places_asked(snapshot, identity, head)

        assert places == sorted(set(places))
        assert set(places) >= {
            n for n, when in enumerate(whens) if matches(when, identity, head, known)
        }
