"""A body names another model, and not a byte of it changes elsewhere."""

from __future__ import annotations

import json
import re
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.shadow.renaming import MAX_MEMBERS, with_model

TEXTS = st.text(max_size=4) | st.sampled_from(("model", '"model":', "\\", "{", "}"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(TEXTS, some, max_size=3),
    max_leaves=8,
)
SPACES = st.sampled_from(("", " ", "\n\t", "\r\n  "))


@st.composite
def objects(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return a JSON object with a member `model`, before its value and after it."""

    def member(name: str, value: object) -> str:
        spelled = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(INDENT))
        key = json.dumps(name, ensure_ascii=draw(st.booleans()))
        return f"{draw(SPACES)}{key}{draw(SPACES)}:{draw(SPACES)}{spelled}{draw(SPACES)}"

    names = draw(st.lists(TEXTS.filter(lambda one: one != "model"), unique=True, max_size=4))
    at = draw(st.integers(0, len(names)))
    before = [member(name, draw(VALUES)) for name in names[:at]]
    after = [member(name, draw(VALUES)) for name in names[at:]]
    first = "".join(one + "," for one in before)
    head = f'{draw(SPACES)}{{{first}{draw(SPACES)}"model"{draw(SPACES)}:'
    tail = "".join("," + one for one in after)
    return (head + draw(SPACES)).encode(), f"{draw(SPACES)}{tail}}}{draw(SPACES)}".encode()


INDENT = st.none() | st.integers(0, 2)


@given(objects(), VALUES, st.text(min_size=1, max_size=20))
def test_the_value_of_the_member_alone_is_replaced(
    around: tuple[bytes, bytes], value: object, model: str
) -> None:
    before, after = around

    renamed = with_model(before + json.dumps(value).encode() + after, model)

    assert renamed.startswith(before)
    assert renamed.endswith(after)
    assert json.loads(renamed[len(before) : len(renamed) - len(after)]) == model


@given(VALUES | st.dictionaries(TEXTS.filter(lambda one: one != "model"), VALUES))
def test_a_body_without_the_member_stays_as_it_is(value: object) -> None:
    body = json.dumps(value).encode()
    if isinstance(value, dict) and "model" in value:
        return

    assert with_model(body, "other") == body


@given(st.binary(max_size=40))
def test_any_bytes_at_all_are_taken(body: bytes) -> None:
    assert isinstance(with_model(body, "other"), bytes)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": 1, "model": 2}',
        b'{"model": 1, "model": 1}',
        b'{"model": 1} {"model": 2}',
        b'{"a": 1, "a": 22, "model": 2}',
        b'{"model": 1',
        b"[" * 100_000,
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b', "model": 1}',
        b'{"model": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    ],
)
def test_what_is_not_one_plain_object_stays_as_it_is(body: bytes) -> None:
    assert with_model(body, "other") == body


def test_members_are_looked_at_as_far_as_any_request_has_them() -> None:
    def body(before: int) -> bytes:
        members = "".join(f'"a{n}": {n}, ' for n in range(before))
        return f'{{{members}"model": "m"}}'.encode()

    assert b'"other"' in with_model(body(MAX_MEMBERS - 1), "other")
    assert with_model(body(MAX_MEMBERS), "other") == body(MAX_MEMBERS)


@pytest.mark.parametrize("name", [b"a", b"\\u0061"])
def test_a_long_name_takes_no_step_for_each_of_its_characters(name: bytes) -> None:
    long_name = name * (1_000_000 // len(name))
    body = b'{"%b":1,"model":"a"}' % long_name
    by_steps = re.compile(rb'"(?:[^"\\]|\\.)*"')
    steps = min(timeit.repeat(lambda: by_steps.match(body, 1), number=1, repeat=5))

    took = min(timeit.repeat(lambda: with_model(body, "b"), number=1, repeat=5))

    assert with_model(body, "b") == b'{"%b":1,"model":"b"}' % long_name
    assert took < steps / 2  # a tenth
