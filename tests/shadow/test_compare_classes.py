"""Classifications are compared by their label, and their probabilities are told."""

from __future__ import annotations

import json

import pytest

from sidecar.model.comparison import Comparison, Kept, Kind
from sidecar.model.shadow import Difference, Outcome, Uncompared
from tests.shadow.answers import compared

NAMES = ("cat", "dog", "owl")


def classified(primary: object, shadow: object, **rules: object) -> Outcome:
    comparison = Comparison(kind=Kind.CLASSIFICATION, **rules)  # type: ignore[arg-type]
    return compared(json.dumps(primary).encode(), json.dumps(shadow).encode(), comparison)


def test_labels_are_compared_and_told() -> None:
    outcome = classified({"label": "cat"}, {"label": "dog"}, label="/label")

    assert outcome.kind == "classification"
    assert outcome.labels == ("cat", "dog")
    assert outcome.differences == (Difference("label", "value", '"cat"', '"dog"'),)
    assert outcome.measures == {"label_agreement": 0.0}


def test_long_labels_are_told_apart_however_late_they_part() -> None:
    mine, theirs = f"{'a' * 100}1", f"{'a' * 100}2"
    outcome = classified({"label": mine}, {"label": theirs}, label="/label")

    assert outcome.fields == ("label",)
    assert outcome.labels == ("a" * 100, f"{'a' * 99}…")
    by_label = classified({mine: 0.4, theirs: 0.6}, {mine: 0.6, theirs: 0.4}, probabilities="")
    assert by_label.fields == ("label",)
    same = classified({"label": mine}, {"label": mine}, label="/label")
    assert (same.agrees, same.labels) == (True, ("a" * 100, "a" * 100))


@pytest.mark.parametrize(
    ("scores", "label"),
    [
        ([0.2, 0.5, 0.3], "dog"),
        ([0.4, 0.4, 0.2], "cat"),
        ({"owl": 0.6, "cat": 0.4}, "owl"),
        (0.75, "dog"),
        ([0.25], "cat"),
        ([0.1, 0.2, 0.1, 0.6], "3"),
    ],
)
def test_without_a_label_that_of_the_first_greatest_probability_is_meant(
    scores: object, label: str
) -> None:
    outcome = classified(scores, scores, probabilities="", labels=NAMES)

    assert outcome.labels == (label, label)


@pytest.mark.parametrize(
    ("said", "label"), [(1, "dog"), (7, "7"), ("1", "1"), (True, "true"), (1.5, "1.5")]
)
def test_a_label_that_is_an_index_has_the_name_of_it(said: object, label: str) -> None:
    assert classified([said], [said], label="/0", labels=NAMES).labels == (label, label)


def test_probabilities_are_those_of_the_label_that_the_client_got() -> None:
    outcome = classified(
        {"p": [0.7, 0.2, 0.1]}, {"p": [0.3, 0.6, 0.1]}, probabilities="/p", labels=NAMES
    )

    assert outcome.labels == ("cat", "dog")
    assert outcome.probabilities == (0.7, 0.3)
    assert outcome.measures["probability_error"] == pytest.approx(0.4)


def test_other_probabilities_of_the_same_label_agree() -> None:
    assert classified([0.9, 0.1], [0.6, 0.4], probabilities="").agrees


@pytest.mark.parametrize(
    ("document", "rules"),
    [
        ({"rows": [{"p": [0.7, 0.3]}, {"p": [0.2, 0.8]}]}, {"probabilities": "/rows/*/p"}),
        ({"rows": [[0.7, 0.3], [0.2, 0.8]]}, {"probabilities": "/rows"}),
        (
            {"outputs": [{"data": [0.7, 0.3, 0.2, 0.8]}]},
            {"probabilities": "/outputs/0/data", "labels": ("0", "1")},
        ),
    ],
)
def test_every_row_is_compared(document: object, rules: dict[str, object]) -> None:
    outcome = classified(document, document, **rules)

    assert (outcome.labels, outcome.probabilities) == (("0", "0"), (0.7, 0.7))
    assert outcome.rows == ((("1", "1"), (0.8, 0.8)),)


def test_flat_probabilities_are_of_as_many_rows_as_there_are_labels() -> None:
    rules = {"label": "/y", "probabilities": "/p", "labels": ("no", "yes")}
    for flat in ([0.2, 0.9, 0.6, 0.7], [0.8, 0.2, 0.1, 0.9, 0.4, 0.6, 0.3, 0.7]):
        answer = {"y": [0, 1, 1, 1], "p": flat}
        outcome = classified(answer, answer, **rules)

        found = [outcome.probabilities, *[probabilities for _, probabilities in outcome.rows]]
        assert found == [pytest.approx((one, one)) for one in (0.8, 0.9, 0.6, 0.7)]
    assert classified({"y": 0, "p": [0.2]}, {"y": 0, "p": 0.1}, **rules).probabilities == (0.8, 0.9)


def test_outputs_are_meant_by_name() -> None:
    outputs = [{"name": "label", "data": [1]}, {"name": "score", "data": [0.75]}]
    answers = {"outputs": outputs}, {"outputs": outputs[::-1]}
    rules = {"label": "/outputs/label/data", "probabilities": "/outputs/score/data"}

    outcome = classified(*answers, **rules)
    assert (outcome.labels, outcome.probabilities) == (("1", "1"), (0.75, 0.75))
    masked = classified(*answers, **rules, keep=Kept(mask=("/outputs/0/data",)))
    assert masked.labels is None


def test_one_row_of_many_with_another_label_differs() -> None:
    outcome = classified({"y": [1, 2, 3, 4]}, {"y": [1, 2, 4, 4]}, label="/y")

    assert outcome.fields == ("label",)
    assert outcome.measures["label_agreement"] == 0.75
    assert [labels for labels, _ in outcome.rows] == [("2", "2"), ("3", "4"), ("4", "4")]
    assert classified([1, 2], [1], label="/*").differences[0].kind == "length"


def test_an_answer_without_what_pointers_mean_is_none() -> None:
    rules = {"label": "/label", "probabilities": "/p"}
    whole = {"label": "a", "p": [1]}
    for lack in (
        {},
        {"label": None, "p": [1]},
        {"label": "a", "p": []},
        {"label": "a", "p": ["x"]},
    ):
        assert classified(lack, lack, **rules).uncompared is Uncompared.MALFORMED
        assert classified(whole, lack, **rules).fields == ("body",)
        assert classified(lack, whole, **rules).fields == ("body",)


@pytest.mark.parametrize("mask", ["", "/rows", "/rows/0", "/rows/*/label", "/*"])
def test_masked_labels_are_compared_and_not_told(mask: str) -> None:
    outcome = classified(
        {"rows": [{"label": "lynx"}]},
        {"rows": [{"label": "wolf"}]},
        label="/rows/*/label",
        keep=Kept(mask=(mask,)),
    )

    assert outcome.fields == ("label",)
    assert "lynx" not in repr(outcome)
    assert "wolf" not in repr(outcome)


def test_an_ignored_label_is_not_compared() -> None:
    assert classified({"y": 1}, {"y": 2}, label="/y", ignore=("/y",)).agrees
