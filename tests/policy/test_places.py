"""Places in JSON are those that a reader of the whole text finds, at the cost of what is asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy import document, places
from sidecar.policy.problem import PolicyError, below

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.model.identity import JSON

KEYS = st.text("ab.[]\"' 0", max_size=5)
LEAVES: st.SearchStrategy[JSON] = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | KEYS
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
SPELLINGS = st.sampled_from([None, 0, 1, 4])


def spelled(value: JSON, path: str = "") -> Iterator[str]:
    """Yield the paths of a value and of all in it."""
    yield path
    steps = value.items() if isinstance(value, dict) else ()
    for step, inner in enumerate(value) if isinstance(value, list) else steps:
        yield from spelled(inner, below(path, step))


@given(VALUES, SPELLINGS)
def test_every_value_is_where_yaml_finds_it(value: JSON, indent: int | None) -> None:
    text = "\n " + json.dumps(value, indent=indent)
    paths = list(spelled(value))
    known = document.in_yaml(text, paths)

    assert known.keys() == set(paths)
    assert places.in_json(text, paths) == known


@given(VALUES, SPELLINGS, st.data())
def test_one_value_is_found_without_the_others(
    value: JSON, indent: int | None, data: st.DataObject
) -> None:
    text = json.dumps(value, indent=indent)
    known = places.in_json(text, spelled(value))
    path = data.draw(st.sampled_from(sorted(known)))

    for found in (places.in_json(text, [path]), document.in_yaml(text, [path])):
        assert found[path] == known[path]
        assert found.items() <= known.items()


def test_yaml_places_are_those_of_block_values_and_aliases() -> None:
    text = "a: &x\n  - 1\n  - b: 2\nc: *x\n? d\n: 3\n"

    assert document.in_yaml(text, ["a[1].b", "c[1].b", "d"]) == {
        "": (1, 1),
        "a": (1, 4),
        "a[1]": (3, 5),
        "a[1].b": (3, 8),
        "c": (4, 4),
        "d": (6, 3),
    }


def test_tabs_and_line_ends_of_any_kind_are_blanks() -> None:
    found = places.in_json('{\t"a":\r\n\t[1,\n\t\t{"b": 2}]}', ["a[1].b"])

    assert found == {"": (1, 1), "a": (2, 2), "a[1]": (3, 3), "a[1].b": (3, 9)}


def test_what_is_not_there_has_the_place_of_what_is_around_it() -> None:
    found = places.in_json('{"a": [1]}', ["a[0].b", "c.d"])

    assert places.nearest("a[0].b", found) == (1, 8)
    assert places.nearest("c.d", found) == (1, 1)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[[[[1]]]]", (1, 4)),
        ('{"[[[[": [\n[[1]]]}', (2, 2)),
        ("[[],[],[],[[]]]", (1, 16)),
    ],
)
def test_the_bracket_that_is_too_deep_is_found(text: str, place: places.Place) -> None:
    assert places.too_deep(text, 3) == place


@pytest.mark.parametrize("end", ["\x85", "\u2028", "\u2029", "\r"])
def test_only_a_line_feed_ends_a_line_of_the_file(end: str) -> None:
    text = f"a: 1{end}b:\n  - x\n  - 'y{end}z'\n  - 2\n"
    found = document.in_yaml(text, ["a", "b[0]", "b[2]"])

    assert {path: found[path] for path in ("a", "b[0]", "b[2]")} == {
        "a": (1, 4),
        "b[0]": (2, 5),
        "b[2]": (4, 5),
    }


@pytest.mark.parametrize("end", ["\x85", "\u2028", "\u2029"])
def test_what_yaml_must_not_hold_is_told_by_the_lines_of_the_file(end: str) -> None:
    with pytest.raises(PolicyError) as refused:
        document.read(f"a: 1{end}b: 2\nc: !!python/name:os.system x\n", "")

    (problem,) = refused.value.problems
    assert (problem.line, problem.column) == (2, 4)
