"""How many retries there are for so many requests."""

from __future__ import annotations

from sidecar.upstream.budget import RetryBudget


def spent(budget: RetryBudget, wanted: int = 10_000) -> int:
    return sum(budget.spend() for _ in range(wanted))


def test_a_quiet_service_has_a_reserve() -> None:
    assert spent(RetryBudget()) == 10


def test_a_fifth_of_the_requests_may_be_sent_again() -> None:
    budget = RetryBudget()
    spent(budget)

    budget.requests += 1_000

    assert spent(budget) == 200


def test_what_was_not_spent_is_not_saved_up() -> None:
    budget = RetryBudget()
    budget.requests += 1_000_000

    for _ in range(400):
        budget.sweep(0.25)

    assert spent(budget) <= 20


def test_a_spent_reserve_comes_back() -> None:
    budget = RetryBudget()
    spent(budget)

    budget.sweep(5.0)

    assert spent(budget) == 5
