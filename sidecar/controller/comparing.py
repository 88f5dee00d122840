"""Who compares answers: off the way of requests, in the little time that there is for it.

Pairs of small bodies are compared on the loop, one a turn, so that requests go in between. Others
are compared one by one in a thread, as what takes long would hold the loop up. Both have a share of
a core and no more; pairs that come when it is used up, or the queue is full, are not compared.
Whatever fails, a pair is counted once, as the last thing that is done with it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.controller.drawer import EVIDENCE
from sidecar.controller.evidence import make_evidence
from sidecar.model.shadow import Outcome, Uncompared
from sidecar.runtime import faults
from sidecar.shadow.compare import compare
from sidecar.shadow.rules import compile_rules
from sidecar.shadow.tally import add_failure, add_pair, add_statuses
from sidecar.shadow.telling import tellable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from sidecar.controller.accounts import Account, Accounts
    from sidecar.controller.trials import Trial
    from sidecar.model.policy import Price
    from sidecar.model.shadow import Answer, Evidence
    from sidecar.shadow.rules import Rules
    from sidecar.telemetry.metrics import Metrics

SMALL_BYTES: Final = 8 * 1024  # of both bodies: 0.2 ms mostly, 4 ms of the worst that there is
MAX_WAITING: Final = 256  # pairs; their bytes are of the mirror's memory
SWITCH_S: Final = 0.0005  # a thread holds the interpreter no longer; Python's default is ten times
_CODED: Final = b"\ncontent-encoding:"
PAIRS: Final = "rmv_shadow_pairs_total"
SECONDS: Final = "rmv_shadow_compare_seconds_total"


class Budget:
    """CPU seconds that comparing may take: `share` of each second, a second's worth at once."""

    def __init__(self, share: float, now_s: float) -> None:
        self._share = share
        self._left_s = share
        self._at_s = now_s

    def has_some(self, now_s: float) -> bool:
        """Return whether anything is left; what was taken too much is made up for first."""
        passed_s, self._at_s = now_s - self._at_s, now_s
        self._left_s = min(self._share, self._left_s + passed_s * self._share)
        return self._left_s > 0

    def take(self, seconds: float) -> None:
        """Take what a comparison has used."""
        self._left_s -= seconds


class Compared(NamedTuple):
    """What comparing the answers of one trial came to, and the CPU seconds that it took.

    `evidence` is there if they differ, and it is wanted; `errors` are faults of the sidecar.
    """

    primary: Answer
    shadow: Answer
    outcome: Outcome
    control: Outcome | None
    evidence: Evidence | None
    errors: tuple[Exception, ...]
    seconds: float


class Comparer:
    """Compares what the data plane hands over, and adds up what that finds."""

    def __init__(
        self,
        accounts: Accounts,
        metrics: Metrics,
        share: float,
        monotonic_s: Callable[[], float],
        cpu_s: Callable[[], float] = time.thread_time,
    ) -> None:
        """Use `share` of a core; `cpu_s` is what the calling thread has used."""
        self._accounts = accounts
        self._metrics = metrics
        self._budget = Budget(share, monotonic_s())
        self._monotonic_s = monotonic_s
        self._cpu_s = cpu_s
        self._small: deque[Trial] = deque()
        self._large: deque[Trial] = deque()
        self._thread: ThreadPoolExecutor | None = None
        self._working: tuple[Trial, Future[Compared]] | None = None
        self._is_closed = False

    def take(self, trial: Trial) -> None:
        """Take a trial whose sides have all ended. It raises nothing: a client's exchange calls."""
        with self._counted(trial):
            self._take(trial)

    def _take(self, trial: Trial) -> None:
        if not trial.shadow.is_whole:  # it is counted already
            self._note_failure(trial)
            trial.release()
            return
        cause = self._objection(trial)
        if cause:
            self._pass_over(trial, cause)
            return
        queue, begin = self._small, self._next_small
        if not _is_small(trial):
            queue, begin = self._large, self._next_large
        if not queue:
            asyncio.get_running_loop().call_soon(begin)
        queue.append(trial)

    async def close(self) -> None:
        """Compare no more: wait for what is being compared, and count the others."""
        self._is_closed = True
        if self._working is not None:
            future = asyncio.wrap_future(self._working[1])
            await asyncio.gather(future, return_exceptions=True)  # of errors `_end_work` tells
            self._end_work()
        for queue in (self._small, self._large):
            while queue:
                trial = queue.popleft()
                with self._counted(trial):
                    self._pass_over(trial, Uncompared.SHUTDOWN.value)
        if self._thread is not None:
            self._thread.shutdown()

    def _objection(self, trial: Trial) -> str:
        """Return why a trial is not to be compared, or an empty text."""
        primary = trial.primary
        if not primary.is_whole:
            return Uncompared.PRIMARY.value
        if failure := primary.failure or trial.shadow.failure:
            return failure
        if self._is_closed:
            return Uncompared.SHUTDOWN.value
        is_full = len(self._small) + len(self._large) >= MAX_WAITING
        if is_full or not self._budget.has_some(self._monotonic_s()):
            return Uncompared.BUDGET.value
        return ""

    def _next_small(self) -> None:
        """Compare the pair of small bodies that waited longest, and let the loop turn."""
        if not self._small:
            return
        trial = self._small.popleft()
        if self._small:
            asyncio.get_running_loop().call_soon(self._next_small)
        with self._counted(trial):
            if self._budget.has_some(self._monotonic_s()):
                self._settle(trial, self._compare(trial, *self._terms(trial)))
            else:
                self._pass_over(trial, Uncompared.BUDGET.value)

    def _next_large(self) -> None:
        """Have the pair of large bodies that waited longest compared in the thread, if it is idle.

        For one that there is no time for, the loop turns once.
        """
        if not self._large or self._working is not None or self._is_closed:
            return
        trial = self._large.popleft()
        with self._counted(trial):
            if self._budget.has_some(self._monotonic_s()):
                self._begin_work(trial)
            else:
                self._pass_over(trial, Uncompared.BUDGET.value)
        if self._large and self._working is None:
            asyncio.get_running_loop().call_soon(self._next_large)

    def _begin_work(self, trial: Trial) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="compare")
            sys.setswitchinterval(SWITCH_S)
        loop = asyncio.get_running_loop()
        future = self._thread.submit(self._compare, trial, *self._terms(trial))
        self._working = trial, future
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._end_work))

    def _end_work(self) -> None:
        """Take what the thread has found; later calls do nothing."""
        if self._working is None or not self._working[1].done():
            return
        trial, future = self._working
        self._working = None
        with self._counted(trial):
            self._settle(trial, future.result())
        self._next_large()

    @contextmanager
    def _counted(self, trial: Trial) -> Iterator[None]:
        """Have a pair counted that something within fails for, which counts it last of all."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- whatever it is, the pair has to be counted
            faults.note("comparing", error)
            if trial.shadow.is_whole:
                trial.book.pass_over(Uncompared.FAULT.value)
            trial.release()

    def _terms(self, trial: Trial) -> tuple[Rules, bool]:
        """Return how to compare, compiled once for each policy that says so; and to keep a pair."""
        account = self._accounts.of(trial.book)
        if account.rules is None or account.rules[0] is not trial.comparison:
            account.rules = trial.comparison, compile_rules(trial.comparison)
        is_wanted = trial.comparison.keep.pairs > 0 and account.drawer.has_room(self._monotonic_s())
        return account.rules[1], is_wanted

    def _compare(self, trial: Trial, rules: Rules, is_wanted: bool) -> Compared:  # noqa: FBT001 -- by position, in a thread
        """Compare, be it in the thread: nothing but the trial's answers is touched."""
        began_s = self._cpu_s()
        primary, shadow = trial.primary.answer(), trial.shadow.answer()
        errors: list[Exception] = []
        outcome = _outcome(primary, shadow, rules, errors)
        control = None
        if trial.control is not None and outcome.uncompared is None:
            control = _outcome(primary, trial.control.answer(), rules, errors)
            if control.uncompared is not None:
                control = None
        evidence = None
        if is_wanted and outcome.uncompared is None and not outcome.agrees:
            try:
                evidence = make_evidence(trial, rules, primary, shadow, outcome)
            except Exception as error:  # noqa: BLE001 -- the pair is compared all the same
                errors.append(error)
        seconds = self._cpu_s() - began_s
        return Compared(primary, shadow, outcome, control, evidence, tuple(errors), seconds)

    def _settle(self, trial: Trial, compared: Compared) -> None:
        """Count what a comparison has found, and let go of the trial."""
        began_s = self._cpu_s()
        account, cause = self._accounts.of(trial.book), compared.outcome.uncompared
        for error in compared.errors:
            faults.note("comparing", error)
        try:
            self._add_up(trial, account, compared)
        finally:
            spent_s = compared.seconds + self._cpu_s() - began_s
            self._budget.take(spent_s)
            account.changing().cost.compare_s += spent_s
            self._metrics.sums[SECONDS,] += spent_s
        if cause is None:
            trial.book.compare()
        else:
            trial.book.pass_over(cause.value)
        trial.release()

    def _add_up(self, trial: Trial, account: Account, compared: Compared) -> None:
        """Add a pair to its account: first what may sooner fail, so that it is not half there."""
        outcome = compared.outcome
        if outcome.tokens is not None and (price := _price(trial)) is not None:
            account.charge_tokens(price, outcome.tokens, trial.identity.tenant, trial.at_s)
        add_pair(
            account.changing(),
            primary_version=trial.serving,
            tenant=trial.identity.tenant,
            segments=_segments(trial),
            at_s=trial.at_s,
            primary=compared.primary,
            shadow=compared.shadow,
            outcome=outcome,
            control=compared.control,
        )
        if outcome.uncompared is None:
            self._tell(trial, account, compared)

    def _tell(self, trial: Trial, account: Account, compared: Compared) -> None:
        """Count a pair in the metrics; have one that disagrees kept, if that is asked for."""
        agrees = compared.outcome.agrees
        outcome = "agreed" if agrees else "differed"
        model, version = account.name
        self._metrics.count(PAIRS, "model", model, "version", version, "outcome", outcome)
        keep = trial.comparison.keep
        if agrees or not keep.pairs:
            return
        if compared.evidence is not None:
            account.drawer.put(compared.evidence, keep.pairs)
        else:
            self._metrics.count(EVIDENCE, "outcome", "passed-over")

    def _pass_over(self, trial: Trial, cause: str) -> None:
        """Count a whole answer that is not compared."""
        if _has_ended(trial):
            add_statuses(
                self._accounts.of(trial.book).changing(),
                primary_version=trial.serving,
                primary_status=trial.primary.status,
                shadow_status=trial.shadow.status,
            )
        trial.book.pass_over(cause)
        trial.release()

    def _note_failure(self, trial: Trial) -> None:
        """Count a copy without a whole answer as an error, if there is something to hold it to."""
        if _has_ended(trial) and trial.serving != trial.book.version:
            add_failure(
                self._accounts.of(trial.book).changing(),
                primary_version=trial.serving,
                primary_status=trial.primary.status,
            )


def _outcome(primary: Answer, shadow: Answer, rules: Rules, errors: list[Exception]) -> Outcome:
    """Return what comparing finds, be it a fault: statuses, times and sizes count all the same."""
    try:
        return tellable(compare(primary, shadow, rules))
    except Exception as error:  # noqa: BLE001 -- the same
        errors.append(error)
        return Outcome(rules.kind.value, uncompared=Uncompared.FAULT)


def _is_small(trial: Trial) -> bool:
    """Return whether a pair may hold up the loop.

    One that is coded may be a thousand times it, and to mask bodies that are kept takes long.
    """
    if trial.comparison.keep.bodies:
        return False
    sides = [one for one in (trial.primary, trial.shadow, trial.control) if one is not None]
    if sum(one.size for one in sides) > SMALL_BYTES:
        return False
    return not any(_CODED in one.head.lower() for one in sides)


def _has_ended(trial: Trial) -> bool:
    """Return whether the client's side came to an end: a whole answer, or its upstream's failure.

    A client that has left says nothing of either version.
    """
    return trial.primary.is_whole or not trial.primary.status


def _segments(trial: Trial) -> list[str]:
    if trial.snapshot is None:
        return []
    return trial.snapshot.compiled.segments_of(trial.identity, trial.head)


def _price(trial: Trial) -> Price | None:
    if trial.snapshot is None:
        return None
    return trial.snapshot.policy.versions[trial.book.version].price
