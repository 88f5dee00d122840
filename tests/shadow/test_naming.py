"""A test keeps its name while what it tests is the same, and no longer."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sidecar.model.comparison import Comparison, Kept, Text, Thresholds
from sidecar.model.policy import Lineage, Policy, Rewrite, Shadow, State, Version
from sidecar.shadow.naming import test_of as named

V1 = Version(endpoints=("http://127.0.0.1:9001",))
V2 = Version(endpoints=("http://127.0.0.1:9002", "http://127.0.0.1:9012"))
V3 = Version(endpoints=("http://127.0.0.1:9003",))
SHADOW = Shadow(version="v2", methods=("POST",), compare=Comparison(control="v1"))
POLICY = Policy(
    model="m",
    versions={"v1": V1, "v2": V2, "v3": V3},
    labels={"canary": "v2", "stable": "v1"},
    default="v3",
    shadows=(SHADOW,),
)
BEFORE = named(POLICY, SHADOW)


def test_a_name_is_twelve_hexadecimal_digits() -> None:
    assert len(BEFORE) == 12
    assert int(BEFORE, 16) >= 0


@pytest.mark.parametrize(
    "policy",
    [
        replace(POLICY, revision=7, default="v1", rules=(), labels={**POLICY.labels, "x": "v3"}),
        replace(
            POLICY, versions={**POLICY.versions, "v3": replace(V3, rewrite=Rewrite(path="/x"))}
        ),
        replace(POLICY, versions={**POLICY.versions, "v2": replace(V2, state=State.WARMING)}),
        replace(POLICY, versions={**POLICY.versions, "v2": replace(V2, deny=({"app": "a"},))}),
        replace(
            POLICY,
            versions={**POLICY.versions, "v2": Version(endpoints=(*reversed(V2.endpoints),))},
        ),
    ],
)
def test_what_is_not_about_the_test_leaves_its_name(policy: Policy) -> None:
    assert named(policy, SHADOW) == BEFORE


@pytest.mark.parametrize(
    "shadow",
    [
        replace(SHADOW, version="canary"),
        replace(SHADOW, compare=Comparison(control="stable")),
        replace(SHADOW, enabled=False, cost_per_day=3.0),
        replace(
            SHADOW,
            compare=Comparison(
                control="v1", thresholds=Thresholds(min_pairs=5), keep=Kept(values=True)
            ),
        ),
    ],
)
def test_what_no_pair_depends_on_leaves_the_name(shadow: Shadow) -> None:
    assert named(POLICY, shadow) == BEFORE


@pytest.mark.parametrize(
    "shadow",
    [
        replace(SHADOW, percent=50),
        replace(SHADOW, key="tenant"),
        replace(SHADOW, when=({"tenant": "acme"},)),
        replace(SHADOW, methods=("*",)),
        replace(SHADOW, headers={"A": "1"}),
        replace(SHADOW, body_model="m2"),
        replace(SHADOW, max_body_bytes=5),
        replace(SHADOW, compare=Comparison(control="v1", text=Text.NORMALISED)),
        replace(SHADOW, compare=Comparison()),
        replace(SHADOW, compare=None),
        replace(SHADOW, version="v3"),
    ],
)
def test_another_way_of_shadowing_has_another_name(shadow: Shadow) -> None:
    assert named(POLICY, shadow) != BEFORE


@pytest.mark.parametrize("name", ["v1", "v2"])
@pytest.mark.parametrize(
    "change",
    [
        {"endpoints": ("http://127.0.0.1:9009",)},
        {"rewrite": Rewrite(path="/x")},
        {"lineage": Lineage(run="r-2")},
    ],
)
def test_another_version_behind_a_name_is_another_test(
    name: str, change: dict[str, object]
) -> None:
    """Of the shadow, or of what shows the noise."""
    versions = {**POLICY.versions, name: replace(POLICY.versions[name], **change)}

    assert named(replace(POLICY, versions=versions), SHADOW) != BEFORE
