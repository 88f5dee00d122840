"""A signature is of one thing: of no other model, tenant, revision, value or time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from sidecar.policy import codec
from sidecar.store.keys import KillKey, PinKey
from sidecar.store.seal import Cause, Keyring, Mark, bare, read, renewed, signer_of
from tests.policy.policies import policies
from tests.store.documents import policy
from tests.support.signing import signer

if TYPE_CHECKING:
    from sidecar.model.policy import Policy

ANN, BOB = signer(), signer()
RING = Keyring([ANN.public])
ACME = PinKey("fraud", "acme")
SIGNED = ANN.policy(policy(revision=7))

NAMES = st.text(min_size=1, max_size=20)


def cause_of(key: PinKey | KillKey, text: str) -> Cause | None:
    return RING.fault_of_mark(key, read(text))


def test_a_signed_policy_is_believed_however_it_is_spelled() -> None:
    again = codec.decode(b" " + codec.encode(SIGNED) + b"\n", source="")

    assert RING.fault_of_policy(again) is None
    assert signer_of(again) == ANN.public.id


@pytest.mark.parametrize(
    "change",
    [
        {"model": "victim"},
        {"revision": 8},
        {"default": "v2"},
        {"comment": "harmless"},
        {"applied": "0123456789abcdef"},
        {"deleted": True},
        {"signature": SIGNED.signature.swapcase()},
        {"signature": SIGNED.signature + "A"},
        {"signature": "x"},
    ],
    ids=range(9),
)
def test_a_changed_policy_is_not_believed(change: dict[str, str | int]) -> None:
    assert RING.fault_of_policy(structs.replace(SIGNED, **change)) is Cause.FORGED


def test_a_policy_of_nobody_or_of_a_stranger_is_not_believed() -> None:
    unsigned = structs.replace(SIGNED, signature="")

    assert RING.fault_of_policy(unsigned) is Cause.UNSIGNED
    assert RING.fault_of_policy(BOB.policy(unsigned)) is Cause.UNKNOWN_KEY
    stolen = BOB.policy(unsigned).signature.partition(":")[2]
    forged = structs.replace(unsigned, signature=f"{ANN.public.id}:{stolen}")
    assert RING.fault_of_policy(forged) is Cause.FORGED


def test_a_policy_without_a_revision_is_not_believed() -> None:
    assert RING.fault_of_policy(ANN.policy(policy(revision=0))) is Cause.FORGED


@given(policies())
def test_a_signature_holds_after_any_policy_was_stored_and_read(made: Policy) -> None:
    stored = codec.decode(codec.encode(structs.replace(made, revision=1)), source="")

    signed = codec.decode(codec.encode(ANN.policy(stored)), source="")

    assert RING.fault_of_policy(signed) is None


@given(NAMES, NAMES, NAMES.map(str.strip), st.integers(0, 10**15 - 1), st.integers(0, 10**15 - 1))
def test_a_mark_means_what_was_signed(
    model: str, name: str, value: str, issued_ms: int, until_ms: int
) -> None:
    for key in (PinKey(model, name), KillKey(model, name)):
        mark = read(ANN.mark(key, value, issued_ms, until_ms))

        assert mark.value == value
        assert mark.seal is not None
        assert (mark.seal.issued_ms, mark.seal.until_ms) == (issued_ms, until_ms)
        assert RING.fault_of_mark(key, mark) is None


@pytest.mark.parametrize(
    "key",
    [
        PinKey("fraud", "globex"),
        PinKey("victim", "acme"),
        KillKey("fraud", "acme"),
        PinKey("fraud:acme", ""),
    ],
)
def test_a_seal_is_of_one_pin_alone(key: PinKey | KillKey) -> None:
    assert cause_of(key, ANN.mark(ACME, "v2", 1, 0)) is Cause.FORGED


@pytest.mark.parametrize(
    "key",
    [
        KillKey("fraud", "v1"),
        KillKey("fraud", ""),  # the whole model
        KillKey("victim", "v2"),
        PinKey("fraud", "v2"),
        KillKey("fraud:v2", ""),
    ],
)
def test_a_seal_is_of_one_kill_alone(key: PinKey | KillKey) -> None:
    text = ANN.mark(KillKey("fraud", "v2"), "it leaks", 1, 0)

    assert cause_of(KillKey("fraud", "v2"), text) is None
    assert cause_of(key, text) is Cause.FORGED


def test_no_part_of_a_sealed_value_can_be_changed() -> None:
    text = ANN.mark(ACME, "v2", 1000, 2000)

    for old, new in [("v2", "v1"), ("v2 ", ""), (":1000:", ":1001:"), (":2000:", ":0:")]:
        assert cause_of(ACME, text.replace(old, new, 1)) is Cause.FORGED
    assert cause_of(ACME, text) is None


def test_a_signature_of_a_policy_is_none_of_a_pin() -> None:
    text = f"v2 sealed:{ANN.public.id}:1:0:{SIGNED.signature.partition(':')[2]}"

    assert cause_of(ACME, text) is Cause.FORGED


@pytest.mark.parametrize(
    "text", ["v2", "", "sealed:", "v2 sealed:x", "bad scores; sealed: no", "v2 sealed:" + "0" * 200]
)
def test_what_has_no_seal_is_a_value_as_it_stands(text: str) -> None:
    assert read(text) == Mark(text, None)
    assert bare(text) == text


def test_without_a_value_a_seal_ends_what_was() -> None:
    assert bare(ANN.mark(ACME, "", 1, 0)) is None
    assert bare(ANN.mark(ACME, "v2", 1, 0)) == "v2"
    assert bare(None) is None


def test_a_reason_may_hold_a_seal_of_somebody_else() -> None:
    quoted = "looks like " + BOB.mark(ACME, "v2", 1, 0)
    key = KillKey("fraud", "v2")

    assert read(ANN.mark(key, quoted, 5, 0)).value == quoted
    assert cause_of(key, ANN.mark(key, quoted, 5, 0)) is None


def test_what_is_signed_next_is_newer_also_within_a_millisecond() -> None:
    first = renewed(ANN, ACME, "v1", ttl_s=None, before=None, now_s=1000.0)
    second = renewed(ANN, ACME, "v2", ttl_s=60.0, before=first, now_s=1000.0)

    seal = read(second).seal
    assert seal is not None
    assert (seal.issued_ms, seal.until_ms) == (1_000_001, 1_060_001)


def test_a_mark_that_claims_to_be_of_the_far_future_pulls_nobody_there() -> None:
    forged = BOB.mark(ACME, "v1", 10**14, 0)

    seal = read(renewed(ANN, ACME, "v2", ttl_s=None, before=forged, now_s=1000.0)).seal

    assert seal is not None
    assert seal.issued_ms == 1_000_000
