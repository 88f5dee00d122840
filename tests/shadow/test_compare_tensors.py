"""Outputs of the Open Inference Protocol are compared by name, number by number."""

from __future__ import annotations

import json
import struct
from math import isclose, isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.comparison import Comparison, Kept, Kind
from sidecar.model.shadow import Answer, Difference, Uncompared
from sidecar.shadow.tensors import rank_correlation
from tests.shadow.answers import answer, compared

BINARY = "application/octet-stream"


def output(data: object, *shape: int, name: str = "scores", datatype: str = "FP32") -> object:
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data}


def inference(*outputs: object, **members: object) -> bytes:
    return json.dumps({"model_name": "m", "outputs": outputs, **members}).encode()


def binary(datatype: str, raw: bytes, *shape: int) -> Answer:
    """An answer whose only output is binary."""
    size = {"binary_data_size": len(raw)}
    said = {"name": "scores", "datatype": datatype, "shape": list(shape), "parameters": size}
    head = inference(said)
    return answer(head + raw, BINARY, inference_header_content_length=str(len(head)))


def test_errors_top_1_and_order_of_scores_are_measured() -> None:
    mine = inference(output([0.1, 0.2, 0.7, 0.5, 0.3, 0.2], 2, 3))
    theirs = inference(output([0.1, 0.3, 0.6, 0.3, 0.5, 0.2], 2, 3))
    outcome = compared(mine, theirs)

    assert outcome.kind == "tensors"
    assert outcome.measures == {
        "max_error": pytest.approx(0.2),
        "mean_error": pytest.approx(0.1),
        "top1": 0.5,
        "rank_correlation": pytest.approx(0.75),
    }
    (difference,) = outcome.differences
    assert (difference.field, difference.kind) == ("/outputs/scores/data", "value")
    assert difference.delta is not None
    assert isclose(abs(difference.delta), 0.2)


@pytest.mark.parametrize("said", ["NaN", "NaN, 2.5", "Infinity, NaN"])
def test_not_a_number_is_the_same_as_itself_without_a_tolerance(said: str) -> None:
    body = b'{"outputs":[{"name":"o","datatype":"FP32","shape":[2],"data":[%b]}]}' % said.encode()
    outcome = compared(body, body)

    assert (outcome.uncompared, outcome.kind, outcome.agrees) == (None, "tensors", True)
    assert not compared(body, body.replace(b"NaN", b"1.0")).agrees


def test_outputs_agree_within_the_tolerance_and_are_measured_all_the_same() -> None:
    mine, theirs = inference(output([1.0, 2.0], 2)), inference(output([1.25, 2.0], 2))

    for tolerance, agrees in ((0.25, True), (0.2, False)):
        outcome = compared(mine, theirs, Comparison(absolute=tolerance))
        assert outcome.agrees is agrees
        assert (outcome.measures["max_error"], outcome.measures["mean_error"]) == (0.25, 0.125)
    assert compared(mine, mine).measures["max_error"] == 0


def test_outputs_are_found_by_name_and_nested_data_are_flat_data() -> None:
    mine = inference(output([1, 2, 3, 4], 2, 2, name="a"), output([5], 1, name="b"), id="1")
    theirs = inference(output([5.0], 1, name="b"), output([[1, 2], [3, 4]], 2, 2, name="a"), id="2")

    assert compared(mine, theirs).agrees


@pytest.mark.parametrize(
    ("primary", "shadow", "difference"),
    [
        (
            output([1], 1, datatype="INT64"),
            output([1], 1),
            Difference("/outputs/scores/datatype", "value", '"INT64"', '"FP32"'),
        ),
        (
            output([1, 2], 2),
            output([1, 2], 2, 1),
            Difference("/outputs/scores/shape", "value", "[2]", "[2,1]"),
        ),
        (
            output(["a", "b"], 2, datatype="BYTES"),
            output(["a", "c"], 2, datatype="BYTES"),
            Difference("/outputs/scores/data", "value", '"b"', '"c"'),
        ),
        (
            output([True, False], 2, datatype="BOOL"),
            output([1, 1], 2, datatype="BOOL"),
            Difference("/outputs/scores/data", "value", "0", "1", 1.0),
        ),
        (
            output([1.0, None], 2),
            output([1.0, 2.0], 2),
            Difference("/outputs/scores/data", "type", "null", "2.0"),
        ),
    ],
)
def test_a_difference_of_outputs_says_in_what(
    primary: object, shadow: object, difference: Difference
) -> None:
    assert compared(inference(primary), inference(shadow)).differences == (difference,)


def test_an_output_may_be_missing_or_extra() -> None:
    mine, theirs = inference(output([1], 1, name="a")), inference(output([1], 1, name="b"))

    assert compared(mine, theirs).fields == ("/outputs/a", "/outputs/b")
    assert [found.kind for found in compared(mine, theirs).differences] == ["missing", "extra"]


@pytest.mark.parametrize("pointer", ["", "/outputs", "/outputs/scores", "/outputs/*/data", "/*"])
def test_an_output_is_ignored_by_name_by_index_or_with_all_others(pointer: str) -> None:
    mine, theirs = inference(output([1], 1)), inference(output([2], 1))

    assert compared(mine, theirs, Comparison(ignore=(pointer,))).agrees
    assert compared(mine, theirs, Comparison(ignore=("/outputs/0/data",))).agrees
    assert not compared(mine, theirs, Comparison(ignore=("/outputs/1/data",))).agrees


@pytest.mark.parametrize("pointer", ["", "/outputs", "/outputs/0", "/outputs/scores/data", "/*/*"])
def test_masked_outputs_tell_no_numbers(pointer: str) -> None:
    mine, theirs = inference(output([1234], 1)), inference(output([5678], 1))
    outcome = compared(mine, theirs, Comparison(keep=Kept(mask=(pointer,))))

    assert not outcome.agrees
    assert "1234" not in repr(outcome.differences)
    assert all(found.delta is None for found in outcome.differences)


def test_what_else_an_answer_says_is_compared_but_for_what_names_it() -> None:
    mine = inference(output([1], 1), id="1", model_version="3", parameters={"drift": 1})
    theirs = inference(output([1], 1), id="2", parameters={"drift": 2})

    assert compared(mine, theirs).fields == ("/parameters/drift",)


@pytest.mark.parametrize(
    ("datatype", "raw", "data"),
    [
        ("FP32", struct.pack("<3f", 0.5, 0.25, -2), [0.5, 0.25, -2]),
        ("FP64", struct.pack("<2d", 0.1, 3), [0.1, 3]),
        ("FP16", struct.pack("<2e", 0.5, 1), [0.5, 1]),
        ("BF16", struct.pack("<2f", 0.5, 1)[2:4] + struct.pack("<f", 1)[2:], [0.5, 1]),
        ("INT64", struct.pack("<2q", -(2**60), 7), [-(2**60), 7]),
        ("UINT8", b"\x00\xff", [0, 255]),
        ("BOOL", b"\x00\x01", [False, True]),
        ("BYTES", b"\x02\0\0\0hi\x00\0\0\0", ["hi", ""]),
    ],
)
def test_binary_tensors_are_what_they_are_as_json(
    datatype: str, raw: bytes, data: list[object]
) -> None:
    spelled = inference(output(data, len(data), datatype=datatype))
    there = binary(datatype, raw, len(data))
    comparison = Comparison(headers=())

    assert compared(there, answer(spelled), comparison).agrees
    assert compared(there, there, comparison).kind == "tensors"
    other = binary(datatype, bytes(len(raw)) if datatype != "BYTES" else b"\0" * 8, len(data))
    assert compared(there, other).fields == ("/outputs/scores/data",)


def test_an_answer_that_is_nearly_an_inference_is_compared_as_json() -> None:
    twice = inference(output([1], 1), output([2], 1))

    assert compared(twice, twice.replace(b"2]", b"3]")).fields == ("/outputs/*/data/*",)


def test_answers_with_many_outputs_are_still_tensors() -> None:
    mine = inference(*[output([1], 1, name=f"a{number}") for number in range(70)])

    outcome = compared(mine, mine.replace(b'"a', b'"b'))
    assert (outcome.kind, len(outcome.fields)) == ("tensors", 64)


def test_binary_tensors_that_are_cut_short_are_malformed() -> None:
    whole = binary("FP32", struct.pack("<2f", 1, 2), 2)
    cut = Answer(200, whole.fields, whole.body[:-1], 0, 0)

    assert compared(whole, cut).fields == ("body",)
    assert compared(cut, cut).uncompared is Uncompared.MALFORMED


def test_an_answer_that_is_no_inference_is_none_where_the_policy_says_tensors() -> None:
    tensors = Comparison(kind=Kind.TENSORS)

    assert compared(b'{"a":1}', b'{"a":2}', tensors).uncompared is Uncompared.MALFORMED
    assert compared(inference(output([1], 1)), b'{"a":2}', tensors).fields == ("body",)


NUMBERS = st.integers(-3, 3) | st.floats() | st.just(10**400)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12), st.integers(1, 4))
def test_measures_are_finite_whatever_the_numbers(
    pairs: list[tuple[float, float]], width: int
) -> None:
    mine, theirs = zip(*pairs, strict=True)
    shape = (len(pairs) // width, width)
    outcome = compared(
        inference(output(mine, *shape)), inference(output(theirs, *shape)), Comparison(absolute=1.0)
    )

    assert all(map(isfinite, outcome.measures.values()))
    assert -1.000001 <= outcome.measures.get("rank_correlation", 0) <= 1.000001


def plain_ranks(numbers: list[float]) -> list[float]:
    return [
        sum(other < one for other in numbers) + (sum(other == one for other in numbers) + 1) / 2
        for one in numbers
    ]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_rank_correlation_is_pearsons_of_the_ranks(pairs: list[tuple[int, int]]) -> None:
    ones, others = [list(side) for side in zip(*pairs, strict=True)]
    mine, theirs = plain_ranks([*ones]), plain_ranks([*others])
    middle = (len(pairs) + 1) / 2
    together = sum((a - middle) * (b - middle) for a, b in zip(mine, theirs, strict=True))
    spread = sum((a - middle) ** 2 for a in mine) * sum((b - middle) ** 2 for b in theirs)

    found = rank_correlation([*ones], [*others])
    if spread == 0:
        assert found is None
    else:
        assert found == pytest.approx(together / spread**0.5)
