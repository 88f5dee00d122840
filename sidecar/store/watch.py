"""Keeps the live policies current: track, load everything, then follow the changes."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import nullcontext
from typing import TYPE_CHECKING

from msgspec import Struct

from sidecar.errors import HistoryError, StoreUnavailableError
from sidecar.policy.problem import PolicyError
from sidecar.runtime import faults, tasks
from sidecar.runtime.slices import Slice, lasting
from sidecar.store.client import FOREIGN_ERRORS
from sidecar.store.doubts import NO_TEXT, Doubts
from sidecar.store.keys import MAX_KEY_BYTES, Numerous, PolicyKey, model_of
from sidecar.store.live import Contents
from sidecar.store.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.store.journal import Journal
    from sidecar.store.keys import Key, Keys
    from sidecar.store.live import LivePolicies
    from sidecar.store.tracking import Tracking

_log = logging.getLogger("sidecar.store")
_END_EVERY_S = 1.0  # by when a pin ends that was signed until then, and that nobody deletes
_COMMIT_S = 0.1, 0.5  # a commit writes its history entry within milliseconds, if it does not die
_MAX_NAMED = 10  # models in one line of the log
_BATCH = 100  # keys of one SCAN or MGET: a millisecond of the loop's time


class WatchTiming(Struct, frozen=True):
    """How soon a watch notices and mends what is wrong, in seconds.

    Every `ping_every_s` a connection is asked to report a change, and dead `ping_timeout_s` later.
    """

    ping_every_s: float = 2.0
    ping_timeout_s: float = 2.0
    reload_every_s: float = 60.0
    first_backoff_s: float = 0.05
    max_backoff_s: float = 1.0


class Watcher:
    """Feeds one `LivePolicies` from one server until it is cancelled."""

    def __init__(
        self,
        connect: Callable[[], Tracking],
        keys: Keys,
        live: LivePolicies,
        journal: Journal,
        timing: WatchTiming,
    ) -> None:
        self._connect = connect
        self._keys = keys
        self._watched = tuple(prefix.encode() for prefix in keys.watched)
        self._live = live
        self._timing = timing
        self._adopter = _Adopter(journal, is_signed=live.trust is not None)
        self._loader = Loader(live, self._taken)
        self._backoff_s = timing.first_backoff_s
        self._doubts = Doubts()
        self._is_flushed = False  # since everything was read last
        self._returned: set[str] = set()  # lost models that were written again since then
        self._trouble: str | None = None  # what was last logged; the same again is not

    async def run(self) -> None:
        """Watch for ever: an error is logged, marks the policies stale, and starts over."""
        adopting = tasks.spawn(self._adopter.run(), name="policy-adoption")
        loading = tasks.spawn(self._loader.run(), name="policy-loading")
        helping = [adopting, loading]
        if self._live.trust is not None:
            expiring = tasks.repeat(self._end_expired, part="policies")
            helping.append(tasks.spawn(expiring, name="signed-until"))
        try:
            while True:
                await self._try_session()
                self._live.is_stale = True
                # Many sidecars lose the same server at once; they should not all return at once.
                jitter = random.uniform(0.5, 1.0)  # noqa: S311 -- spreads load, guards nothing
                await asyncio.sleep(self._backoff_s * jitter)
                self._backoff_s = min(self._backoff_s * 2, self._timing.max_backoff_s)
        finally:
            await tasks.stop(*helping)

    async def _end_expired(self) -> None:
        """End what is signed until a moment, for whom the store may be deaf or told otherwise."""
        turn = Slice()
        for _ in self._live.ending():
            if turn.is_over():
                await turn.rest()
        await asyncio.sleep(_END_EVERY_S)

    async def _try_session(self) -> None:
        try:
            await self._session()
        except FOREIGN_ERRORS as e:
            silent = "it did not answer in time" if isinstance(e, TimeoutError) else ""
            trouble = str(e) or silent or type(e).__name__
            if trouble != self._trouble:
                _log.warning("policy watch lost", extra={"reason": trouble})
            self._trouble = trouble
        except Exception as e:  # noqa: BLE001 -- a bug may cost one session, never the watch
            self._trouble = faults.note("policies", e)

    async def _session(self) -> None:
        """Live through one connection; ends only with an error."""
        clock = asyncio.get_running_loop().time
        tracking = self._connect()
        try:
            await tracking.open()
            await self._reload(tracking)
            self._settled()
            reload_at = clock() + self._timing.reload_every_s
            ping_at = clock() + self._timing.ping_every_s
            while True:
                # A server that reports much may be one of several, of which another is deaf.
                await tracking.heard(max(0.001, min(ping_at, reload_at) - clock()))
                if clock() >= ping_at:
                    await tracking.ping(self._timing.ping_timeout_s)
                    ping_at = clock() + self._timing.ping_every_s
                is_whole = not await self._follow(tracking) and await self._forget_lost(tracking)
                if not is_whole or clock() >= reload_at:
                    await self._reload(tracking)
                    reload_at = clock() + self._timing.reload_every_s
        finally:
            await tracking.close()

    def _settled(self) -> None:
        self._backoff_s = self._timing.first_backoff_s
        if self._trouble is not None:
            _log.warning("policy watch resumed")
        self._trouble = None

    async def _follow(self, tracking: Tracking, image: Contents | None = None) -> bool:
        """Re-read the keys that changed; return whether the whole store was flushed instead.

        `image` is a load under way, which must not overwrite the newer with the older.
        """
        changed, is_flushed = await tracking.take()
        turn = Slice()
        for start in range(0, len(changed), _BATCH):
            raws = changed[start : start + _BATCH]
            values = await tracking.values(raws)
            for raw, value in zip(raws, values, strict=True):
                key = self._parse(raw)
                if key is None:
                    continue
                if image is not None and not isinstance(key, Numerous):
                    image.put(key, value)
                self._put(key, value)
                if turn.is_over():  # a thousand models may have been written in one go
                    await turn.rest()
            await self._tell_wrong_types(tracking, raws, values)
        self._is_flushed = self._is_flushed or is_flushed
        return is_flushed

    async def _reload(self, tracking: Tracking) -> None:
        """Read everything, and make the live policies equal to it."""
        with nullcontext() if self._live.is_loaded else lasting():
            while not (await self._reload_once(tracking) and await self._forget_lost(tracking)):
                _log.warning("store was flushed while it was read: reading it again")

    async def _reload_once(self, tracking: Tracking) -> bool:
        """Reload, following the changes that come meanwhile; False: all that was read is void.

        There may be a million pins, and as many revocations, so they are no part of the image:
        those that are not held are taken as they are found, then each that was held is asked for.
        """
        image = Contents()
        has_held = next(self._live.held(1), None) is not None
        if not await self._load(tracking, image):
            return False
        self._note_lost(frozenset(await self._find_lost(tracking, image)))
        self._returned.clear()  # from here on they are read as all others are
        if has_held and not await self._ask_for_held(tracking, image):
            return False
        turn = Slice()
        for _ in self._live.replacing(image):
            if not turn.is_over():
                continue
            if await self._follow(tracking, image):
                return False
            await turn.rest()
        for model, raw in image.policies.items():
            if not self._live.is_taking(model):
                self._taken(model, raw, model not in self._live.faults)
        self._live.is_stale = bool(self._live.lost)
        return True

    async def _find_lost(self, tracking: Tracking, image: Contents) -> list[str]:
        """Return the models that went without being deleted.

        Who deletes a model by its key leaves its history; who flushes or loses a store does not.
        In a cluster its history may lie elsewhere: there a primary without any document lost them.
        What was lost once stays so until somebody writes it.
        """
        lost = []
        present = [self._keys.policy(model) for model in image.policies]
        for model in sorted(self._live.absent(image)):
            is_known = self._is_flushed or model in self._live.lost or self._live.holds_on_to(model)
            if (
                is_known
                or tracking.is_alone(self._keys.policy(model), present)
                or not await tracking.has(self._keys.history(model))
            ):
                lost.append(model)
            if self._live.holds_on_to(model):
                self._live.put_policy(model, None)
        self._is_flushed = False
        return lost

    def _note_lost(self, lost: frozenset[str]) -> None:
        """Keep serving what the store has lost, and say so once."""
        if lost - self._live.lost:
            named = sorted(lost)[:_MAX_NAMED]
            _log.error(
                "store lost policies: serving the last known",
                extra={"models": " ".join(named), "number": len(lost)},
            )
        elif self._live.lost and not lost:
            _log.warning("store has its policies again")
        self._live.set_lost(lost)
        self._live.is_stale = self._live.is_stale or bool(lost)

    async def _load(self, tracking: Tracking, image: Contents) -> bool:
        """Read what is not held, what is numerous into force and all else into `image`.

        Returns False when the store was flushed meanwhile.
        """
        cursor = 0
        turn = Slice()
        while True:
            cursor, found = await tracking.scan(cursor, self._keys.watched_pattern, _BATCH)
            keys = {raw: key for raw in found if (key := self._parse(raw)) is not None}
            wanted = [raw for raw, key in keys.items() if not self._live.holds(key)]
            values = await tracking.values(wanted)
            for raw, value in zip(wanted, values, strict=True):
                key = keys[raw]
                if isinstance(key, Numerous):
                    self._live.put(key, value)
                    if turn.is_over():  # a signature takes as long as ten requests
                        await turn.rest()
                else:
                    image.put(key, value)
            await self._tell_wrong_types(tracking, wanted, values)
            if await self._follow(tracking, image):
                return False
            if cursor == 0:
                return True
            await asyncio.sleep(0)

    async def _ask_for_held(self, tracking: Tracking, image: Contents) -> bool:
        """Read what is held once more, if it is numerous; False: the store was flushed meanwhile.

        What was lost together with policies has not been taken away by anybody.
        """
        for keys in self._live.held(_BATCH):
            raws = [self._keys.spell(key).encode() for key in keys]
            for key, value in zip(keys, await tracking.values(raws), strict=True):
                if value is not None or not self._live.may_be_lost(key):
                    self._live.put(key, value)
            if await self._follow(tracking, image):
                return False
            await asyncio.sleep(0)
        return True

    async def _forget_lost(self, tracking: Tracking) -> bool:
        """Let go of the pins and kills that were lost with models which somebody wrote again.

        Nobody reports those: they went with the flush. False when the store was flushed meanwhile.
        """
        while self._returned:
            for keys in self._live.marks(self._returned.pop(), _BATCH):
                values = await tracking.values([self._keys.spell(key).encode() for key in keys])
                for key, value in zip(keys, values, strict=True):
                    self._live.put(key, value)
                if await self._follow(tracking):
                    return False
                await asyncio.sleep(0)
        return True

    def _parse(self, raw: bytes) -> Key | None:
        key = self._keys.parse(raw)
        if key is None and raw.startswith(self._watched):
            self._doubts.tell(_text(raw), "", "no such spelling")
        return key

    async def _tell_wrong_types(
        self, tracking: Tracking, raws: Sequence[bytes], values: Sequence[bytes | None]
    ) -> None:
        """Tell of keys of ours that hold no string: nothing reads them."""
        if self._doubts:
            for raw, value in zip(raws, values, strict=True):
                if value is not None and self._keys.parse(raw) is not None:
                    self._doubts.forget(_text(raw))
        absent = [raw for raw, value in zip(raws, values, strict=True) if value is None]
        wrong = await tracking.wrong_types(absent)
        for raw in absent:
            key = self._keys.parse(raw)
            if raw not in wrong:
                self._doubts.forget(_text(raw))
            elif key is not None:
                self._doubts.tell(_text(raw), model_of(key), NO_TEXT)

    def _put(self, key: Key, value: bytes | None) -> None:
        if not isinstance(key, PolicyKey):
            self._live.put(key, value)
            return
        model = key.model
        if value is None and self._live.holds_on_to(model):
            self._live.put_policy(model, None)
            self._note_lost(self._live.lost | {model})
            return
        if model in self._live.lost:  # somebody wrote it again
            self._returned.add(model)
            self._note_lost(self._live.lost - {model})
            self._live.is_stale = bool(self._live.lost)
        self._loader.put(model, value)

    def _taken(self, model: str, raw: bytes, is_serving: bool) -> None:  # noqa: FBT001 -- a callback
        if is_serving or model in self._live.behind:
            self._adopter.notice(model, raw, self._live.reached(model))


def _text(raw: bytes) -> str:
    return raw[:MAX_KEY_BYTES].decode("utf-8", "backslashreplace")


class _Adopter:
    """Brings documents into the history beside the watch, which must not wait for it.

    Of those that have to be signed none is committed anew, under a revision that nobody signed.
    """

    def __init__(self, journal: Journal, *, is_signed: bool) -> None:
        self._journal = journal
        self._is_signed = is_signed
        # Documents by model, and the revision that was reached by then; newest wins.
        self._noticed: dict[str, tuple[bytes, int]] = {}
        self._done: dict[str, tuple[bytes, int]] = {}
        self._reached: dict[str, int] = {}
        self._wake = asyncio.Event()

    def notice(self, model: str, raw: bytes, reached: int) -> None:
        """Remember to look at a document that is valid; a commit is given time to end by itself."""
        is_commit = reached > self._reached.get(model, 0)
        self._reached[model] = reached
        if self._done.get(model) == (raw, reached):
            return
        self._noticed[model] = raw, reached
        if is_commit:
            # At once, all sidecars would ask while each has to say that it took it over.
            delay_s = random.uniform(*_COMMIT_S)  # noqa: S311 -- spreads load, guards nothing
            asyncio.get_running_loop().call_later(delay_s, self._wake.set)
        else:
            self._wake.set()

    async def run(self) -> None:
        """Adopt what is noticed until cancelled.

        What fails, or is not to be served, is noticed again by the next reload.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._noticed:
                model, (raw, reached) = self._noticed.popitem()
                try:
                    is_settled = await self._journal.adopt(
                        model, raw, reached, is_signed=self._is_signed
                    )
                except (StoreUnavailableError, PolicyError, HistoryError) as e:
                    _log.warning("policy not adopted", extra={"model": model, "reason": str(e)})
                except Exception as e:  # noqa: BLE001 -- one model's oddity must not end adoption for all
                    faults.note("policies", e, model=model)
                else:
                    if is_settled:
                        self._done[model] = raw, reached
