"""What one worker has found out about each shadow test: its book, its pairs and what they cost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sidecar.controller.drawer import Drawer
from sidecar.model.shadow import OTHER, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecar.controller.trials import Book
    from sidecar.model.comparison import Comparison
    from sidecar.model.policy import Price
    from sidecar.shadow.rules import Rules

DAY_S: Final = 86_400
MAX_PRICES: Final = 5_000  # by tenant and day; past that tenants are one
_TOKENS: Final = 1_000  # that a price is of


class Account:
    """All that this worker knows of one shadow test."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.drawer = Drawer()
        self.rules: tuple[Comparison, Rules] | None = None
        """What the policy says of comparing, and what that is compiled to; for who compares."""
        self.reset: str | None = None
        """What the store calls the last reset of the test, once it is known."""
        self.is_final = False
        """Whether the store has been told all that will ever be counted."""
        self._spent: dict[tuple[str, str], float] = {}
        self._tally = Tally(book.model, book.version, book.test, book.since_s)
        self._price: Price | None = None
        self._charged: dict[int, dict[str, int]] = {}
        self._is_changed = False

    @property
    def name(self) -> tuple[str, str]:
        """Model and version."""
        return self.book.model, self.book.version

    @property
    def is_changed(self) -> bool:
        """Whether there is something that `told` has not told."""
        return self._is_changed or self.book.is_changed

    def changing(self) -> Tally:
        """Return the tally, to be added to."""
        self._is_changed = True
        return self._tally

    def told(self, now_s: float) -> Tally:
        """Return all that has been counted so far; it goes on changing with the next pair."""
        book, tally = self.book, self._tally
        tally.until_s = max(tally.until_s, now_s)
        tally.ledger = book.ledger()
        cost = tally.cost
        cost.copy_s, cost.copies_timed = book.copy_s, book.copies_timed
        cost.copied_latency = book.copied_latency.histogram()
        cost.spared_latency = book.spared_latency.histogram()
        self._is_changed = False
        book.note_published()
        return tally

    def untell(self) -> None:
        """Take note that what `told` returned has reached nobody."""
        self._is_changed = True

    def charge_tokens(
        self, price: Price, tokens: tuple[int, int], tenant: str, at_s: float
    ) -> None:
        """Add what the tokens of an answer cost."""
        amount = tokens[0] / _TOKENS * price.per_1k_input_tokens
        amount += tokens[1] / _TOKENS * price.per_1k_output_tokens
        self._charge(amount, price.currency, tenant, int(at_s) // DAY_S)

    def charge_copies(self, price: Price | None) -> None:
        """Add what copies cost that have been sent since the last call.

        Where the version has no price any more, they cost what the last one did.
        """
        self._price = price = price or self._price
        if price is None:
            return
        for day, tenant, number in self._uncharged():
            self._charge(number * price.per_request, price.currency, tenant, day)

    def take_spent(self) -> list[tuple[tuple[str, str], float]]:
        """Return what it has cost since the last call, by UTC day and currency."""
        spent, self._spent = self._spent, {}
        return list(spent.items())

    def _uncharged(self) -> Iterator[tuple[int, str, int]]:
        """Iterate over new copies: day, tenant and how many, which are not new any more."""
        copies = self.book.copies
        for day in self._charged.keys() - copies.keys():
            del self._charged[day]
        for day, tenants in list(copies.items()):
            known = self._charged.setdefault(day, {})
            for tenant, number in tenants.items():
                if number != (before := known.get(tenant, 0)):
                    known[tenant] = number
                    yield day, tenant, number - before

    def _charge(self, amount: float, currency: str, tenant: str, day: int) -> None:
        if amount <= 0:
            return
        named, prices = spell_day(day), self.changing().cost.price
        key = f"{tenant}/{named}"
        if key not in prices and len(prices) >= MAX_PRICES:
            key = f"{OTHER}/{named}"
        prices[key] = prices.get(key, 0.0) + amount
        self._spent[named, currency] = self._spent.get((named, currency), 0.0) + amount


class Accounts:
    """The accounts of all tests that this worker has a book of."""

    def __init__(self) -> None:
        self._by_book: dict[Book, Account] = {}

    def of(self, book: Book) -> Account:
        """Return the account of a book."""
        account = self._by_book.get(book)
        if account is None:
            account = self._by_book[book] = Account(book)
        return account

    def __iter__(self) -> Iterator[Account]:
        return iter(tuple(self._by_book.values()))

    def retain(self, books: Iterable[Book]) -> None:
        """Let go of all others in which nothing more will be counted."""
        kept = set(books)
        for book in tuple(self._by_book):
            if book not in kept and book.is_quiet:
                del self._by_book[book]


def spell_day(day: int) -> str:
    """Return a day since the epoch as `2026-11-23`."""
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()
