"""What decodes is judged although the rest does not, and nothing is held against it for that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy import codec
from sidecar.policy.problem import MAX_PROBLEMS, PolicyError
from sidecar.policy.validate import validate
from tests.policy.policies import policies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.model.identity import JSON
    from sidecar.model.policy import Policy

MISFIT = "[[]]"  # fits no field
AT: JSON = {"endpoints": ["http://127.0.0.1:9001"]}
RETIRED: JSON = {"endpoints": [1], "state": "retired"}
VERSIONS: dict[str, JSON] = {"v1": AT, "v2": AT}


def told(**members: JSON) -> list[str]:
    """Return what is wrong with a document of these members, by its order in the text."""
    document: dict[str, JSON] = {"model": "m", "versions": VERSIONS, **members}
    with pytest.raises(PolicyError) as refused:
        codec.load(json.dumps(document).encode(), source="")
    return [f"{one.path}: {one.reason}" for one in refused.value.problems]


def paths(value: JSON) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of all that is in a value."""
    steps = value.items() if isinstance(value, dict) else ()
    for step, inner in enumerate(value) if isinstance(value, list) else steps:
        yield (step,)
        yield from ((step, *below) for below in paths(inner))


def put(value: JSON, path: tuple[str | int, ...], what: JSON) -> None:
    """Put something in the place of what is at a path."""
    for step in path[:-1]:
        value = value[step]  # type: ignore[index]  # the path is one of the value
    value[path[-1]] = what  # type: ignore[index]  # as above


@given(policies(), st.data())
def test_no_problem_is_invented_from_what_does_not_decode(
    policy: Policy, data: st.DataObject
) -> None:
    document: JSON = json.loads(codec.encode(policy))
    for _ in range(data.draw(st.integers(1, 3))):
        put(
            document,
            data.draw(st.sampled_from(sorted(paths(document), key=str))),
            json.loads(MISFIT),
        )
    raw = json.dumps(document).encode()
    meant = {(one.path, one.reason) for one in validate(policy)}

    with pytest.raises(PolicyError) as shape:
        codec.decode(raw, source="")
    with pytest.raises(PolicyError) as whole:
        codec.load(raw, source="")

    found = [one for one in whole.value.problems if one not in shape.value.problems]
    assert len(found) == len(whole.value.problems) - len(shape.value.problems)
    for one in found:
        known = any(one.path == path for path, _ in meant)
        # The one of a circle that is named, and so on: it depends on where the walk begins.
        assert known or any(reason[:20] == one.reason[:20] for _, reason in meant)


@given(policies(), st.data())
def test_what_means_nothing_is_told_beside_what_does_not_decode(
    policy: Policy, data: st.DataObject
) -> None:
    document = json.loads(codec.encode(policy))
    document["shadows"] = [*document.get("shadows", ()), {"version": "nosuch"}]
    others = [one for one in paths(document) if one[0] not in {"shadows", "versions", "labels"}]
    put(document, data.draw(st.sampled_from(sorted(others, key=str))), json.loads(MISFIT))

    with pytest.raises(PolicyError) as refused:
        codec.load(json.dumps(document).encode(), source="doc")

    assert any("nosuch" in one.reason for one in refused.value.problems)
    assert len(refused.value.problems) > 1


@pytest.mark.parametrize(
    "access",
    [
        {"deny": [[]]},
        {"allow": [{"tenant": [[]]}]},
        {"default_access": "nobody", "allow": [{"tenant": "acme"}]},
        {"default_access": "deny", "allow": 7},
    ],
)
def test_whom_nobody_can_read_a_model_lets_in_closes_and_opens_nothing(
    access: dict[str, JSON],
) -> None:
    rules: JSON = [{"id": "all", "serve": "v1"}, {"id": "rest", "serve": "v22"}]

    found = told(**access, rules=rules, default="v1")

    assert len(found) == 2
    assert found[0].split(".")[0].split("[")[0].split(":")[0] in access
    assert found[1].startswith('rules[1].serve: unknown version "v22"')


def test_what_else_is_wrong_with_whom_a_model_lets_in_is_told_by_its_number() -> None:
    found = told(deny=[{"tenant": [[]]}, {"tenent": "acme"}], allow=[{"segment": "beta"}])

    assert [one.split(": ")[0] for one in found] == [
        "deny[0].tenant[0]",
        "deny[1].tenent",
        "allow[0].segment",
    ]


def test_problems_of_shape_and_of_meaning_are_told_in_the_order_of_the_text() -> None:
    assert told(
        rules=[
            {"id": "a", "serve": "v22"},
            {"id": "b", "split": {"arms": {"v1": 1.5, "v22": 1}, "key": "tenand"}},
            {"id": "c", "serve": "v1", "when": {"time": 5, "sgement": "x"}},
        ],
        defualt="v1",
        default="v9",
    ) == [
        'rules[0].serve: unknown version "v22"; did you mean "v2"?',
        "rules[1].split.arms.v1: a whole number is expected, not the number 1.5",
        'rules[1].split.arms.v22: unknown version "v22"; did you mean "v2"?',
        'rules[1].split.key: unknown key "tenand": one of tenant, subject, app, request, '
        'header.<name>; did you mean "tenant"?',
        "rules[2].when.time: a time is matched by from and until: {from: 2026-11-23T13:00:00Z}",
        'rules[2].when.sgement: unknown attribute "sgement": one of tenant, segment, subject, app, '
        'scope, method, path, time, claim.<path>, header.<name>; did you mean "segment"?',
        'defualt: unknown field "defualt"; did you mean "default"?',
        'default: unknown version "v9"',
    ]


def test_rules_keep_their_numbers_behind_one_that_does_not_decode() -> None:
    assert told(rules=[5, {"id": "b", "serve": "v1"}, {"id": "c", "serve": "v2"}]) == [
        "rules[0]: a mapping is expected, not the number 5",
        'rules[2]: never reached: rule "b" before it answers every caller',
    ]


@pytest.mark.parametrize(
    "members",
    [
        {"versions": {**VERSIONS, "v3": 5}},
        {"versions": {**VERSIONS, "v3": {}}},
        {"versions": {**VERSIONS, "v3": RETIRED}},
        {"versions": []},
        {"versons": VERSIONS},
        {"labels": {"v3": 5}},
        {"labels": 5},
        {"lables": {"v3": "v1"}},
    ],
    ids=str,
)
def test_a_name_of_what_does_not_decode_is_no_unknown_one(members: dict[str, JSON]) -> None:
    named: dict[str, JSON] = {
        "rules": [
            {"id": "a", "when": {"app": "a"}, "split": {"arms": {"v3": 1}, "otherwise": "v3"}},
            {"id": "b", "when": {"app": "b"}, "serve": "v3"},
        ],
        "shadows": [{"version": "v3"}],
        "default": "v3",
    }

    problems = told(**named, **members)

    assert len(problems) in {1, 2}
    assert not any("unknown version" in one for one in problems)


@pytest.mark.parametrize(
    "members",
    [{"segments": {"vip": 5}}, {"segments": [1]}, {"segmets": {}}, {"segments": {"vip": {"x": 1}}}],
    ids=str,
)
def test_a_segment_that_does_not_decode_is_no_unknown_one(members: dict[str, JSON]) -> None:
    rules: JSON = [{"id": "a", "when": {"segment": "vip"}, "serve": "v1"}]

    (problem,) = told(rules=rules, **members)

    assert "segm" in problem
    assert "unknown segment" not in problem


def test_a_default_whose_fallback_does_not_decode_may_be_of_use() -> None:
    draining: JSON = {"endpoints": ["http://h:1"], "state": "draining", "fallback": "v2"}
    broken: JSON = {"endpoints": [5]}
    versions: JSON = {"v1": draining, "v2": broken}

    (problem,) = told(versions=versions, default="v1")

    assert problem.startswith("versions.v2.endpoints[0]: ")


def test_a_rule_that_does_not_decode_is_believed_to_answer_nobody() -> None:
    rules: JSON = [
        {"id": "a", "when": {"app": [[]]}, "serve": "v1"},
        {"id": "b", "serve": "v1"},
    ]

    (problem,) = told(rules=rules)

    assert problem.startswith("rules[0].when.app")


def test_the_bound_of_problems_is_one_for_both_kinds() -> None:
    rules: list[JSON] = [
        {"id": f"r{n}", "when": {"app": f"a{n}"}, "serve": "v9"} for n in range(80)
    ]
    wrong: list[JSON] = [{"id": f"w{n}", "serve": n} for n in range(30)]

    problems = told(rules=[*rules, *wrong])

    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1] == ": and more"
    assert sum("not the number" in one for one in problems) == 30


def test_a_document_that_is_wrong_all_over_is_told_by_its_shape_alone() -> None:
    problems = told(rules=[{"id": f"r{n}", "serve": n} for n in range(20_000)], default="v9")

    assert len(problems) == MAX_PROBLEMS + 1
    assert not any("v9" in one for one in problems)
