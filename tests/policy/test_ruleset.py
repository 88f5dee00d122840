"""Look-ups find the rules that concern a caller, in the order of the document."""

from __future__ import annotations

import pytest

from sidecar.model.decision import Decision
from sidecar.model.policy import Operators, Policy, Rule, Segment
from sidecar.policy.resolver import resolve
from sidecar.policy.ruleset import MIN_KEYED
from sidecar.policy.snapshot import compile_snapshot
from tests.policy.examples import caller, make_head, version
from tests.policy.plain import PlainReading

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
        Rule(id=f"r{n}", when={"tenant": Operators(prefix="t"), "path": f"/{n}"}, serve="v2")
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
