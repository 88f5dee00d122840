"""Texts are the same byte by byte, but for case and white space, or nearly, as a policy says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.comparison import Comparison, Text
from sidecar.model.shadow import Uncompared
from sidecar.shadow.text import MAX_UNITS, edit_ratio, edits, normalised
from tests.shadow.answers import answer, compared

if TYPE_CHECKING:
    from sidecar.model.shadow import Outcome


def texts(primary: str, shadow: str, mode: Text, ratio: float = 0.9) -> Outcome:
    sides = [answer(side.encode(), "text/plain") for side in (primary, shadow)]
    comparison = Comparison(text=mode, text_ratio=ratio, max_body_bytes=1_000_000)
    return compared(sides[0], sides[1], comparison)


@pytest.mark.parametrize(
    ("primary", "shadow"),
    [
        ("Hello,  world\n", "hello, World"),
        ("ﬁne\u00a0Ⅷ", "FINE viii"),
        ("STRASSE", "straße"),
        ("e\u0301", "É"),
    ],
)
def test_case_white_space_and_compatible_characters_may_be_left_out(
    primary: str, shadow: str
) -> None:
    assert texts(primary, shadow, Text.NORMALISED).agrees
    assert not texts(primary, shadow, Text.EXACT).agrees


def test_words_make_a_difference_in_every_mode() -> None:
    for mode in Text:
        assert texts("the cat sat", "the dog lay", mode).fields == ("text",)


def test_texts_agree_from_the_ratio_up() -> None:
    assert texts("abcdefghij", "abcdefghiX", Text.RATIO, 0.9).agrees
    assert not texts("abcdefghij", "abcdefghiX", Text.RATIO, 0.91).agrees
    assert texts("abcd", "abXd", Text.RATIO).measures == {"edit_ratio": 0.75}


@given(st.text())
def test_what_is_normalised_stays_so(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


def test_marks_without_end_are_put_in_order_in_bounded_time() -> None:
    marks = "\u0300\u0316\uff9e" * 40_000

    assert not texts("a" + marks, "b" + marks, Text.NORMALISED).agrees
    assert normalised("e" + "\u0316\u0301") == normalised("É\u0316")


def test_long_texts_are_told_from_where_they_part() -> None:
    same = "x" * 5000
    (difference,) = texts(same + "one" + same, same + "two" + same, Text.EXACT).differences

    assert "xone" in difference.primary
    assert "xtwo" in difference.shadow
    assert max(len(difference.primary), len(difference.shadow)) <= 200


def plain_edits(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for index, mine in enumerate(one, 1):
        last, row[0] = row[0], index
        for at, theirs in enumerate(other, 1):
            last, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, last + (mine != theirs))
    return row[-1]


WORDS = st.text("abc", max_size=90)


@given(WORDS, WORDS)
def test_edits_are_levenshteins(one: str, other: str) -> None:
    assert edits(one, other) == plain_edits(one, other)


@given(WORDS, WORDS)
def test_a_ratio_is_of_the_longer_text_and_the_same_both_ways(one: str, other: str) -> None:
    ratio = edit_ratio(one, other)

    assert ratio == edit_ratio(other, one)
    longest = max(len(one), len(other))
    assert ratio == pytest.approx(1 - plain_edits(one, other) / longest if longest else 1)


def test_of_long_texts_words_are_counted() -> None:
    words = [f"w{number}" for number in range(1500)]
    other = ["x", *words[1:700], *words[701:], "y"]

    assert edit_ratio(" ".join(words), " ".join(other)) == pytest.approx(1 - 3 / 1501, abs=1e-3)


def test_of_still_longer_texts_no_more_is_found_than_is_alike() -> None:
    words = [f"w{number}" for number in range(10 * MAX_UNITS)]
    other = ["x", "y", *words[2:-2], "z"]

    ratio = edit_ratio(" ".join(words), " ".join(other))
    assert 0.99 < ratio <= 1 - 4 / len(words)


def test_of_long_texts_without_words_characters_are_counted() -> None:
    text = "".join(chr(0x4E00 + number) for number in range(5000))

    assert edit_ratio("一" + text[1:-1] + "一", "二" + text[1:-1] + "二") == 1 - 2 / 5000


def test_texts_whose_edits_would_take_too_long_are_not_compared() -> None:
    mine, theirs = "a " * 40_000, "b " * 40_000

    assert texts(mine, theirs, Text.RATIO).uncompared is Uncompared.SIZE
    assert not texts(mine, theirs, Text.EXACT).agrees
    assert texts(mine, mine + "a", Text.RATIO).agrees
