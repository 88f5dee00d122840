"""Keys parse to what they were spelled from, and nothing else parses."""

from __future__ import annotations

import pytest

from sidecar.store.keys import (
    BadNameError,
    CutoffKey,
    Key,
    Keys,
    KillKey,
    PinKey,
    PolicyKey,
    RevokedKey,
)

KEYS = Keys("rmv")


@pytest.mark.parametrize(
    ("spelled", "meaning"),
    [
        (KEYS.policy("fraud"), PolicyKey("fraud")),
        (KEYS.pin("fraud", "acme"), PinKey("fraud", "acme")),
        (KEYS.pin("fraud", "a:b:c"), PinKey("fraud", "a:b:c")),
        (KEYS.pin("fraud", "späť *?"), PinKey("fraud", "späť *?")),
        (KEYS.kill("fraud"), KillKey("fraud", "")),
        (KEYS.kill("fraud", "v1.2"), KillKey("fraud", "v1.2")),
        (KEYS.revoked("a:b *?"), RevokedKey("a:b *?")),
        (KEYS.cutoff("a:b"), CutoffKey("a:b")),
    ],
)
def test_a_key_parses_to_what_it_was_spelled_from(spelled: str, meaning: Key) -> None:
    assert KEYS.parse(spelled.encode()) == meaning
    assert KEYS.spell(meaning) == spelled


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"rmv:policy:",
        b"rmv:policy:a:b",
        b"rmv:policy:a b",
        b"rmv:pin:fraud",
        b"rmv:pin:fraud:",
        b"rmv:pin::acme",
        b"rmv:kill:",
        b"rmv:kill:fraud:",
        b"rmv:history:fraud",
        b"rmv:revoked",
        b"rmv:revoked:",
        b"rmv:revoked:" + b"x" * 513,
        b"rmv:revoked-before:",
        b"rmv:revoked-before: acme",
        b"rmv:revoked-after:acme",
        b"rmv:policy:\xff",
        b"other:policy:fraud",
        b"rmv2:policy:fraud",
        b"rmv:pin:fraud:" + b"x" * 5000,  # it would be kept, compared and logged
    ],
)
def test_what_is_no_key_of_ours_parses_to_none(raw: bytes) -> None:
    assert KEYS.parse(raw) is None


def test_another_prefix_spells_and_parses_its_own_keys_alone() -> None:
    other = Keys("team-a")

    assert other.policy("fraud") == "team-a:policy:fraud"
    assert other.parse(b"team-a:policy:fraud") == PolicyKey("fraud")
    assert other.parse(b"rmv:policy:fraud") is None


@pytest.mark.parametrize("tenant", ["", "x" * 513])
def test_a_tenant_has_a_sensible_length(tenant: str) -> None:
    with pytest.raises(BadNameError):
        KEYS.pin("fraud", tenant)
