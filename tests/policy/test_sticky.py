"""Splits move no more callers than they must."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.policy import Policy, Rule, Split
from sidecar.policy.bucket import choose
from sidecar.policy.resolver import resolve
from sidecar.policy.snapshot import Snapshot, compile_snapshot
from tests.policy.examples import caller, make_head, make_policy
from tests.policy.policies import VERSIONS

HEAD = make_head()
ARMS = st.dictionaries(st.sampled_from(VERSIONS), st.integers(0, 5), min_size=1).filter(
    lambda arms: any(arms.values())
)
SUBJECTS = st.text(min_size=1, max_size=8)


def snapshot_of(arms: dict[str, int], labels: dict[str, str] | None = None) -> Snapshot:
    rule = Rule(id="ab", split=Split(arms=arms, key="subject"))
    policy = Policy(
        model="tumor", versions=make_policy().versions, labels=labels or {}, rules=(rule,)
    )
    return compile_snapshot(policy, {}, {})


def placed(snapshot: Snapshot, subject: str) -> str:
    return resolve(snapshot, caller(subject=subject), HEAD).version


@given(ARMS, SUBJECTS)
def test_the_order_of_arms_is_nothing(arms: dict[str, int], subject: str) -> None:
    turned = dict(reversed(arms.items()))

    assert placed(snapshot_of(arms), subject) == placed(snapshot_of(turned), subject)


@given(ARMS, SUBJECTS, st.sampled_from(VERSIONS), st.integers(1, 9))
def test_a_growing_arm_moves_callers_only_into_it(
    arms: dict[str, int], subject: str, growing: str, by: int
) -> None:
    grown = arms | {growing: arms.get(growing, 0) + by}

    was, now = placed(snapshot_of(arms), subject), placed(snapshot_of(grown), subject)

    assert now in {was, growing}


def test_shares_are_the_weights() -> None:
    callers = 6_000
    snapshot = snapshot_of({"v1": 90, "v2": 9, "v3": 1})

    counted = Counter(placed(snapshot, f"s{n}") for n in range(callers))

    for version, share in (("v1", 0.9), ("v2", 0.09), ("v3", 0.01)):
        sigma = sqrt(callers * share * (1 - share))
        assert abs(counted[version] - callers * share) < 3 * sigma


@given(SUBJECTS)
def test_an_arm_under_a_label_draws_as_its_version(subject: str) -> None:
    named = snapshot_of({"v1": 1, "v2": 2})
    labelled = snapshot_of({"stable": 1, "canary": 2}, {"stable": "v1", "canary": "v2"})

    assert placed(labelled, subject) == placed(named, subject)


def test_two_arms_of_one_version_are_refused() -> None:
    with pytest.raises(ValueError, match="same version"):
        snapshot_of({"v1": 1, "stable": 1}, {"stable": "v1"})


def test_sets_of_eligible_arms_are_remembered_within_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sidecar.policy.sticky.MAX_CHOOSERS", 2)
    arms = {"v1": 1, "v2": 1, "v3": 1}
    split = snapshot_of(arms).rules.general[0].split
    assert split is not None

    for _ in range(2):
        for out in VERSIONS:
            eligible = tuple(name for name in VERSIONS if name != out)
            for n in range(20):
                unit = b"u%d" % n
                live = dict.fromkeys(eligible, 1)
                assert split.choose(unit, eligible) == choose(live, "tumor/ab", unit)
