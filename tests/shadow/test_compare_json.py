"""JSON documents are compared by structure, as a policy's pointers and tolerances say."""

from __future__ import annotations

import json
from collections import Counter
from itertools import permutations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.comparison import Comparison, Kept
from sidecar.model.shadow import Difference, Uncompared
from sidecar.shadow.findings import MASKED, MAX_DIFFERENCES, MAX_FIELDS
from sidecar.shadow.tolerance import Tolerance
from tests.shadow.answers import answer, compared

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
)
NAMES = st.sampled_from(["a", "b", "a/b", "~", "*", "", "0"])
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
POINTERS = st.lists(
    st.lists(st.sampled_from(["a", "b", "a~1b", "~0", "*", "", "0", "1"]), max_size=3).map(
        lambda steps: "".join(f"/{step}" for step in steps)
    ),
    max_size=3,
).map(tuple)
COMPARISONS = st.builds(
    Comparison,
    ignore=POINTERS,
    unordered=POINTERS,
    absolute=st.sampled_from([0.0, 0.5, 2.0]),
    relative=st.sampled_from([0.0, 0.1]),
    keep=st.builds(Kept, mask=POINTERS),
)


def spelled(document: object) -> bytes:
    return json.dumps(document).encode()


def fields(primary: JSON, shadow: JSON, comparison: Comparison = Comparison()) -> tuple[str, ...]:  # noqa: B008
    outcome = compared(spelled(primary), spelled(shadow), comparison)
    assert outcome.uncompared is None
    return outcome.fields


@pytest.mark.parametrize(
    ("primary", "shadow"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([1, 2.0, 1e3], [1.0, 2, 1000]),
        ([float("nan"), float("inf")], [float("nan"), float("inf")]),
    ],
)
def test_documents_of_one_meaning_agree_however_they_are_spelled(
    primary: JSON, shadow: JSON
) -> None:
    assert fields(primary, shadow) == ()


@pytest.mark.parametrize(
    ("primary", "shadow", "difference"),
    [
        ({"a": 1}, {"a": 3}, Difference("/a", "value", "1", "3", 2.0)),
        ({"a": 1}, {"a": True}, Difference("/a", "type", "1", "true")),
        ({"a": 0}, {"a": None}, Difference("/a", "type", "0", "null")),
        ({"a": "1"}, {"a": 1}, Difference("/a", "type", '"1"', "1")),
        ({"a": 1, "b": 2}, {"a": 1}, Difference("/b", "missing", "2")),
        ({"a": 1}, {"a": 1, "b": [2]}, Difference("/b", "extra", "", "[2]")),
        ({"a": [1, 2]}, {"a": [1]}, Difference("/a", "length", "2", "1", -1.0)),
        ({"a": [[1], [2]]}, {"a": [[1], [3]]}, Difference("/a/*/*", "value", "2", "3", 1.0)),
        ({"a/b~": 1}, {"a/b~": 2}, Difference("/a~1b~0", "value", "1", "2", 1.0)),
        (1, 2, Difference("body", "value", "1", "2", 1.0)),
        ([1.5, 2.5], [1.5, float("nan")], Difference("/*", "value", "2.5", "NaN")),
    ],
)
def test_a_difference_says_where_it_is_and_what_both_sides_say(
    primary: JSON, shadow: JSON, difference: Difference
) -> None:
    outcome = compared(spelled(primary), spelled(shadow))

    assert outcome.differences[0].field == difference.field
    assert outcome.differences[0].kind == difference.kind
    assert outcome.differences[0].delta == difference.delta
    if "NaN" not in difference.shadow:
        assert outcome.differences == (difference,)


@given(DOCUMENTS, COMPARISONS)
def test_a_document_agrees_with_itself(document: JSON, comparison: Comparison) -> None:
    # Written otherwise, so that not even equal bytes make them agree.
    primary, shadow = spelled(document), json.dumps(document, indent=1).encode() + b"\n"

    assert compared(primary, shadow, comparison).agrees


@given(DOCUMENTS, DOCUMENTS, COMPARISONS)
def test_sides_may_be_swapped(one: JSON, other: JSON, comparison: Comparison) -> None:
    there = compared(spelled(one), spelled(other), comparison)
    back = compared(spelled(other), spelled(one), comparison)

    assert (there.agrees, there.uncompared) == (back.agrees, back.uncompared)


@given(DOCUMENTS, DOCUMENTS, COMPARISONS)
def test_an_ignored_field_differs_no_more(one: JSON, other: JSON, comparison: Comparison) -> None:
    comparison = Comparison(comparison.kind, comparison.ignore, comparison.unordered)
    found = fields(one, other, comparison)
    for field in found:
        pointer = "" if field == "body" else field
        fewer = Comparison(
            comparison.kind, (*comparison.ignore, pointer), unordered=comparison.unordered
        )
        assert set(fields(one, other, fewer)) < set(found)


@given(DOCUMENTS, DOCUMENTS, COMPARISONS, st.floats(0, 5), st.floats(0, 1))
def test_what_agrees_does_so_within_any_greater_tolerance(
    one: JSON, other: JSON, strict: Comparison, absolute: float, relative: float
) -> None:
    lax = Comparison(
        ignore=strict.ignore,
        unordered=strict.unordered,
        absolute=strict.absolute + absolute,
        relative=min(1.0, strict.relative + relative),
    )
    if compared(spelled(one), spelled(other), strict).agrees:
        assert compared(spelled(one), spelled(other), lax).agrees


@given(
    st.lists(st.integers(0, 3) | st.booleans(), max_size=6).flatmap(
        lambda items: st.tuples(st.just(items), st.permutations(items))
    ),
    st.booleans(),
)
def test_an_unordered_array_is_a_multiset(
    sides: tuple[list[JSON], list[JSON]],
    doubles: bool,
) -> None:
    items, shuffled = sides
    if doubles and items:
        shuffled[0] = shuffled[-1]
    same = Counter(map(repr, shuffled)) == Counter(map(repr, items))

    outcome = compared(
        spelled({"a": items}), spelled({"a": shuffled}), Comparison(unordered=("/a",))
    )
    assert outcome.agrees == same


PAIRS = st.fixed_dictionaries({"x": st.integers(0, 6), "y": st.integers(0, 6)})


@given(
    st.integers(1, 5).flatmap(
        lambda size: st.tuples(
            *[st.lists(st.integers(0, 8) | PAIRS, min_size=size, max_size=size)] * 2
        )
    ),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.sampled_from([0.0, 0.25]),
)
def test_unordered_arrays_agree_where_some_order_makes_them_agree(
    sides: tuple[list[JSON], list[JSON]], absolute: float, relative: float
) -> None:
    mine, theirs = sides
    ordered = Comparison(absolute=absolute, relative=relative)
    unordered = Comparison(absolute=absolute, relative=relative, unordered=("/a",))

    by_trying = any(
        fields({"a": mine}, {"a": list(order)}, ordered) == () for order in permutations(theirs)
    )
    assert (fields({"a": mine}, {"a": theirs}, unordered) == ()) == by_trying


def test_what_has_no_like_in_an_unordered_array_is_missing_or_extra() -> None:
    outcome = compared(
        b'{"a":[{"b":1},{"b":2}]}', b'{"a":[{"b":3},{"b":1}]}', Comparison(unordered=("/a",))
    )

    assert outcome.differences == (
        Difference("/a/*", "missing", '{"b":2}'),
        Difference("/a/*", "extra", "", '{"b":3}'),
    )


def test_long_unordered_arrays_are_paired_in_bounded_time() -> None:
    mine = [{"x": number, "y": number % 7} for number in range(5000)]
    theirs = [{"x": number["x"] + 0.1, "y": number["y"]} for number in reversed(mine)]

    comparison = Comparison(absolute=0.2, unordered=("/*",), max_body_bytes=10**6)
    assert compared(spelled([mine]), spelled([theirs]), comparison).agrees


def test_a_tolerance_is_absolute_or_relative_of_the_greater() -> None:
    assert Tolerance(absolute=0.5).allows(1, 1.5)
    assert not Tolerance(absolute=0.5).allows(1, 1.75)
    assert Tolerance(relative=0.1).allows(90, 100)
    assert not Tolerance(relative=0.1).allows(89, 100)
    assert not Tolerance(relative=1.0).allows(1, float("inf"))
    assert not Tolerance(relative=1.0).allows(10**400, 1)
    assert Tolerance(absolute=1.0).allows(2**63, 2**63 + 1)
    assert not Tolerance(absolute=1.0).allows(float("nan"), 1)


def test_what_a_mask_points_at_is_never_told() -> None:
    secret = {"user": {"ssn": "078-05-1120", "age": 1}, "seen": ["078-05-1120"]}
    other = {"user": {"ssn": "219-09-9999", "age": 2}, "seen": ["219-09-9999"]}
    masks = ("/user/ssn", "/seen/*")
    for primary, shadow in (
        (secret, other),
        (secret, {"user": 5}),
        ({}, other),
        ([secret], other),
    ):
        outcome = compared(spelled(primary), spelled(shadow), Comparison(keep=Kept(mask=masks)))
        assert not outcome.agrees
        assert "078" not in repr(outcome)
        assert "219" not in repr(outcome)


@given(DOCUMENTS, DOCUMENTS)
def test_a_masked_document_tells_only_that_it_differs(one: JSON, other: JSON) -> None:
    outcome = compared(spelled(one), spelled(other), Comparison(keep=Kept(mask=("",))))

    for difference in outcome.differences:
        assert difference.field == "body"
        assert {difference.primary, difference.shadow} == {MASKED}
        assert difference.delta is None


def test_members_below_a_mask_are_not_even_named() -> None:
    outcome = compared(
        b'{"users":{"ann":1}}', b'{"users":{"bob":1}}', Comparison(keep=Kept(mask=("/users",)))
    )

    assert outcome.differences == (Difference("/users", "value", MASKED, MASKED),)


def test_what_is_told_is_bounded() -> None:
    mine = {f"{number}{'x' * 300}": "y" * 1000 for number in range(200)}
    theirs = dict.fromkeys(mine, 1)
    outcome = compared(spelled(mine), spelled(theirs))

    assert len(outcome.fields) == MAX_FIELDS
    assert len(outcome.differences) == MAX_DIFFERENCES
    assert all(len(field) <= 200 for field in outcome.fields)
    assert all(len(told.primary) <= 200 for told in outcome.differences)


@pytest.mark.parametrize("kind", ["[1]", '{"a":1}'])
def test_documents_are_compared_a_hundred_deep(kind: str) -> None:
    for unordered in ((), tuple("/*" * depth for depth in range(98))):
        one, other = "2", "3"
        for _ in range(99):
            one, other = kind.replace("1", one), kind.replace("1", other)
        comparison = Comparison(unordered=unordered, keep=Kept(mask=("/b",)))
        outcome = compared(one.encode(), other.encode(), comparison)
        assert outcome.uncompared is None
        assert not outcome.agrees


def test_documents_that_are_nested_too_deeply_are_not_compared() -> None:
    for depth in (150, 5000, 100_000):
        one, other = (b"[" * depth + inner + b"]" * depth for inner in (b"1", b"2"))
        assert compared(one, other).uncompared is Uncompared.MALFORMED


def test_a_body_that_is_no_json_differs_from_one_that_is() -> None:
    assert compared(b"{}", b"{").fields == ("body",)
    assert compared(b"{", b"{}").fields == ("body",)
    assert compared(b"{", b"[").uncompared is Uncompared.MALFORMED
    assert compared(answer(b"{", "text/html"), b"{}").fields == ("header:content-type", "body")


def test_of_members_with_one_name_the_last_counts() -> None:
    assert compared(b'{"a":1,"a":2}', b'{"a":2}').agrees
