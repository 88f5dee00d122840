"""The keys of one issuer, as new as they can be had and no older than they may be.

    source -> read every so often, and when a token names a key that nobody knows -> Holding

Every read is one of these two, and there is one at a time. What was read last and was good stays in
force while nothing better comes, until it is too old: then nothing is.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sidecar.identity.holding import Holding
from sidecar.identity.keys import KeySetError
from sidecar.runtime import faults
from sidecar.runtime.tasks import repeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.identity.keys import KeySet
    from sidecar.identity.sources import Source
    from sidecar.model.issuer import IdentitySettings
    from sidecar.runtime.clock import Clock
    from sidecar.telemetry.metrics import Metrics

LOOK_S: Final = 1.0  # at files: how long a change may go unnoticed
UNKNOWN_KEY_S: Final = 30.0  # between two fetches for keys that nobody knows, whoever names them
RETRY_S: Final = 30.0  # after a failed fetch, with good keys in hand
FIRST_RETRY_S: Final = 1.0  # without; doubled each time, up to RETRY_S
JITTER: Final = 0.1  # more, at most, of every wait: sidecars that started together spread out

_log = logging.getLogger("sidecar.keys")


class Keeper:
    """Keeps the keys of one issuer; `on_news` is called when a worker should be told.

    `draw` gives random numbers of [0, 1).
    """

    def __init__(
        self,
        settings: IdentitySettings,
        source: Source,
        *,
        clock: Clock,
        draw: Callable[[], float],
        metrics: Metrics,
        on_news: Callable[[], None],
    ) -> None:
        self.issuer = settings.issuer
        self.source_setting = "jwks_file" if settings.jwks_file else "keys"  # of those on this host
        self._is_local = source.is_local
        self._refresh_s = LOOK_S if source.is_local else settings.keys_refresh_s
        self._rest_s = LOOK_S if source.is_local else UNKNOWN_KEY_S
        self._max_age_s = settings.keys_max_age_s
        self._source = source
        self._monotonic_s = clock.monotonic_s
        self._draw = draw
        self._metrics = metrics
        self._on_news = on_news
        self.on_believed: Callable[[tuple[str, ...], str], None] | None = None
        """Called with names and digest of the keys that are believed from now on, maybe none."""
        self._keys: KeySet | None = None  # the last good ones
        self._jwks = ""  # of these, while they are believed
        self._good_s = clock.monotonic_s()  # when a read last went well
        self._due_s = self._good_s  # when the next one is due
        self._rests_until_s = float("-inf")
        self._failures = 0  # in a row
        self._fault = ""  # what was told of the last one
        self._settled = 0
        self._is_closed = False
        self._is_awaited = False  # somebody waits for a read
        self._is_refreshed = False  # somebody wants a read that begins from now on
        self._woken = asyncio.Event()

    # --- what is known -------------------------------------------------------------------------

    def holding(self) -> Holding:
        """Return what a worker should know now."""
        rests_s = max(self._rests_until_s - self._monotonic_s(), 0.0)
        left_out = {} if self._keys is None or self._is_closed else self._keys.left_out
        return Holding(self.issuer, self._jwks, left_out, self._is_closed, self._settled, rests_s)

    def measure(self) -> None:
        """Set the gauges."""
        levels, label = self._metrics.levels, ("issuer", self.issuer)
        number = len(self._keys.keys) if self._keys is not None and not self._is_closed else 0
        levels["rmv_keys", *label] = number
        if self._keys is not None:
            levels["rmv_key_age_seconds", *label] = self._monotonic_s() - self._good_s

    # --- its life ------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Read keys that are on this host; raises KeySetError for those that are no good."""
        if self._is_local:
            self._succeed(await self._source.read())

    async def run(self) -> None:
        """Read whenever it is time, until cancelled."""
        await repeat(self._turn, part="keys")

    async def _turn(self) -> None:
        await self.step()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s()):
                await self._woken.wait()
        self._woken.clear()

    async def step(self) -> None:
        """Do what is due now."""
        try:
            if self._is_awaited or self._is_refreshed or self._monotonic_s() >= self._due_s:
                await self._read()
        finally:  # whatever happens, keys grow too old
            if self._jwks and self._monotonic_s() - self._good_s >= self._max_age_s:
                self._close()

    def refresh(self) -> None:
        """Read now, or again after a read that is under way: it may miss what is new."""
        self._is_refreshed = True
        self._woken.set()

    def ask(self) -> None:
        """Look for a key that a token names and nobody knows, unless that was done lately."""
        if self._is_awaited:
            return  # the end of that read is told to all who wait
        if self._monotonic_s() < self._rests_until_s:
            self._settle()
        else:
            self._is_awaited = True
            self._rests_until_s = self._monotonic_s() + self._rest_s
            self._woken.set()

    def _wait_s(self) -> float:
        now_s = self._monotonic_s()
        ends_s = self._good_s + self._max_age_s if self._jwks else float("inf")
        return max(min(self._due_s, ends_s) - now_s, 0.0)

    async def _read(self) -> None:
        is_awaited = self._is_awaited  # not by who asks from here on: this read may miss their key
        self._is_refreshed = False
        try:
            keys = await self._source.read()
        except KeySetError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 -- whatever happens, keys have to grow too old
            self._fail(KeySetError(faults.note("keys", error, issuer=self.issuer)))
        else:
            self._succeed(keys)
        if is_awaited:
            self._is_awaited = False
            self._settle()

    def _settle(self) -> None:
        self._settled += 1
        self._on_news()

    # --- how a read ends -----------------------------------------------------------------------

    def _succeed(self, keys: KeySet | None) -> None:
        self._good_s = self._monotonic_s()
        self._due_s = self._good_s + self._spread(self._refresh_s)
        self._failures = 0
        if self._fault:
            self._fault = ""
            _log.info("keys are renewed again", extra={"issuer": self.issuer})
        if keys is None:
            if self._is_closed and self._keys is not None:
                self._believe(self._keys)
            return
        is_changed = self._keys is None or keys.spelled() != self._keys.spelled()
        is_changed |= self._keys is not None and keys.left_out != self._keys.left_out
        self._count("changed" if is_changed else "unchanged")
        if is_changed or self._is_closed:
            self._believe(keys)

    def _believe(self, keys: KeySet) -> None:
        others = keys.spelled()
        is_other = others != self._jwks  # or else other ones are left out
        self._keys, self._jwks, self._is_closed = keys, others, False
        for refused in keys.refused:
            _log.warning("key left out", extra={"issuer": self.issuer, "reason": refused})
        if is_other:
            named = sorted(key.kid or f"({key.algorithm} without kid)" for key in keys.keys)
            _log.info("keys changed", extra={"issuer": self.issuer, "keys": ", ".join(named)})
            self._tell(tuple(named), keys.digest())
        else:
            self._on_news()

    def _fail(self, error: KeySetError) -> None:
        self._failures += 1
        self._due_s = self._monotonic_s() + self._spread(self._retry_s())
        is_told = self._fault == str(error)
        if not is_told or not self._is_local:  # a file that stays as it is is one failure
            cause = getattr(error, "cause", "")
            self._count(f"failed-{cause}" if cause else "refused")
        if is_told:
            return
        self._fault = str(error)
        extra = {"issuer": self.issuer, "reason": self._fault}
        if self._jwks:
            _log.warning("keys not renewed: the last good ones are believed", extra=extra)
        else:
            _log.error("keys not there: tokens of their issuer get 503", extra=extra)

    def _retry_s(self) -> float:
        if self._jwks:
            return min(self._refresh_s, RETRY_S)
        longest = min(self._refresh_s, RETRY_S)
        return min(FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 10), longest)

    def _close(self) -> None:
        self._jwks, self._is_closed = "", True
        extra = {"issuer": self.issuer, "reason": self._fault, "max_age_s": self._max_age_s}
        _log.error("keys are too old: tokens of their issuer get 503", extra=extra)
        self._tell()

    def _tell(self, believed: tuple[str, ...] = (), digest: str = "") -> None:
        try:
            if self.on_believed is not None:
                self.on_believed(believed, digest)
        finally:  # workers are to know of it in any case
            self._on_news()

    def _spread(self, seconds: float) -> float:
        return seconds * (1 + JITTER * self._draw())

    def _count(self, outcome: str) -> None:
        self._metrics.count("rmv_key_reads_total", "issuer", self.issuer, "outcome", outcome)
