"""Shadow tests in Redis: what workers have counted, what copies cost, and pairs that disagreed.

A test is a hash: each worker that runs has a field `<sidecar>/<worker>` with its tally so far,
those that ended share the field `ended`, and `reset` names the last reset. So it grows with the
workers that run, and nothing counts twice, whichever call is repeated.
"""

from __future__ import annotations

import asyncio
import math
from secrets import token_hex
from typing import TYPE_CHECKING, Final

import msgspec

from sidecar.errors import WrongTypeError
from sidecar.model.shadow import Evidence, Tally
from sidecar.shadow.fault import fault
from sidecar.shadow.tally import merge
from sidecar.store.base import Tallied
from sidecar.store.client import bounded
from sidecar.store.keys import BadNameError
from sidecar.store.ring import Ring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from redis.asyncio import Redis

    from sidecar.runtime.clock import Clock
    from sidecar.store.keys import Keys

KEEP_S: Final = 30 * 86_400
MAX_TESTS: Final = 10_000  # that one look reads, the ones told of last
MAX_WORKERS: Final = 10_000  # of a test or a day that are read
MAX_TALLY_BYTES: Final = 8 * 1024 * 1024  # of one worker's; its tables hold a tenth of that
_SPENT_KEEP_S: Final = 3 * 86_400  # a day, whatever clocks say
_ATTEMPTS: Final = 20  # at adding to what others add to as well
_PAGE: Final = 200  # tallies of one read, in which no worker that ends counts twice or not at all
_EVIDENCE_PAGE: Final = 20  # with bodies an entry has a quarter of a megabyte
_RESET: Final = b"reset"
_UNKNOWN: Final = "?"  # no reset is called so
_MAX_FAULT: Final = 200  # characters; names in it are whoever's
_MAX_COUNT: Final = 1 << 53  # past which floats, and many readers of JSON, are not exact
_MOST: Final = {"buckets": 1000, "sizes": 63}  # 2**(1000/16) microseconds; bits of bytes

# KEYS: a test. ARGV: a worker, its tally, the reset that it counts from, seconds to live.
_PUT = """
local reset = redis.call('HGET', KEYS[1], 'reset') or ''
if ARGV[3] ~= '?' and reset ~= ARGV[3] then
  if reset ~= '' then return reset end
  reset = ARGV[3]  -- lost with all the rest
  redis.call('HSET', KEYS[1], 'reset', reset)
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return reset
"""
# KEYS: a test. ARGV: a worker, what those that ended have counted, the same with this worker's.
# A worker that has no field is among them already: its answer got lost, or somebody reset the test.
_SETTLE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 1 end
if (redis.call('HGET', KEYS[1], 'ended') or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'ended', ARGV[3])
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
"""
# KEYS: a test. ARGV: what the reset is called, seconds to live.
_FORGET = """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'reset', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
"""
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Tally).decode


class Shadows:
    """Reads and writes what is kept of shadow tests. No command spans two keys."""

    def __init__(self, redis: Redis, keys: Keys, clock: Clock) -> None:
        self._redis = redis
        self._keys = keys
        self._clock = clock
        self._ring = Ring(redis, "evidence", Evidence, page=_EVIDENCE_PAGE)

    async def put(self, tally: Tally, worker: str, reset: str | None) -> str:
        """Store a worker's tally, unless it is of a time before the last reset; return that.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        key = self._key(tally)
        since = _UNKNOWN if reset is None else reset
        async with bounded(key):
            told = await self._redis.eval(_PUT, 1, key, worker, _encode(tally), since, str(KEEP_S))
        index = self._keys.shadows
        now_s = self._clock.now_s()
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.zadd(index, {key.removeprefix(f"{index}:"): now_s})
        pipeline.zremrangebyscore(index, "-inf", now_s - KEEP_S)
        async with bounded(index):
            await pipeline.execute()
        return _text(told)

    async def last_reset(self, model: str, version: str, test: str) -> str:
        """Return what the last reset of a test is called; empty if none is known.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        key = self._keys.shadow(model, version, test)
        async with bounded(key):
            return _text(await self._redis.hget(key, _RESET) or b"")

    async def settle(self, tally: Tally, worker: str) -> None:
        """Add a worker's stored tally to that of the workers that ended.

        Where that is no tally, or others add to it all the time, it stays by itself.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        key = self._key(tally)
        for _ in range(_ATTEMPTS):
            async with bounded(key):
                before = await self._redis.hget(key, "ended") or b""
            # In a thread: to look through a large one takes longer than a loop may stand still.
            together = await asyncio.to_thread(_together, before, tally, key)
            if together is None:
                return
            async with bounded(key):
                is_done = await self._redis.eval(_SETTLE, 1, key, worker, before, together)
            if int(is_done):
                return

    async def tallies(self, model: str | None) -> Tallied:
        """Return the tallies of the tests of a model, or of all, by worker.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        tallies: list[Tally] = []
        faults: list[str] = []
        for key in await self._tests(model or ""):
            try:
                async for told in self._of_test(key):
                    (faults if isinstance(told, str) else tallies).append(told)  # type: ignore[arg-type]
            except WrongTypeError as error:
                faults.append(str(error))
        return Tallied(tuple(tallies), tuple(faults))

    async def forget(self, model: str, version: str) -> int:
        """Reset the tests of a shadow, and forget its evidence; return how many there were.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        evidence = self._keys.evidence(model, version)
        tests = await self._tests(model, version)
        for key in tests:
            async with bounded(key):
                await self._redis.eval(_FORGET, 1, key, token_hex(6), str(KEEP_S))
        async with bounded(evidence):
            await self._redis.delete(evidence)
        return len(tests)

    async def spend(self, key: str, worker: str, amount: float) -> float:
        """Store what a worker has spent under a key of `Keys.spent`; return the sum of all.

        What is no amount does not count: anybody may have written it.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hset(key, worker, repr(amount))
        pipeline.expire(key, _SPENT_KEEP_S)
        pipeline.hlen(key)
        async with bounded(key):
            *_, number = await pipeline.execute()
        if number > MAX_WORKERS:
            raise WrongTypeError(f"{key} has {number} fields, more than there are workers: DEL it")
        async with bounded(key):
            return math.fsum(_amounts(await self._redis.hvals(key)))

    async def add_evidence(self, key: str, evidence: Sequence[Evidence], keep: int) -> None:
        """Add pairs to a stream of `Keys.evidence`, of which about `keep` stay.

        Raises:
            StoreUnavailableError: Redis did not answer; some may have been added.
        """
        now_s = self._clock.now_s()
        await self._ring.add(key, evidence, keep=keep, keep_s=KEEP_S, now_s=now_s)

    def evidence(self, key: str) -> AsyncIterator[Evidence | None]:
        """Iterate over the pairs of a stream, newest first; None is an entry that is none.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        return self._ring.newest(key)

    def _key(self, tally: Tally) -> str:
        return self._keys.shadow(tally.model, tally.version, tally.test)

    async def _tests(self, *names: str) -> list[str]:
        """Return the keys of the tests that begin with these names, sorted."""
        index = self._keys.shadows
        async with bounded(index):
            told = await self._redis.zrevrange(index, 0, MAX_TESTS - 1)
        wanted = [name for name in names if name]
        known = [_text(one).split(":") for one in told if isinstance(one, bytes | str)]
        keys = [self._spelled(parts) for parts in known if parts[: len(wanted)] == wanted]
        return sorted(filter(None, keys))

    def _spelled(self, parts: Sequence[str]) -> str:
        """Return the key of a test; nothing for what is none: anybody may have written it."""
        if len(parts) != 3:  # noqa: PLR2004 -- model, version, test
            return ""
        try:
            return self._keys.shadow(*parts)
        except BadNameError:
            return ""

    async def _of_test(self, key: str) -> AsyncIterator[Tally | str]:
        """Iterate over the tallies of a test, or why one is none."""
        async with bounded(key):
            number = await self._redis.hlen(key)
        if number > MAX_WORKERS:
            yield f"{key}: has {number} fields, more than there are workers; none is read"
            return
        async with bounded(key):
            fields = [field for field in await self._redis.hkeys(key) if field != _RESET]
        for start in range(0, len(fields), _PAGE):
            page = fields[start : start + _PAGE]
            large = await self._large(key, page)
            for field in large:
                yield f"{key} {_text(field)}: has more bytes than a tally has"
            if fit := [field for field in page if field not in large]:
                async with bounded(key):
                    values = await self._redis.hmget(key, fit)
                for field, value in zip(fit, values, strict=True):
                    told = None if value is None else _read(value, key)  # None: settled just now
                    if told is not None:
                        yield f"{key} {_text(field)}: {told}" if isinstance(told, str) else told

    async def _large(self, key: str, fields: Sequence[bytes | str]) -> list[bytes | str]:
        """Return those of the fields that hold more than a tally may have."""
        pipeline = self._redis.pipeline(transaction=False)
        for field in fields:
            pipeline.hstrlen(key, _text(field))
        async with bounded(key):
            sizes = await pipeline.execute()
        return [field for field, size in zip(fields, sizes, strict=True) if size > MAX_TALLY_BYTES]


def _together(before: bytes | str, tally: Tally, key: str) -> bytes | None:
    """Return a tally added to what a field of `key` holds; None where that is no tally."""
    known = _read(before, key) if before else None
    if isinstance(known, str):
        return None
    return _encode(tally if known is None else merge([known, tally]))


def _read(raw: bytes | str, key: str) -> Tally | str:
    """Return the tally that a field of `key` holds, or why it is none."""
    try:
        tally = _decode(raw)
    except msgspec.DecodeError as error:
        return f"is no tally: {error}"
    except RecursionError:
        return "is no tally: lists in lists without end"
    if not key.endswith(f":{tally.model}:{tally.version}:{tally.test}"):
        return f"is of another test: {tally.model}:{tally.version}:{tally.test}"
    untrue = next(_untrue(msgspec.to_builtins(tally), ""), "") or fault(tally)
    return untrue[:_MAX_FAULT] or tally


def _untrue(told: object, path: str) -> Iterator[str]:
    """Yield what cannot have been counted."""
    if isinstance(told, dict):
        most = _MOST.get(path.rpartition(".")[2], _MAX_COUNT)
        for name, one in told.items():
            if isinstance(name, int) and not 0 <= name <= most:
                yield f"{path} has {name}"
            yield from _untrue(one, f"{path}.{name}".lstrip("."))
    elif (isinstance(told, int) and not 0 <= told <= _MAX_COUNT) or (
        isinstance(told, float) and not math.isfinite(told)
    ):
        yield f"{path} is {told}"


def _amounts(values: Iterable[bytes | str]) -> Iterator[float]:
    for value in values:
        try:
            amount = float(value)
        except ValueError:
            continue
        if 0 <= amount < math.inf:
            yield amount


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
