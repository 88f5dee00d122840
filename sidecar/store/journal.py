"""The history of committed revisions in Redis, and the one way to change a document."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, structs
from redis.exceptions import ResponseError

from sidecar.errors import HistoryError
from sidecar.model.policy import Policy
from sidecar.policy import codec
from sidecar.policy.steps import letting_go
from sidecar.runtime.slices import in_slices, lasting
from sidecar.store.adoption import DIRECT, LAST_REVISION, Adoption, judge, readopted
from sidecar.store.base import HistoryEntry
from sidecar.store.client import bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redis.asyncio import Redis
    from redis.typing import EncodableT, FieldT

    from sidecar.runtime.clock import Clock
    from sidecar.store.keys import Keys

_log = logging.getLogger("sidecar.store")

# KEYS: the document. ARGV: whether one is expected, the expected bytes, the new bytes, whether the
# key keeps its TTL. A document that already is the new one was written by this very call before a
# retry.
_COMPARE_AND_SET = """
local current = redis.call('GET', KEYS[1])
if current == ARGV[3] then return 1 end
if current ~= (ARGV[1] == '1' and ARGV[2]) then return 0 end
if ARGV[4] == '1' then
  redis.call('SET', KEYS[1], ARGV[3], 'KEEPTTL')
else
  redis.call('SET', KEYS[1], ARGV[3])
end
return 1
"""
# KEYS: the document. ARGV: a digest of it, for a document may be large.
_STANDS = "return redis.sha1hex(redis.call('GET', KEYS[1]) or '') == ARGV[1]"
# KEYS: a history. Its last id outlives the entries which XDEL and XTRIM remove.
_LAST_ID = """
local told = redis.pcall('XINFO', 'STREAM', KEYS[1])
if told.err then return string.find(told.err, 'no such key') and '0-0' or told end
for i = 1, #told, 2 do
  if told[i] == 'last-generated-id' then return told[i + 1] end
end
"""
_ID_TAKEN = "equal or smaller"  # in XADD's error, of Redis and Valkey alike


class _Heading(Struct):
    """What a document says of its commit."""

    revision: int = 0
    actor: str = ""
    comment: str = ""


_decode_heading = msgspec.json.Decoder(_Heading).decode


class Journal:
    """Documents by compare-and-set, history by revision. No command spans two keys."""

    def __init__(self, redis: Redis, keys: Keys, clock: Clock) -> None:
        self._redis = redis
        self._keys = keys
        self._clock = clock
        self.on_adopted: Callable[[Policy], None] | None = None
        """Called with the heading of each document that `adopt` brought into the history."""

    async def compare_and_set(
        self, model: str, expected: bytes | None, raw: bytes, *, keeps_ttl: bool = False
    ) -> bool:
        """Store `raw` if the stored bytes are `expected`; return whether they were.

        It stays until somebody changes it, or with `keeps_ttl` as long as what was there.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        key = self._keys.policy(model)
        is_expected = "0" if expected is None else "1"
        async with bounded():
            reply = await self._redis.eval(
                _COMPARE_AND_SET, 1, key, is_expected, expected or b"", raw, str(int(keeps_ttl))
            )
        return int(reply) == 1

    async def record(self, policy: Policy, raw: bytes) -> bool:
        """Add a committed document to the history; return whether it stands there as its revision.

        It does not when another one has that revision, or one above it was there before.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        key, digest = self._keys.history(policy.model), codec.digest(raw)
        fields: dict[FieldT, EncodableT] = {
            "actor": policy.actor or DIRECT,
            "comment": policy.comment,
            "at": f"{self._clock.now_s():.3f}",
            "digest": digest,
            "document": raw,
        }
        async with bounded(key):
            try:
                await self._redis.xadd(key, fields, id=f"{policy.revision}-0")
            except ResponseError as e:
                if _ID_TAKEN not in str(e):
                    raise
            else:
                return True
        return await self._recorded(policy.model, policy.revision) == digest

    async def entries(self, model: str, limit: int) -> list[HistoryEntry]:
        """Return the newest entries, newest first.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        key = self._keys.history(model)
        async with bounded(key):
            found = await self._redis.xrevrange(key, count=limit)
        return [_entry(at, fields) for at, fields in found or ()]

    async def last_revision(self, model: str) -> int:
        """Return the newest revision that the history has or had, 0 when there never was one.

        Raises:
            HistoryError: no revision can follow it.
            StoreUnavailableError: Redis did not answer.
        """
        key = self._keys.history(model)
        async with bounded(key):
            told = _bytes(await self._redis.eval(_LAST_ID, 1, key)).decode()
        last = int(told.partition("-")[0])
        if last >= LAST_REVISION:
            raise HistoryError(
                f"{key}: no revision can follow its last id, {told}, so nothing was committed. "
                f"Put it aside (`RENAME {key} {key}:old`): it begins anew after the stored document"
            )
        return last

    async def adopt(
        self, model: str, raw: bytes, reached: int = 0, *, is_signed: bool = False
    ) -> bool:
        """Bring a valid document that was seen in the store into the history, if it is not there.

        `reached` is the newest revision of the model that was seen in force. Any number of
        processes may do so at once: they end with one entry. Returns False for a document that
        is not to be served: the store went back. One that `is_signed` is never committed anew.

        Raises:
            HistoryError: the history does not take it, for now or until it is mended.
            StoreUnavailableError: Redis did not answer.
        """
        policy = await self._heading(model, raw)
        last = await self.last_revision(model)
        recorded = await self._recorded(model, policy.revision) if last else None
        digest = codec.digest(raw)
        match judge(policy.revision, digest, last=last, recorded=recorded, reached=reached):
            case Adoption.NONE:
                return True
            case Adoption.REFUSE:
                _log.error(
                    "store went back: serving the newer policy",
                    extra={"model": model, "revision": policy.revision, "in_force": reached},
                )
                return False
            case Adoption.RECORD:
                if not await self._stands(model, raw):
                    return True  # it is gone by now: an entry would claim that the store has it
                await self._expect_recorded(policy, raw)
            case Adoption.COMMIT:
                policy = self._next(policy, max(last, reached), is_signed=is_signed)
                committed = await self._as_committed(raw, policy)
                # Whoever wrote it said when it ends: it is still their document.
                if not await self.compare_and_set(model, raw, committed, keeps_ttl=True):
                    return True  # somebody was faster; what they wrote is judged in its turn
                await self._expect_recorded(policy, committed)
        _log.info("policy adopted", extra={"model": model, "revision": policy.revision})
        if self.on_adopted is not None:
            self.on_adopted(policy)
        return True

    def _next(self, policy: Policy, last: int, *, is_signed: bool) -> Policy:
        if is_signed:
            raise HistoryError(
                f"{self._keys.history(policy.model)}: revision {policy.revision} is another one "
                "there, and a sidecar cannot sign the next"
            )
        return readopted(policy, last=last)

    async def _expect_recorded(self, policy: Policy, raw: bytes) -> None:
        if not await self.record(policy, raw):
            key = self._keys.history(policy.model)
            raise HistoryError(f"{key}: revision {policy.revision} was taken by another meanwhile")

    async def _heading(self, model: str, raw: bytes) -> Policy:
        """Return what a document says of its commit, without the rest: that may be much."""
        try:
            said = _decode_heading(raw)
        except msgspec.DecodeError:  # it is YAML
            policy = await in_slices(codec.decoding(raw, source=self._keys.policy(model)))
            said = _Heading(policy.revision, policy.actor, policy.comment)
        return Policy(
            model=model,
            versions={},
            revision=said.revision,
            actor=said.actor,
            comment=said.comment,
        )

    async def _stands(self, model: str, raw: bytes) -> bool:
        """Return whether the stored bytes of a model are `raw`."""
        digest = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        async with bounded():
            reply = await self._redis.eval(_STANDS, 1, self._keys.policy(model), digest)
        return reply == 1 or reply is True

    async def _as_committed(self, raw: bytes, heading: Policy) -> bytes:
        """Spell a document as that of another commit."""
        with lasting():  # it does not last, but nothing of it is garbage before it goes
            policy = await in_slices(codec.decoding(raw, source=self._keys.policy(heading.model)))
            kept: list[object] = [policy]
            policy = structs.replace(
                policy, revision=heading.revision, actor=heading.actor, comment=heading.comment
            )
            committed = codec.encode(policy)
            del policy
            await in_slices(letting_go(kept))
        return committed

    async def _recorded(self, model: str, revision: int) -> str | None:
        """Return the digest of a revision in the history."""
        key, at = self._keys.history(model), f"{revision}-0"
        async with bounded(key):
            found = await self._redis.xrange(key, at, at, count=1)
        return _entry(*found[0]).digest if found else None


def _entry(
    at: bytes | str | None, fields: Mapping[bytes | str, bytes | str] | None
) -> HistoryEntry:
    members = {_bytes(name): _bytes(value) for name, value in (fields or {}).items()}
    return HistoryEntry(
        revision=int(_bytes(at or b"0").partition(b"-")[0]),
        actor=members.get(b"actor", b"").decode("utf-8", "replace"),
        comment=members.get(b"comment", b"").decode("utf-8", "replace"),
        at_s=_seconds(members.get(b"at", b"0")),
        digest=members.get(b"digest", b"").decode("utf-8", "replace"),
        document=members.get(b"document", b""),
    )


def _seconds(written: bytes) -> float:
    """Read a time that anybody may have written; what is no time counts as the epoch."""
    try:
        return float(written)
    except ValueError:
        return 0.0


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value  # the client is told not to decode
