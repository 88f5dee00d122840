"""Expected shares are those of the weights, and what is observed keeps to them."""

from __future__ import annotations

from itertools import starmap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.policy import Policy, Rule, Split
from sidecar.policy.snapshot import compile_snapshot
from sidecar.policy.trial import Share, shares
from tests.policy.examples import caller, make_head, make_policy
from tests.policy.policies import callers, heads, policies

if TYPE_CHECKING:
    from sidecar.model.identity import Identity
    from sidecar.model.request import RequestHead

GLOBEX = Rule(id="globex", when={"tenant": "tenant-7"}, serve="v3")


def canary(key: str = "tenant") -> Rule:
    return Rule(id="canary", split=Split(arms={"v1": 90, "v2": 10}, key=key))


def tried(policy: Policy, count: int, tenants: int, **kills: str) -> dict[str, Share]:
    requests = [
        (caller(f"tenant-{n % tenants}"), make_head(request_id=b"r-%d" % n)) for n in range(count)
    ]
    found = shares(compile_snapshot(policy, {}, kills), requests)
    assert sum(one.requests for one in found) == count
    assert sum(one.expected for one in found) == pytest.approx(1)
    return {f"{one.version} {one.reason}": one for one in found}


@pytest.mark.parametrize("key", ["tenant", "request"])
def test_what_is_drawn_keeps_to_three_sigma_of_the_weights(key: str) -> None:
    found = tried(make_policy(canary(key)), 3000, 3000)

    assert list(found) == ["v1 SPLIT:canary", "v2 SPLIT:canary"]
    small = found["v2 SPLIT:canary"]
    assert small.expected == pytest.approx(0.1)
    assert small.high - small.low == pytest.approx(6 * (0.1 * 0.9 / 3000) ** 0.5)
    assert not any(one.is_odd for one in found.values())


def test_few_tenants_are_few_draws_however_many_requests() -> None:
    few = tried(make_policy(canary()), 1000, 10)["v2 SPLIT:canary"]
    by_request = tried(make_policy(canary("request")), 1000, 10)["v2 SPLIT:canary"]

    assert few.high - few.low > 3 * (by_request.high - by_request.low)


def test_what_is_not_drawn_is_exact() -> None:
    found = tried(make_policy(GLOBEX), 100, 10)

    assert found["v3 RULE:globex"] == Share("v3", "RULE:globex", 10, 0.1, 0.1, 0.1, 0.1)
    assert found["v1 DEFAULT"].observed == pytest.approx(0.9)


def test_a_killed_arm_gives_its_share_to_the_others() -> None:
    (only,) = starmap(lambda _, one: one, tried(make_policy(canary()), 50, 50, v2="bad").items())

    assert (only.version, only.expected, only.low) == ("v1", 1.0, 1.0)


def test_an_arm_that_nobody_got_is_told_too() -> None:
    found = tried(make_policy(Rule(id="rare", split=Split(arms={"v1": 999, "v2": 1}))), 5, 5)

    assert found["v2 SPLIT:rare"].expected == pytest.approx(0.001)
    assert found["v2 SPLIT:rare"].requests == 0


@given(policies(), st.lists(st.tuples(callers(), heads()), min_size=1, max_size=8))
def test_whatever_is_observed_was_to_be_expected(
    policy: Policy, requests: list[tuple[Identity, RequestHead]]
) -> None:
    found = shares(compile_snapshot(policy, {}, {}), requests)

    assert sum(one.requests for one in found) == len(requests)
    assert sum(one.expected for one in found) == pytest.approx(1)
    assert all(one.expected > 0 and one.low <= one.expected <= one.high + 1e-9 for one in found)


def test_a_share_is_told_without_the_dust_of_a_sum() -> None:
    split = Rule(id="canary", split=Split(arms={"v1": 8, "v2": 2}))

    found = tried(make_policy(split), count=1000, tenants=1000)

    assert {name: one.expected for name, one in found.items()} == {
        "v1 SPLIT:canary": 0.8,
        "v2 SPLIT:canary": 0.2,
    }
