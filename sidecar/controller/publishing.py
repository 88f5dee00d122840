"""What this worker has found out about shadow tests, told to the store; and caps of what they cost.

Tallies are cumulative: while the store is away nothing is lost but what a worker that ends
meanwhile could not tell.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Generic

from sidecar.controller.accounts import DAY_S, spell_day
from sidecar.controller.drawer import EVIDENCE
from sidecar.controller.trials import CAPPED, B
from sidecar.errors import StoreUnavailableError, WrongTypeError
from sidecar.runtime import faults
from sidecar.runtime.slices import Slice

if TYPE_CHECKING:
    from sidecar.controller.accounts import Account, Accounts
    from sidecar.controller.trials import Copies
    from sidecar.model.policy import Price
    from sidecar.runtime.clock import Clock
    from sidecar.store.base import Store
    from sidecar.store.live import LivePolicies
    from sidecar.telemetry.metrics import Metrics

EVERY_S: Final = 2.0
END_S: Final = 5.0  # at the end of a worker
AT_ONCE: Final = 4  # pairs of one call: a megabyte, if their bodies are kept
COST: Final = "rmv_shadow_cost_total"
_log = logging.getLogger("sidecar.shadow")

Name = tuple[str, str]
"""A model and the version that shadows."""


class Publisher(Generic[B]):
    """Tells the store of the tallies of one worker, and learns what the fleet has spent."""

    def __init__(  # noqa: PLR0913 -- parts, each named where they are wired
        self,
        store: Store,
        accounts: Accounts,
        copies: Copies[B],
        live: LivePolicies,
        *,
        worker: str,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Tell of `worker`, a name that no other has: `<sidecar>/<worker>`."""
        self._store = store
        self._accounts = accounts
        self._copies = copies
        self._live = live
        self._worker = worker
        self._clock = clock
        self._metrics = metrics
        self._spent: dict[tuple[Name, str], float] = {}  # by this worker, by day
        self._others: dict[tuple[Name, str], float] = {}  # the rest of the fleet, when last heard
        self._is_failing = False

    async def run(self) -> None:
        """Tell, and learn, every two seconds until cancelled; no fault ends that."""
        while True:
            try:
                await self.publish()
            except Exception as error:  # noqa: BLE001 -- it may cost one time, never all others
                faults.note("publishing", error)
            await asyncio.sleep(EVERY_S)

    async def publish(self) -> None:
        """Tell what is new, and learn which shadows have cost what they may."""
        await self._collect()
        failure = await self._tell_all(is_last=False)
        failure = await self._cap() or failure
        if failure and not self._is_failing:  # once: the policy watch tells how long
            _log.warning("shadow counts are not stored", extra={"reason": failure})
        self._is_failing = bool(failure)
        self._accounts.retain(self._copies.books.values())

    async def close(self) -> None:
        """Tell all of it for the last time, once nothing is under way any more."""
        await self._collect()
        try:
            async with asyncio.timeout(END_S):
                failure = await self._tell_all(is_last=True) or await self._cap()
        except TimeoutError:
            failure = f"the store took over {END_S:g} s"
        if failure:
            _log.error("shadow counts are lost", extra={"reason": failure})
        for account in self._accounts:
            self._count("lost", len(account.drawer.waiting))

    async def _collect(self) -> None:
        """Add up what copies and answers have cost since the last time."""
        for book in self._copies.books.values():
            self._accounts.of(book)  # be it that nothing was compared
        turn = Slice()
        for account in self._accounts:
            try:
                self._charge(account)
            except Exception as error:  # noqa: BLE001 -- the others are charged all the same
                faults.note("publishing", error)
            if turn.is_over():
                await turn.rest()

    def _charge(self, account: Account) -> None:
        model, version = account.name
        account.charge_copies(self._price(account.name))
        for (day, currency), amount in account.take_spent():
            key = account.name, day
            self._spent[key] = self._spent.get(key, 0.0) + amount
            labels = "model", model, "version", version, "currency", currency
            self._metrics.sums[COST, *labels] += amount

    def _price(self, name: Name) -> Price | None:
        snapshot = self._live.snapshots.get(name[0])
        version = None if snapshot is None else snapshot.policy.versions.get(name[1])
        return None if version is None else version.price

    # --- tallies ------------------------------------------------------------------------------

    async def _tell_all(self, *, is_last: bool) -> str:
        """Store what is new of all tests; return why that failed, or nothing."""
        failure = ""
        turn = Slice()
        for book in tuple(self._copies.books.values()):
            if turn.is_over():  # where there is nothing to tell, nothing is waited for
                await turn.rest()
            account = self._accounts.of(book)
            try:
                await self._tell(book, account, is_last=is_last)
                await self._put_evidence(account)
            except WrongTypeError as error:  # the key of this one alone
                failure = str(error)
            except StoreUnavailableError as error:
                return str(error)
            except Exception as error:  # noqa: BLE001 -- the others are told all the same
                failure = faults.note("publishing", error)
        return failure

    async def _tell(self, book: B, account: Account, *, is_last: bool) -> None:
        """Store what is new of a test; let go of it when that was the last of it."""
        is_over = book.is_old and book.is_quiet and not account.drawer.waiting
        is_done = is_last or is_over
        if not account.is_final and (account.is_changed or is_done):
            tally = account.told(self._clock.now_s())
            try:
                reset = await self._store.put_tally(tally, self._worker, account.reset)
            except BaseException:
                account.untell()
                raise
            if account.reset not in {None, reset}:
                self._forget(book)  # somebody has reset the test
                return
            account.reset = reset
            account.is_final = is_done  # put again once it is settled, it would count twice
        elif not account.is_final and await self._is_reset(account):
            self._forget(book)  # or what comes next would be taken for a part of what was reset
            return
        if account.is_final and (is_last or book.is_quiet):  # else the policy has it again
            await self._store.settle_tally(account.told(self._clock.now_s()), self._worker)
            self._forget(book)

    async def _is_reset(self, account: Account) -> bool:
        """Whether somebody has reset a test of which there is nothing new to tell."""
        if account.reset is None:
            return False
        book = account.book
        reset = await self._store.last_reset(book.model, book.version, book.test)
        return reset not in {"", account.reset}

    def _forget(self, book: B) -> None:
        """Let go of a book, unless the mirror has done so while the store was waited for."""
        if self._copies.books.get((book.model, book.version, book.test)) is book:
            self._copies.forget(book)

    async def _put_evidence(self, account: Account) -> None:
        """Store pairs that disagree, a few at a time. Those that fail wait, and may come twice."""
        drawer = account.drawer
        waiting = drawer.waiting
        for start in range(0, len(waiting), AT_ONCE):
            few = waiting[start : start + AT_ONCE]
            await self._store.add_evidence(*account.name, few, drawer.keep)
            drawer.drop(len(few))
            self._count("kept", len(few))

    def _count(self, outcome: str, number: int) -> None:
        if number:
            self._metrics.events[EVIDENCE, "outcome", outcome] += number

    # --- caps ---------------------------------------------------------------------------------

    async def _cap(self) -> str:
        """Have shadows get no copies that have cost what they may today; return what failed.

        While the store is away the rest of the fleet is taken to spend no more.
        """
        failure, is_away = "", False
        capped: set[Name] = set()
        today = spell_day(int(self._clock.now_s()) // DAY_S)
        limits = self._limits()
        self._forget_caps(limits)
        for name, limit in limits:
            own = self._spent.get((name, today), 0.0)
            try:
                if not is_away:
                    total = await self._store.spend(*name, today, self._worker, own)
                    self._others[name, today] = total - own
            except WrongTypeError as error:  # the key of this one alone
                failure = str(error)
            except StoreUnavailableError as error:
                failure, is_away = str(error), True
            except Exception as error:  # noqa: BLE001 -- what is known counts all the same
                failure = faults.note("publishing", error)
            spent = own + self._others.get((name, today), 0.0)
            if spent >= limit:
                capped.add(name)
            self._note_cap(name, today, spent, limit)
        self._copies.capped.clear()
        self._copies.capped.update(capped)
        self._forget_before(today)
        return failure

    def _limits(self) -> list[tuple[Name, float]]:
        """Return the shadows that may cost so much a day."""
        return [
            ((model, one.shadow.version), one.shadow.cost_per_day)
            for model, snapshot in self._live.snapshots.items()
            for one in snapshot.shadows
            if one.shadow.cost_per_day is not None
        ]

    def _note_cap(self, name: Name, today: str, spent: float, limit: float) -> None:
        """Show whether a shadow is capped, and log when it becomes so."""
        is_capped = spent >= limit
        level = CAPPED, "model", name[0], "version", name[1]
        if is_capped and not self._metrics.levels.get(level):
            facts = {"model": name[0], "version": name[1], "day": today}
            _log.warning("shadow is capped", extra={**facts, "spent": spent, "cap": limit})
        self._metrics.levels[level] = float(is_capped)

    def _forget_caps(self, limits: list[tuple[Name, float]]) -> None:
        """Show nothing of shadows that have no cap any more."""
        levels = self._metrics.levels
        shown = {(CAPPED, "model", name[0], "version", name[1]) for name, _ in limits}
        for level in [one for one in levels if one[0] == CAPPED and one not in shown]:
            del levels[level]

    def _forget_before(self, today: str) -> None:
        for told in (self._spent, self._others):
            for key in [key for key in told if key[1] < today]:
                del told[key]
