"""A report says which requests it is about, and which it was kept from seeing."""

from __future__ import annotations

import pytest

from sidecar.model.shadow import OTHER, Failure, Ledger, Share, Skip, Uncompared
from sidecar.shadow.bias import account

FAIR = "Nothing that was drawn was skipped: the copies are a fair sample of all."


def large_skipped(sampled_out: int = 0) -> Ledger:
    """Of 1,000 drawn bodies over a mebibyte 60 were copied, and all of 9,000 smaller ones."""
    rate = (10_000 + sampled_out) // 10_000
    return Ledger(
        eligible=10_000 + sampled_out,
        sampled_out=sampled_out,
        mirrored=9_060,
        compared=9_060,
        skipped={"size": 940},
        sizes={
            10: Share(9_000 * rate, 9_000),
            21: Share(600 * rate, 60),
            24: Share(400 * rate, 0),
        },
    )


def test_the_bias_of_what_was_skipped_by_size_is_told_in_words() -> None:
    words = account(large_skipped()).words

    assert words == (
        "Of 10,000 eligible requests 10,000 were drawn and 9,060 copied (90.6%).",
        "Of 9,060 copies, 9,060 were compared (100%).",
        "940 of what was drawn (9.4%) was skipped for the size of its body.",
        "94% of the bodies of 1 MiB and more were not copied, and 0% of the smaller ones: the "
        "former are 10% of what was eligible, and 0.66% of the copies.",
    )


def test_of_a_sample_the_bias_is_told_of_what_was_drawn() -> None:
    words = account(large_skipped(sampled_out=30_000)).words

    assert "About 94% of the bodies of 1 MiB and more were not copied" in words[-1]


def test_a_ledger_of_which_nothing_was_skipped_is_a_fair_sample() -> None:
    assert account(Ledger(100, 90, 10, 10)).words[-1] == FAIR


def test_nothing_is_made_of_what_was_skipped_by_accident() -> None:
    even = Ledger(
        2_000,
        mirrored=1_900,
        compared=1_900,
        skipped={"queue": 100},
        sizes={8: Share(1_000, 952), 9: Share(1_000, 948)},
        tenants={"acme": Share(1_000, 948), "globex": Share(1_000, 952)},
    )

    assert len(account(even).words) == 3


def test_a_tenant_whose_requests_are_missing_is_named() -> None:
    ledger = Ledger(
        4_000,
        2_000,
        mirrored=1_550,
        skipped={"size": 450},
        tenants={"acme": Share(3_000, 1_500), "globex": Share(1_000, 50), OTHER: Share()},
    )

    assert account(ledger).words[-1] == (
        "90% of what was drawn of tenant globex was not copied (50 copies of 1,000 eligible)."
    )


def test_a_tenant_that_was_not_drawn_is_not_missing() -> None:
    ledger = Ledger(
        3_000,
        1_000,
        mirrored=1_100,
        skipped={"queue": 900},
        tenants={"out": Share(1_000, 0), "in": Share(1_000, 1_000), "cut": Share(1_000, 100)},
    )
    told = " ".join(account(ledger, "tenant").words)

    assert "tenant out" not in told
    assert "90% of what was drawn of tenant cut was not copied" in told


@pytest.mark.parametrize(
    ("ledger", "is_exact", "under_way"),
    [
        (Ledger(), True, 0),
        (Ledger(10, 5, 3, 1, {"size": 2}, {"lost": 1}), True, 1),
        (Ledger(10, 5, 3, 1, {"size": 1}), False, 2),
        (Ledger(10, 5, 5, 6), False, -1),
    ],
)
def test_a_ledger_that_does_not_add_up_is_told(
    ledger: Ledger, is_exact: bool, under_way: int
) -> None:
    made = account(ledger)

    assert (made.is_exact, made.under_way) == (is_exact, under_way)


def test_every_cause_has_words() -> None:
    ledger = Ledger(
        1_000,
        mirrored=900,
        skipped={one.value: 10 for one in Skip},
        failed={one.value: 10 for one in Failure},
        uncompared={one.value: 10 for one in Uncompared},
    )
    told = " ".join(account(ledger).words)

    assert told.count("10 of what was drawn (1%) was skipped ") == len(Skip)
    assert not any(f"skipped {cause.value}" in told for cause in Skip)
    assert not any(f"({cause.value}: " in told or f", {cause.value}: " in told for cause in Failure)
    assert "connection lost: 10" in told
    assert "no time left to compare: 10" in told


def test_bodies_are_told_by_their_sizes() -> None:
    sizes = account(Ledger(3, sizes={0: Share(1, 1), 1: Share(1, 0), 11: Share(1, 1)})).sizes

    assert [(one.least, one.below) for one in sizes] == [(0, 1), (1, 2), (1024, 2048)]
