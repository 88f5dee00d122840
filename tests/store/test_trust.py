"""Nothing that was signed once comes back after something newer, and nothing goes unsigned."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from sidecar.policy import codec
from sidecar.runtime.ed25519 import PublicKey
from sidecar.store.keys import Keys, KillKey, PinKey
from sidecar.store.live import LivePolicies
from sidecar.store.trust import AHEAD_MS, MAX_REFUSED
from tests.store.documents import default_of, pin_of, policy
from tests.support.clock import HandClock
from tests.support.signing import signer, trust_in

if TYPE_CHECKING:
    from sidecar.store.trust import Trust

ANN, BOB, EVE = signer(), signer(), signer()
ACME, V2 = PinKey("fraud", "acme"), KillKey("fraud", "v2")
T = 1_800_000_000_000  # what a hand clock says, in milliseconds


def signed(default: str, revision: int, by: object = ANN) -> bytes:
    assert isinstance(by, type(ANN))
    return codec.encode(by.policy(policy(default=default, revision=revision)))


def end_expired(live: LivePolicies) -> None:
    for _ in live.ending():
        pass


def live_with(trust: Trust) -> LivePolicies:
    live = LivePolicies(trust=trust)
    live.put_policy("fraud", signed("v1", 5))
    return live


@pytest.fixture
def trust() -> Trust:
    return trust_in(ANN, BOB)


# --- policies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (codec.encode(policy(default="v2", revision=6)), "unsigned"),
        (signed("v2", 6, EVE), "unknown-key"),
        (signed("v2", 6).replace(b'"default":"v2"', b'"default":"v1","comment":"x"'), "forged"),
        (signed("v2", 6).replace(b'"revision":6', b'"revision":7'), "forged"),
        (signed("v2", 4), "older"),
        (signed("v2", 5), "older"),
    ],
    ids=["unsigned", "stranger", "changed", "renumbered", "older", "another"],
)
def test_a_policy_that_is_not_signed_anew_changes_nothing(
    trust: Trust, raw: bytes, cause: str
) -> None:
    live = live_with(trust)

    assert not live.put_policy("fraud", raw)

    assert default_of(live) == "v1"
    assert "signature" in live.faults["fraud"]
    assert trust.refused() == {cause: 1}
    assert live.behind == {}  # which would have it adopted


def test_a_newer_policy_of_any_trusted_key_comes_into_force(trust: Trust) -> None:
    live = live_with(trust)

    assert live.put_policy("fraud", signed("v2", 6, BOB))

    assert (default_of(live), live.faults, trust.refused()) == ("v2", {}, {})


def test_a_good_policy_ends_the_refusal_of_the_one_before_it(trust: Trust) -> None:
    live = live_with(trust)
    live.put_policy("fraud", signed("v2", 6, EVE))
    assert trust.refused() == {"unknown-key": 1}

    live.put_policy("fraud", signed("v2", 6))

    assert (default_of(live), live.faults, trust.refused()) == ("v2", {}, {})


def test_the_same_policy_again_is_as_good_as_it_was(trust: Trust) -> None:
    live = live_with(trust)
    live.put_policy("fraud", b"{")

    assert live.put_policy("fraud", signed("v1", 5))

    assert live.faults == {}


def test_a_policy_of_another_model_is_none_of_this_one(trust: Trust) -> None:
    live = LivePolicies(trust=trust)

    assert not live.put_policy("victim", signed("v1", 5))


def test_a_deleted_key_deletes_no_model_but_a_signed_end_does(trust: Trust) -> None:
    live = live_with(trust)

    live.put_policy("fraud", None)
    assert default_of(live) == "v1"
    assert trust.refused() == {"deleted": 1}

    end = structs.replace(policy(revision=6), versions={}, default=None, deleted=True)
    assert live.put_policy("fraud", codec.encode(ANN.policy(end)))
    assert live.snapshots == {}

    live.put_policy("fraud", None)  # what is deleted may be gone
    assert not live.put_policy("fraud", signed("v1", 5))  # and does not come back
    assert live.snapshots == {}
    assert live.put_policy("fraud", signed("v2", 7))


def test_a_document_that_was_refused_and_is_gone_is_no_longer_counted(trust: Trust) -> None:
    live = LivePolicies(trust=trust)
    live.put_policy("fraud", codec.encode(policy(revision=1)))

    live.put_policy("fraud", None)

    assert (live.faults, trust.refused()) == ({}, {})


# --- pins and kills ------------------------------------------------------------------------------


def test_a_signed_pin_holds_and_no_other(trust: Trust) -> None:
    live = live_with(trust)

    live.put_pin("fraud", "acme", "v2")
    assert pin_of(live, "acme") is None
    live.put_pin("fraud", "acme", EVE.mark(ACME, "v2", T))
    assert pin_of(live, "acme") is None
    live.put_pin("fraud", "acme", ANN.mark(PinKey("fraud", "globex"), "v2", T))
    assert pin_of(live, "acme") is None
    live.put_pin("fraud", "acme", ANN.mark(ACME, "v2", T))

    assert pin_of(live, "acme") == "v2"
    assert trust.refused() == {}


def test_a_pin_that_was_replaced_or_ended_does_not_come_back(trust: Trust) -> None:
    live = live_with(trust)
    first, second, end = (
        ANN.mark(ACME, "v1", T),
        BOB.mark(ACME, "v2", T + 1),
        ANN.mark(ACME, "", T + 2),
    )

    for text, held in [(first, "v1"), (second, "v2"), (first, "v2"), (end, None)]:
        live.put_pin("fraud", "acme", text)
        assert pin_of(live, "acme") == held
    for again in (first, second, None):
        live.put_pin("fraud", "acme", again)
        assert pin_of(live, "acme") is None


def test_of_two_pins_of_one_moment_the_first_holds(trust: Trust) -> None:
    live = live_with(trust)

    live.put_pin("fraud", "acme", ANN.mark(ACME, "v1", T))
    live.put_pin("fraud", "acme", BOB.mark(ACME, "v2", T))

    assert pin_of(live, "acme") == "v1"
    assert trust.refused() == {"older": 1}


@pytest.mark.parametrize("text", [None, "v1", "", "sealed:"])
def test_a_pin_holds_on_when_its_key_is_deleted_or_overwritten(
    trust: Trust, text: str | None
) -> None:
    live = live_with(trust)
    live.put_pin("fraud", "acme", ANN.mark(ACME, "v2", T))

    live.put_pin("fraud", "acme", text)

    assert pin_of(live, "acme") == "v2"
    assert sum(trust.refused().values()) == 1


def test_a_pin_ends_when_it_was_signed_to_end_whatever_its_key_does() -> None:
    clock = HandClock()
    live = live_with(trust_in(ANN, clock=clock))
    text = ANN.mark(ACME, "v2", T, T + 60_000)
    live.put_pin("fraud", "acme", text)

    clock.advance(59.0)
    end_expired(live)
    assert pin_of(live, "acme") == "v2"
    clock.advance(1.0)
    end_expired(live)
    assert pin_of(live, "acme") is None

    live.put_pin("fraud", "acme", text)  # its TTL was taken away
    assert pin_of(live, "acme") is None


def test_what_has_ended_when_it_is_first_seen_never_begins() -> None:
    trust = trust_in(ANN)
    live = live_with(trust)

    live.put_pin("fraud", "acme", ANN.mark(ACME, "v2", T - 60_000, T))
    live.put_kill("fraud", "v2", ANN.mark(V2, "wrong scores", T - 60_000, T - 1))

    assert (pin_of(live, "acme"), live.snapshots["fraud"].kills) == (None, {})
    assert trust.refused() == {"expired": 2}


def test_a_pin_that_ends_in_the_store_a_moment_early_was_not_deleted_by_anybody() -> None:
    clock = HandClock()
    trust = trust_in(ANN, clock=clock)
    live = live_with(trust)
    live.put_pin("fraud", "acme", ANN.mark(ACME, "v2", T, T + 60_000))

    clock.advance(59.0)
    live.put_pin("fraud", "acme", None)

    assert (pin_of(live, "acme"), trust.refused()) == (None, {})


def test_a_pin_with_an_end_is_deleted_by_nobody_before_it() -> None:
    clock = HandClock()
    trust = trust_in(ANN, clock=clock)
    live = live_with(trust)
    live.put_pin("fraud", "acme", ANN.mark(ACME, "v2", T, T + 60_000))

    clock.advance(30.0)
    live.put_pin("fraud", "acme", None)

    assert (pin_of(live, "acme"), trust.refused()) == ("v2", {"deleted": 1})
    clock.advance(30.0)
    end_expired(live)
    assert (pin_of(live, "acme"), trust.refused()) == (None, {})


def test_a_pin_that_was_ended_may_be_deleted_by_anybody(trust: Trust) -> None:
    live = live_with(trust)
    live.put_pin("fraud", "acme", ANN.mark(ACME, "v2", T))
    live.put_pin("fraud", "acme", ANN.mark(ACME, "", T + 1))

    live.put_pin("fraud", "acme", None)

    assert (pin_of(live, "acme"), trust.refused()) == (None, {})


def test_a_pin_that_is_renewed_outlives_the_end_of_the_former(trust: Trust) -> None:
    clock = HandClock()
    live = live_with(trust_in(ANN, clock=clock))
    live.put_pin("fraud", "acme", ANN.mark(ACME, "v2", T, T + 1_000))
    live.put_pin("fraud", "acme", ANN.mark(ACME, "v2", T + 1, T + 9_000))

    clock.advance(2.0)
    end_expired(live)

    assert pin_of(live, "acme") == "v2"


def test_a_pin_of_the_future_is_not_believed_before_it_comes() -> None:
    clock = HandClock()
    trust = trust_in(ANN, clock=clock)
    live = live_with(trust)
    text = ANN.mark(ACME, "v2", T + AHEAD_MS + 1_000)

    live.put_pin("fraud", "acme", text)
    assert (pin_of(live, "acme"), trust.refused()) == (None, {"early": 1})

    clock.advance(1.0)
    live.put_pin("fraud", "acme", text)
    assert (pin_of(live, "acme"), trust.refused()) == ("v2", {})


def test_a_kill_is_judged_as_a_pin_is(trust: Trust) -> None:
    live = live_with(trust)

    live.put_kill("fraud", "v2", "wrong scores")
    assert live.snapshots["fraud"].kills == {}
    live.put_kill("fraud", "v2", ANN.mark(V2, "wrong scores", T))
    assert live.snapshots["fraud"].kills == {"v2": "wrong scores"}
    live.put_kill("fraud", "v2", None)
    assert live.snapshots["fraud"].kills == {"v2": "wrong scores"}
    live.put_kill("fraud", "v2", ANN.mark(V2, "", T + 1))
    assert live.snapshots["fraud"].kills == {}


def test_exempt_kills_switch_off_and_on_but_never_end_one_that_is_signed() -> None:
    trust = trust_in(ANN, exempt_kills=True)
    live = live_with(trust)

    live.put_kill("fraud", "v2", "by anybody")
    assert live.snapshots["fraud"].kills == {"v2": "by anybody"}
    live.put_kill("fraud", "v2", None)
    assert live.snapshots["fraud"].kills == {}

    live.put_kill("fraud", "v2", ANN.mark(V2, "by ann", T))
    live.put_kill("fraud", "v2", "by anybody")
    assert live.snapshots["fraud"].kills == {"v2": "by ann"}
    live.put_kill("fraud", "v2", None)
    assert live.snapshots["fraud"].kills == {"v2": "by ann"}

    live.put_kill("fraud", "v2", ANN.mark(V2, "", T + 1))
    live.put_kill("fraud", "v2", "by anybody again")  # a former signature is in nobody's way
    assert live.snapshots["fraud"].kills == {"v2": "by anybody again"}

    live.put_pin("fraud", "acme", "v2")  # pins are not exempt
    assert pin_of(live, "acme") is None


def test_each_refusal_is_told_once_with_its_reason(
    trust: Trust, caplog: pytest.LogCaptureFixture
) -> None:
    live = live_with(trust)

    with caplog.at_level(logging.WARNING, "sidecar.store"):
        for _ in range(3):
            live.put_pin("fraud", "acme", "v2")

    told = [one.__dict__ for one in caplog.records if one.message == "key cannot be followed"]
    assert [(one["key"], one["reason"]) for one in told] == [("rmv:pin:fraud:acme", "not signed")]


GOOD = ANN.mark(ACME, "v1", T)


@pytest.mark.parametrize(
    ("before", "refused", "cause", "after"),
    [
        (None, "v2", "unsigned", None),  # set by somebody, and taken away
        (None, "v2", "unsigned", GOOD),
        (GOOD, GOOD.replace("v1", "v2"), "forged", GOOD),  # overwritten, and put back
        (GOOD, None, "deleted", GOOD),
        (GOOD, None, "deleted", ANN.mark(ACME, "", T + 1)),
    ],
    ids=["gone", "signed", "put back", "undeleted", "ended"],
)
def test_a_refusal_is_over_with_what_was_refused(
    trust: Trust, before: str | None, refused: str | None, cause: str, after: str | None
) -> None:
    live = live_with(trust)
    live.put_pin("fraud", "acme", before)

    live.put_pin("fraud", "acme", refused)
    assert trust.refused() == {cause: 1}

    live.put_pin("fraud", "acme", after)
    assert trust.refused() == {}


@pytest.mark.parametrize(("before", "refused"), [(None, "v2"), (GOOD, "v2"), (GOOD, None)])
def test_what_is_refused_again_is_told_again(
    trust: Trust, caplog: pytest.LogCaptureFixture, before: str | None, refused: str | None
) -> None:
    live = live_with(trust)
    for text in (before, refused, before, refused, before):
        live.put_pin("fraud", "acme", text)

    assert [one.message for one in caplog.records].count("key cannot be followed") == 2


def test_what_is_refused_is_held_only_so_often(trust: Trust) -> None:
    for number in range(MAX_REFUSED + 10):
        trust.admit(PinKey("fraud", f"t{number}"), "v2")

    assert trust.refused() == {"unsigned": MAX_REFUSED}


# --- whatever an attacker shows, in whatever order --------------------------------------------

VALUES = (None, "v1", "v2", "v1", None, "v2")  # what a pin was signed to be, one after the other
SHOWN = (
    *(ANN.mark(ACME, value or "", T + at) for at, value in enumerate(VALUES)),
    None,
    "v2",
    "",
    EVE.mark(ACME, "v2", T + 99),
    ANN.mark(PinKey("fraud", "globex"), "v2", T + 99),
    ANN.mark(ACME, "v1", T + 1).replace("v1", "v2", 1),
)
RESTART = len(SHOWN)


@given(st.lists(st.integers(0, RESTART), max_size=30))
def test_a_pin_is_always_the_newest_that_was_signed_and_shown(steps: list[int]) -> None:
    remembered: dict[str, bytes] = {}
    live, newest = _with_memory(remembered), -1
    for step in steps:
        if step == RESTART:
            live = _with_memory(remembered)
        else:
            live.put_pin("fraud", "acme", SHOWN[step])
            newest = max(newest, step) if step < len(VALUES) else newest

        assert pin_of(live, "acme") == (VALUES[newest] if newest >= 0 else None)


@given(st.lists(st.integers(0, 11), max_size=30))
def test_a_policy_is_always_the_newest_that_was_signed_and_shown(steps: list[int]) -> None:
    remembered: dict[str, bytes] = {}
    live, newest = _with_memory(remembered), 5
    for step in steps:
        match step:
            case 0:
                live.put_policy("fraud", None)
            case 1:
                live.put_policy("fraud", codec.encode(policy(default="v2", revision=99)))
            case 2:
                live = _with_memory(remembered)
            case revision:
                live.put_policy("fraud", signed("v1" if revision % 2 else "v2", revision))
                newest = max(newest, revision)

        assert live.snapshots["fraud"].revision == newest
        assert default_of(live) == ("v1" if newest % 2 else "v2")


def _with_memory(remembered: dict[str, bytes]) -> LivePolicies:
    """Start anew with what was remembered, and have it remembered."""
    trust, keys = trust_in(ANN), Keys()
    live = LivePolicies(trust=trust)
    for spelled, value in remembered.items():
        key = keys.parse(spelled.encode())
        assert key is not None
        live.put(key, value)
    trust.remember = lambda key, _, value: remembered.update({key: value})
    if not remembered:
        live.put_policy("fraud", signed("v1", 5))
    return live


def test_what_was_refused_is_verified_once_and_holds_off_nothing_else(
    trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = live_with(trust)
    forged, good = ANN.mark(ACME, "v1", T).replace("v1", "v2"), ANN.mark(ACME, "v1", T)
    verified: list[bytes] = []

    def verify(_: PublicKey, message: bytes, __: bytes) -> bool:
        verified.append(message)
        return False

    monkeypatch.setattr(PublicKey, "verify", verify)
    for _ in range(5):
        live.put_pin("fraud", "acme", forged)
    assert len(verified) == 1
    monkeypatch.undo()

    live.put_pin("fraud", "acme", good)

    assert (pin_of(live, "acme"), trust.refused()) == ("v1", {})


def test_without_trust_a_seal_is_left_out_and_nothing_is_asked() -> None:
    live = LivePolicies()
    live.put_policy("fraud", signed("v1", 5, EVE))

    live.put_pin("fraud", "acme", EVE.mark(ACME, "v2", T))
    live.put_kill("fraud", "v2", EVE.mark(V2, "why", T))
    assert (pin_of(live, "acme"), live.snapshots["fraud"].kills) == ("v2", {"v2": "why"})

    live.put_pin("fraud", "acme", EVE.mark(ACME, "", T + 1))
    live.put_kill("fraud", "v2", None)
    assert (pin_of(live, "acme"), live.snapshots["fraud"].kills) == (None, {})
