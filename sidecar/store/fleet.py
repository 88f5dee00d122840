"""Which sidecars live by a store: what each worker tells of itself, and all of it put together.

A worker has a hash `<prefix>:fleet:<sidecar>:<worker>` that expires, and its name in the sorted set
`<prefix>:fleet`, by when it last told, so that nobody has to search among a million pins for it.
No command spans the two: a name without a hash is of a worker that is gone.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from sidecar.errors import StoreUnavailableError
from sidecar.runtime.tasks import repeat
from sidecar.store.base import Instance
from sidecar.store.client import bounded
from sidecar.store.pulse import COUNT, FAULT, REFUSED, REVISION, UNREADY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from redis.asyncio import Redis

    from sidecar.runtime.clock import Clock
    from sidecar.store.keys import Keys
    from sidecar.store.pulse import Pulse

BEAT_EVERY_S: Final = 2.0
EXPIRES_S: Final = 7.0  # a beat may be lost to one call's timeout, and no more
_FORGOTTEN_S: Final = 3600.0  # names of workers that are gone; beyond what clocks differ by
_NUMBER: Final = re.compile(r"[0-9]{1,18}")  # what 64 bits hold, as every reader of JSON does
_log = logging.getLogger("sidecar.store")


class Heart:
    """Tells of one pulse until cancelled: every change at once, everything with each beat."""

    def __init__(self, redis: Redis, keys: Keys, pulse: Pulse, clock: Clock) -> None:
        member = pulse.member
        self._redis = redis
        self._index = keys.fleet
        self._name = f"{member.sidecar}:{member.worker}"
        self._key = keys.member(self._name)
        self._pulse = pulse
        self._clock = clock
        self._told: dict[str, str] = {}
        self._is_failing = False
        self._is_news = False
        self._has_swept = False  # names of workers that are long gone, once is enough

    async def run(self) -> None:
        """Beat; a store that does not answer is told again with the next beat."""
        try:
            await repeat(self._beat, part="heartbeat")
        finally:
            await self._leave()

    async def _beat(self) -> None:
        is_news, self._is_news = self._is_news, False
        await self._try_tell(is_beat=not is_news)
        self._is_news = await self._pulse.noticed(BEAT_EVERY_S)

    async def _try_tell(self, *, is_beat: bool) -> None:
        try:
            await self._tell(is_beat=is_beat)
        except StoreUnavailableError as error:
            if not self._is_failing:  # once: the policy watch tells how long
                _log.warning("heartbeat lost", extra={"reason": str(error)})
            self._is_failing = True
        else:
            self._is_failing = False

    async def _tell(self, *, is_beat: bool) -> None:
        state, told = self._pulse.state(), self._told
        news = {name: value for name, value in state.items() if told.get(name) != value}
        gone = told.keys() - state.keys()
        counters = self._pulse.counters() if is_beat else {}
        # Until it is known to be told: any of it may be there, none of it need be.
        self._told = dict.fromkeys({**told, **state}, "")
        # Without news, too: a store that was emptied may have what was in force, written anew.
        was_there = await self._write({**news, **counters}, gone)
        if not was_there and told:  # flushed, or it expired: what is there now is a part
            await self._write(state, ())
        self._told = state

    async def _write(self, fields: Mapping[str, str], gone: Iterable[str]) -> bool:
        """Write fields, and delete those that are `gone`; return whether the hash was there."""
        now_s = self._clock.now_s()
        expires_ms = int(EXPIRES_S * 1000)
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.pexpire(self._key, expires_ms)
        if fields:
            pipeline.hset(self._key, items=[word for pair in fields.items() for word in pair])
        if names := list(gone):
            pipeline.hdel(self._key, *names)
        pipeline.pexpire(self._key, expires_ms)
        pipeline.zadd(self._index, {self._name: now_s})
        if not self._has_swept:
            pipeline.zremrangebyscore(self._index, "-inf", now_s - _FORGOTTEN_S)
        async with bounded():
            replies = await pipeline.execute()
        self._has_swept = True
        return bool(replies[0])

    async def _leave(self) -> None:
        """Take leave, so that nobody waits for this worker until it expires."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.delete(self._key)
        pipeline.zrem(self._index, self._name)
        try:
            async with bounded():
                await pipeline.execute()
        except StoreUnavailableError:
            _log.debug("left without a word", extra={"key": self._key})


async def read(redis: Redis, keys: Keys, model: str | None = None) -> list[Instance]:
    """Return the live sidecars by name; with `model`, revisions and faults of that one alone.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    told: dict[str, list[Instance]] = defaultdict(list)
    for one in await _workers(redis, keys, () if model is None else _fields_of(model)):
        told[one.name].append(one)
    return [merged(workers) for _, workers in sorted(told.items())]


async def newest(redis: Redis, keys: Keys, model: str) -> int:
    """Return the newest revision of a model that any live worker decides by, 0 when none does.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    workers = await _workers(redis, keys, _fields_of(model))
    return max((one.revisions.get(model, 0) for one in workers), default=0)


async def _workers(redis: Redis, keys: Keys, asked: tuple[str, ...]) -> list[Instance]:
    """Return what each live worker tells: the fields `asked` for, or all."""
    names = await _names(redis, keys)
    if not names:
        return []
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        key = keys.member(name)
        if asked:
            pipeline.hmget(key, asked)
        else:
            pipeline.hgetall(key)
        pipeline.pttl(key)
    async with bounded():
        replies = await pipeline.execute(raise_on_error=False)
    workers = []
    for values, ttl_ms in zip(replies[::2], replies[1::2], strict=True):
        if _is_no_hash(values):
            continue
        pairs = zip(asked, values, strict=True) if asked else values.items()
        fields = {_text(name): _text(value) for name, value in pairs if value is not None}
        if ttl_ms >= 0 and "sidecar" in fields:
            workers.append(_decoded(fields, ttl_ms / 1000))
    return workers


async def _names(redis: Redis, keys: Keys) -> list[str]:
    async with bounded(keys.fleet):
        found = await redis.zrange(keys.fleet, 0, -1)
    return [_text(name) for name in found if isinstance(name, bytes | str)]


def _is_no_hash(reply: object) -> bool:
    """Return whether a key is of no worker: anybody may have written it; raises other errors."""
    if isinstance(reply, RedisError) and "WRONGTYPE" not in str(reply):
        raise StoreUnavailableError(f"Redis: {reply}") from reply
    return isinstance(reply, RedisError)


def told_of(pulse: Pulse) -> Instance:
    """Return what a worker tells of itself, without the way through a store."""
    return _decoded({**pulse.state(), **pulse.counters()}, EXPIRES_S)


def merged(workers: list[Instance]) -> Instance:
    """Return one sidecar from what its workers tell: the oldest revision that any decides by."""
    first, *others = workers
    for one in others:
        first = Instance(
            name=one.name,
            revisions={
                model: min(revision, one.revisions[model])
                for model, revision in first.revisions.items()
                if model in one.revisions
            },
            is_stale=first.is_stale or one.is_stale,
            faults={**first.faults, **one.faults},
            age_s=max(first.age_s, one.age_s),
            workers=first.workers + one.workers,
            program=first.program if first.program == one.program else "mixed",
            started_s=min(first.started_s, one.started_s),
            unready={
                model: tuple(sorted({*first.unready.get(model, ()), *one.unready.get(model, ())}))
                for model in first.unready.keys() | one.unready.keys()
            },
            counters={
                name: first.counters.get(name, 0) + one.counters.get(name, 0)
                for name in first.counters.keys() | one.counters.keys()
            },
            refused={  # of one store: each worker tells of the same keys
                cause: max(first.refused.get(cause, 0), one.refused.get(cause, 0))
                for cause in first.refused.keys() | one.refused.keys()
            },
        )
    return first


def _fields_of(model: str) -> tuple[str, ...]:
    about = ("sidecar", "program", "started", "is_stale")
    return (*about, REVISION + model, FAULT + model, UNREADY + model)


def _decoded(fields: Mapping[str, str], ttl_s: float) -> Instance:
    def under(prefix: str) -> dict[str, str]:
        size = len(prefix)
        return {name[size:]: value for name, value in fields.items() if name.startswith(prefix)}

    return Instance(
        name=fields["sidecar"],
        revisions=_numbers(under(REVISION)),
        is_stale=fields.get("is_stale") == "1",
        faults=under(FAULT),
        age_s=max(0.0, round(EXPIRES_S - ttl_s, 3)),
        program=fields.get("program", ""),
        started_s=_numbers(fields).get("started", 0),
        unready={model: tuple(told.split()) for model, told in under(UNREADY).items()},
        counters=_numbers(under(COUNT)),
        refused=_numbers(under(REFUSED)),
    )


def _numbers(told: Mapping[str, str]) -> dict[str, int]:
    """Return the numbers; anybody may have written what is none."""
    return {name: int(value) for name, value in told.items() if _NUMBER.fullmatch(value)}


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
