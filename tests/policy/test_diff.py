"""Differences are complete, and edits are told from what files said."""

from __future__ import annotations

from hypothesis import given, settings
from msgspec.structs import replace

from sidecar.model.policy import Policy, Rule, Split
from sidecar.policy.codec import encode
from sidecar.policy.diff import ORDER, Change, content, diff, fingerprint, undone
from tests.policy.examples import make_policy
from tests.policy.policies import policies

CANARY = Rule(id="canary", split=Split(arms={"v1": 90, "v2": 10}))
GLOBEX = Rule(id="globex", when={"tenant": "globex"}, serve="v2")


def spelled(changes: tuple[Change, ...]) -> dict[str, tuple[object, object]]:
    return {one.spell(): (one.before, one.after) for one in changes}


@settings(max_examples=25)
@given(policies(), policies())
def test_policies_differ_exactly_when_their_documents_do(one: Policy, other: Policy) -> None:
    is_same = encode(content(one)) == encode(content(other))

    assert bool(diff(one, other)) != is_same
    assert (fingerprint(one) == fingerprint(other)) == is_same
    assert not diff(one, replace(one, revision=9, actor="ann", comment="why", applied="x"))


@settings(max_examples=25)
@given(policies(), policies(), policies())
def test_nothing_is_undone_only_where_every_edit_is_wanted(
    base: Policy, stored: Policy, wanted: Policy
) -> None:
    lost = undone(base, stored, wanted)

    assert all(one in diff(base, stored) for one in lost)
    assert not undone(base, stored, stored)
    assert not undone(stored, stored, wanted)
    assert undone(base, stored, base) == diff(base, stored)


def test_changes_are_named_by_rule_and_version() -> None:
    before = make_policy(CANARY)
    raised = replace(CANARY, split=Split(arms={"v1": 80, "v2": 20}))

    changes = diff(before, make_policy(GLOBEX, raised, default=None))

    assert spelled(changes) == {
        "rules[canary].split.arms.v1": (90, 80),
        "rules[canary].split.arms.v2": (10, 20),
        "rules[globex]": (None, {"id": "globex", "when": {"tenant": "globex"}, "serve": "v2"}),
        "default": ("v1", None),
        ORDER: (["canary"], ["globex", "canary"]),
    }


def test_a_rule_put_last_changes_no_order() -> None:
    assert [one.spell() for one in diff(make_policy(CANARY), make_policy(CANARY, GLOBEX))] == [
        "rules[globex]"
    ]


def test_true_and_1_are_two_values() -> None:
    one = make_policy(replace(GLOBEX, when={"claim.x": True}))
    other = make_policy(replace(GLOBEX, when={"claim.x": 1}))

    assert spelled(diff(one, other)) == {"rules[globex].when.claim.x": (True, 1)}
