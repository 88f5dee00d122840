"""A document that has too much of one thing is refused before all of it is looked through."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sidecar.policy import codec
from sidecar.policy.problem import PolicyError

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

AT: JSON = ["http://127.0.0.1:9001"]


def document(**members: JSON) -> bytes:
    versions: JSON = {"v1": {"endpoints": AT}}
    return json.dumps({"model": "m", "versions": versions, "default": "v1", **members}).encode()


def rule(**when: JSON) -> dict[str, JSON]:
    return {"rules": [{"id": "r", "when": when, "deny": "no"}]}


def v1(**members: JSON) -> dict[str, JSON]:
    return {"versions": {"v1": {"endpoints": AT, **members}}}


def texts(count: int) -> list[JSON]:
    return [f"t{n}" for n in range(count)]


def with_more(more: int) -> list[tuple[dict[str, JSON], str]]:
    """Return members that have as much as is allowed, and so much more; and where."""
    thousand, hundred, values = 1_000 + more, 100 + more, 10_000 + more
    return [
        ({"versions": {f"v{n}": {"endpoints": AT} for n in range(thousand)}}, "versions"),
        ({"labels": {f"l{n}": "v1" for n in range(thousand)}}, "labels"),
        (
            {
                "versions": {f"v{n}": {"endpoints": AT} for n in range(51)},
                "shadows": [{"version": f"v{n}"} for n in range(50 + more)],
            },
            "shadows",
        ),
        (v1(allow=[{"app": f"a{n}"} for n in range(thousand)]), "versions.v1.allow"),
        ({"deny": [{"app": f"a{n}"} for n in range(thousand)]}, "deny"),
        ({"allow": [{"app": texts(values)}]}, "allow[0]"),
        ({"segments": {"s": {"when": [{"app": "a"}] * thousand}}}, "segments.s.when"),
        (rule(**dict.fromkeys([f"header.x-{n}" for n in range(hundred)], "a")), "rules[0].when"),
        (rule(app=texts(values)), "rules[0].when"),
        (rule(app={"in": texts(6_000), "not_in": texts(4_000 + more)}), "rules[0].when"),
        (rule(app={"cidr": [f"10.0.{n >> 8}.{n & 255}" for n in range(5_000 + more)]}), "rules[0]"),
        (v1(health={"path": "/", "status": [200] * (500 + more)}), "versions.v1.health.status"),
    ]


@pytest.mark.parametrize(("members", "path"), with_more(1))
def test_what_is_too_much_is_told_where_it_stands(members: dict[str, JSON], path: str) -> None:
    default: JSON = "v1" if "versions" not in members or path.startswith("versions.") else "v0"

    with pytest.raises(PolicyError) as caught:
        codec.load(document(**{**members, "default": default}), source="doc")

    (problem,) = caught.value.problems
    assert problem.path.startswith(path)
    assert "are the most" in problem.reason


@pytest.mark.parametrize(("members", "path"), with_more(0))
def test_as_much_as_is_allowed_is_taken(members: dict[str, JSON], path: str) -> None:
    default: JSON = "v0" if path == "versions" else "v1"

    codec.load(document(**{**members, "default": default}), source="doc")


def test_a_segment_includes_any_number_of_tenants() -> None:
    segments: JSON = {"s": {"include": texts(60_000), "exclude": texts(40_000)}}

    policy = codec.load(document(segments=segments, **rule(segment="s")), source="doc")

    assert len(policy.segments["s"].include) == 60_000
