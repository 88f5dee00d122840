"""What does not fit is said in the words of those who write documents."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from sidecar.model.comparison import Pointer
from sidecar.model.policy import Condition, Policy, Price, Split, Weight
from sidecar.policy.words import plain

Currency = msgspec.structs.fields(Price)[3].type
Some = Annotated[tuple[str, ...], Meta(min_length=1, max_length=2)]


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ("90%", Weight, 'a whole number is expected, not text "90%"'),
        (1.5, Weight, "a whole number is expected, not the number 1.5"),
        (True, Weight, "a whole number is expected, not true"),
        (-1, Weight, "a whole number of at least 0 is expected, not the number -1"),
        (None, Weight, "a whole number is expected, but nothing is given"),
        ("v1", Split | None, 'a mapping is expected, not text "v1"'),
        ([], str | None, "text is expected, not a list"),
        ({}, float, "a number is expected, not a mapping"),
        (101, Annotated[float, Meta(le=100)], "a number of at most 100 is expected, not the"),
        (0, Annotated[float, Meta(gt=0)], "a number of more than 0 is expected, not the number 0"),
        ([], Some, "a list of at least 1 item is expected, not of 0"),
        (["a", "b", "c"], Some, "a list of at most 2 items is expected, not of 3"),
        (None, Condition, "true or false, a number, text, a mapping or a list is expected, but"),
        ("a b", Annotated[str, Meta(pattern="^a$")], 'text like ^a$ is expected, not text "a b"'),
        ("id", Pointer, 'a JSON pointer (/outputs/scores) is expected, not text "id"'),
        ("usd", Currency, 'text of three capital letters (USD) is expected, not text "usd"'),
        ("x", Literal["a"], "invalid enum value 'x'"),
    ],
)
def test_a_misfit_is_said_plainly(value: object, kind: object, words: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, kind)

    assert plain(str(caught.value), value).startswith(words)


def test_a_long_text_is_shown_in_part() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert("x" * 1000, Policy)

    assert re.fullmatch(
        'a mapping is expected, not text "x{80}"', plain(str(caught.value), "x" * 1000)
    )
