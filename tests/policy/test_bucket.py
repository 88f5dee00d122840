"""Placement is sticky, fair, and moves as few units as it can."""

from __future__ import annotations

from hashlib import blake2b
from math import log, sqrt
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from sidecar.policy.bucket import SHADOW_KEY, SPLIT_KEY, choose, sampled

GOLDEN = Path(__file__).parent / "golden" / "bucket.json"

ARMS = st.dictionaries(st.text("abv123", min_size=1, max_size=4), st.integers(0, 1000), min_size=1)
UNITS = st.binary(max_size=40)


class ChoiceVector(Struct):
    arms: dict[str, int]
    split_id: str
    unit_hex: str
    arm: str


class SampleVector(Struct):
    shadow_id: str
    unit_hex: str
    percent: float
    is_sampled: bool


class Vectors(Struct):
    choices: list[ChoiceVector]
    samples: list[SampleVector]


def golden() -> Vectors:
    return msgspec.json.decode(GOLDEN.read_bytes(), type=Vectors)


def plain_hash(key: bytes, *parts: bytes) -> int:
    """Hash length-prefixed parts as the docstring of `bucket` says, in one go."""
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return int.from_bytes(blake2b(message, digest_size=8, key=key).digest(), "big")


def plain_choice(arms: dict[str, int], split_id: str, unit: bytes) -> str:
    def score(arm: str) -> float:
        drawn = plain_hash(SPLIT_KEY, split_id.encode(), arm.encode(), unit)
        return -log((drawn + 0.5) / 2**64) / arms[arm]

    return min(sorted(arm for arm in arms if arms[arm]), key=score)


@pytest.mark.parametrize("vector", golden().choices)
def test_choices_never_change(vector: ChoiceVector) -> None:
    assert choose(vector.arms, vector.split_id, bytes.fromhex(vector.unit_hex)) == vector.arm


@pytest.mark.parametrize("vector", golden().samples)
def test_samples_never_change(vector: SampleVector) -> None:
    unit = bytes.fromhex(vector.unit_hex)

    assert sampled(vector.shadow_id, unit, vector.percent) is vector.is_sampled


@given(ARMS.filter(lambda arms: any(arms.values())), st.text(max_size=10), UNITS)
def test_the_choice_is_the_documented_formula(
    arms: dict[str, int], split_id: str, unit: bytes
) -> None:
    assert choose(arms, split_id, unit) == plain_choice(arms, split_id, unit)


@given(ARMS.filter(lambda arms: any(arms.values())), UNITS)
def test_the_order_of_arms_is_nothing(arms: dict[str, int], unit: bytes) -> None:
    turned = dict(reversed(arms.items()))

    assert choose(arms, "s", unit) == choose(turned, "s", unit)


@given(ARMS, UNITS, st.data())
def test_growing_an_arm_moves_units_only_into_it(
    arms: dict[str, int], unit: bytes, data: st.DataObject
) -> None:
    growing = data.draw(st.sampled_from(sorted(arms)))
    arms = arms | {growing: arms[growing] + 1}
    grown = arms | {growing: arms[growing] + data.draw(st.integers(1, 1000))}

    was, now = choose(arms, "s", unit), choose(grown, "s", unit)

    assert now in {was, growing}


@given(ARMS.filter(lambda arms: sum(1 for w in arms.values() if w) > 1), UNITS)
def test_an_arm_that_goes_moves_only_its_own_units(arms: dict[str, int], unit: bytes) -> None:
    was = choose(arms, "s", unit)
    gone = min(arm for arm in arms if arms[arm] and arm != was)

    assert choose({arm: arms[arm] for arm in arms if arm != gone}, "s", unit) == was


@pytest.mark.parametrize("arms", [{"a": 1, "b": 1}, {"a": 90, "b": 10}, {"a": 5, "b": 3, "c": 1}])
def test_shares_are_the_weights(arms: dict[str, int]) -> None:
    units = 20_000

    chosen = [choose(arms, "shares", str(n).encode()) for n in range(units)]

    for arm, weight in arms.items():
        share = weight / sum(arms.values())
        sigma = sqrt(units * share * (1 - share))
        assert abs(chosen.count(arm) - units * share) < 3 * sigma


def test_an_arm_of_weight_zero_gets_nothing() -> None:
    assert {choose({"a": 0, "b": 1}, "s", bytes([n])) for n in range(256)} == {"b"}


def test_weights_that_sum_to_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to zero"):
        choose({"a": 0}, "s", b"u")


def test_parts_cannot_run_into_each_other() -> None:
    placements = [choose({"a": 1, "b": 1}, "s", b"1" + str(n).encode()) for n in range(64)]
    shifted = [choose({"a": 1, "b": 1}, "s1", str(n).encode()) for n in range(64)]

    assert placements != shifted


def test_the_first_of_one_split_are_not_the_first_of_another() -> None:
    units = [str(n).encode() for n in range(2_000)]

    one = {unit for unit in units if choose({"a": 9, "b": 1}, "one", unit) == "b"}
    two = {unit for unit in units if choose({"a": 9, "b": 1}, "two", unit) == "b"}

    assert 0 < len(one & two) < len(one) / 3


@given(st.text(max_size=10), UNITS, st.floats(0, 100), st.floats(0, 100))
def test_a_greater_percent_only_adds_units(
    shadow_id: str, unit: bytes, one: float, two: float
) -> None:
    less, more = sorted((one, two))

    assert sampled(shadow_id, unit, less) <= sampled(shadow_id, unit, more)


@given(st.text(max_size=10), UNITS)
def test_nothing_and_everything_are_exact(shadow_id: str, unit: bytes) -> None:
    assert not sampled(shadow_id, unit, 0)
    assert sampled(shadow_id, unit, 100)


@given(UNITS, st.floats(0, 100))
def test_a_sample_is_the_documented_formula(unit: bytes, percent: float) -> None:
    drawn = plain_hash(SHADOW_KEY, b"tumor/v3", unit)

    assert sampled("tumor/v3", unit, percent) == (drawn < int(percent * 2**64 / 100))
