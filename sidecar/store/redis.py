"""The store in Redis or Valkey: one server, Sentinel or Cluster."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import structs
from redis.exceptions import RedisError, ResponseError

from sidecar.errors import HistoryError, StoreConflictError, StoreUnavailableError
from sidecar.policy import codec
from sidecar.policy.problem import PolicyError
from sidecar.runtime.clock import SystemClock
from sidecar.store import document, fleet
from sidecar.store.adoption import MAX_REVISION
from sidecar.store.audits import AuditStream
from sidecar.store.base import (
    Cutoff,
    HistoryEntry,
    Kill,
    Pin,
    RevokedToken,
    StoredPolicy,
    cutoff_of,
)
from sidecar.store.client import bounded
from sidecar.store.contexts import ContextRing
from sidecar.store.doubts import NO_TEXT
from sidecar.store.journal import Journal
from sidecar.store.keys import (
    MAX_TENANT,
    CutoffKey,
    Keys,
    KillKey,
    PinKey,
    PolicyKey,
    RevokedKey,
    model_of,
)
from sidecar.store.link import open_link
from sidecar.store.seal import Sealing, bare, renewed
from sidecar.store.shadows import Shadows
from sidecar.store.watch import Watcher, WatchTiming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from sidecar.model.context import Context, ContextSettings
    from sidecar.model.policy import Policy
    from sidecar.model.shadow import Evidence, Tally
    from sidecar.runtime.clock import Clock
    from sidecar.store.base import Instance, Tallied
    from sidecar.store.live import LivePolicies
    from sidecar.store.pulse import Pulse
    from sidecar.store.tracking import Tracking

# KEYS: the document. ARGV: the expected bytes, none for a value of another type than string.
_COMPARE_AND_DELETE = """
local current = redis.pcall('GET', KEYS[1])
if type(current) == 'table' then current = '' end
if not current then return 0 end
if current ~= ARGV[1] then return -1 end
return redis.call('DEL', KEYS[1])
"""
_GONE = -2  # what PTTL answers for a key that does not exist
_ATTEMPTS = 3  # at a commit whose revision is taken before it is recorded
_PAGE = 1000  # keys that one SCAN step looks at: under a millisecond of the server's time


class RedisStore(Sealing):
    """`Store` on what a URL names: see `link`.

    Nothing is connected before the first call.

    Raises:
        ConfigError: the URL cannot be used.
    """

    def __init__(
        self,
        url: str,
        keys: Keys | None = None,
        *,
        clock: Clock | None = None,
        timing: WatchTiming | None = None,
    ) -> None:
        super().__init__()
        self._keys = keys or Keys()
        self._link = open_link(url)
        self._redis = self._link.redis
        self._contexts = ContextRing(self._redis, self._keys)
        self._audit = AuditStream(self._redis, self._keys)
        self._clock = clock or SystemClock()
        self._shadows = Shadows(self._redis, self._keys, self._clock)
        self._journal = Journal(self._redis, self._keys, self._clock)
        self._timing = timing or WatchTiming()

    async def get_document(self, model: str) -> bytes | None:
        """Return a model's document as it is stored, valid or not."""
        key = self._keys.policy(model)
        async with bounded():
            try:
                return _bytes(await self._redis.get(key))
            except ResponseError as e:
                if not _is_of_another_type(e):
                    raise
        raise document.no_string(key)

    async def get_policy(self, model: str) -> StoredPolicy | None:
        """Return a model's policy, or None; raises PolicyError when it is not valid."""
        raw = await self.get_document(model)
        if raw is None:
            return None
        source = self._keys.policy(model)
        return StoredPolicy(raw, document.load(raw, model=model, source=source))

    async def models(self) -> list[str]:
        """Return the models that have a document, sorted."""
        found = {
            key.model
            async for page in self._pages(self._keys.policy_pattern)
            for key in map(self._keys.parse, page)
            if isinstance(key, PolicyKey)
        }
        return sorted(found)

    async def stray_documents(self) -> list[str]:
        """Return the keys where a document would be of a model that no policy can name."""
        found = {
            key.decode("utf-8", "backslashreplace")
            async for page in self._pages(self._keys.policy_pattern)
            for key in page
            if self._keys.parse(key) is None
        }
        return sorted(found)

    async def named_models(self) -> list[str]:
        """Return the models that any document, pin or kill names, sorted."""
        found = {
            model_of(key)
            async for page in self._pages(self._keys.watched_pattern)
            for key in map(self._keys.parse, page)
            if key is not None
        }
        return sorted(found - {""})

    async def commit(
        self, policy: Policy, *, expected: bytes | None, actor: str, comment: str
    ) -> Policy:
        """Store `policy` as the next revision if the stored bytes still are `expected`."""
        model = policy.model
        source = self._keys.policy(model)
        # As every reader will have it: a signature is over that.
        policy = document.checked(policy, source)
        if await self.get_document(model) != expected:
            raise StoreConflictError(f"{source} changed since it was read")
        if expected is not None:
            await self._settle(model, expected)
        for _ in range(_ATTEMPTS):
            revision = await self._next_revision(model)
            committed = structs.replace(
                policy, revision=revision, actor=actor, comment=comment, signature=""
            )
            if self.signer is not None:
                committed = self.signer.policy(committed)
            raw = codec.encode(committed)
            if not await self._journal.compare_and_set(model, expected, raw):
                raise StoreConflictError(f"{source} changed since it was read")
            if await self._journal.record(committed, raw):
                return committed
            expected = raw  # its revision was taken meanwhile: the same again, as the next one
        key = self._keys.history(model)
        raise HistoryError(
            f"{source} is committed, but {key} did not take it: others add to it all the time. "
            "A sidecar commits it anew when they no longer do"
        )

    async def delete_policy(self, model: str, expected: bytes | None = None) -> bool:
        """Remove a model's document if it is `expected` (None: whatever it is)."""
        key = self._keys.policy(model)
        if expected is None:
            return await self._delete(key)
        async with bounded():
            reply = int(await self._redis.eval(_COMPARE_AND_DELETE, 1, key, expected))
        if reply < 0:
            raise StoreConflictError(f"{key} changed since it was read")
        return reply > 0

    async def set_pin(
        self, model: str, tenant: str, version: str, ttl_s: float | None = None
    ) -> None:
        """Hold `tenant` to `version`, for `ttl_s` seconds when given."""
        await self._write(PinKey(model, tenant), self._keys.pin(model, tenant), version, ttl_s)

    async def delete_pin(self, model: str, tenant: str) -> bool:
        """Let a tenant go; return whether it was pinned."""
        return await self._end(PinKey(model, tenant), self._keys.pin(model, tenant))

    async def pins(self, model: str) -> AsyncIterator[Pin]:
        """Iterate over the pins of a model, in no order."""
        seen: set[str] = set()  # SCAN may return a key twice
        async for page in self._pages(self._keys.pins_pattern(model)):
            for raw, text, ttl_s in await self._values(page):
                key, value = self._keys.parse(raw), bare(text)
                if not isinstance(key, PinKey) or key.tenant in seen:
                    continue
                seen.add(key.tenant)
                if text is None or value is not None:
                    yield Pin(key.tenant, value or "", ttl_s, self._fault(key, text))

    async def pins_of(self, model: str, tenants: Collection[str]) -> dict[str, str]:
        """Return the version that each of these tenants is pinned to, of those who are."""
        named = [tenant for tenant in tenants if 0 < len(tenant) <= MAX_TENANT]
        found: dict[str, str] = {}
        for start in range(0, len(named), _PAGE):
            page = named[start : start + _PAGE]
            pipeline = self._redis.pipeline(transaction=False)
            for tenant in page:
                pipeline.get(self._keys.pin(model, tenant))
            async with bounded():
                values = await pipeline.execute(raise_on_error=False)
                for tenant, value in zip(page, values, strict=True):
                    if isinstance(value, bytes):
                        text = value.decode("utf-8", "replace").strip()
                        if version := self._believed(PinKey(model, tenant), text):
                            found[tenant] = version
                    elif isinstance(value, RedisError) and not _is_of_another_type(value):
                        raise value
        return found

    async def set_kill(
        self, model: str, version: str, reason: str, ttl_s: float | None = None
    ) -> None:
        """Switch a version off, or the whole model when `version` is empty."""
        await self._write(KillKey(model, version), self._keys.kill(model, version), reason, ttl_s)

    async def delete_kill(self, model: str, version: str = "") -> bool:
        """Switch it on again; return whether it was off."""
        return await self._end(KillKey(model, version), self._keys.kill(model, version))

    async def kills(self, model: str) -> list[Kill]:
        """Return what is switched off in a model, sorted by version."""
        kills = [
            Kill(key.version, bare(text) or "", ttl_s, self._fault(key, text))
            for raw, text, ttl_s in await self._kill_values(model)
            if isinstance(key := self._keys.parse(raw), KillKey)
            and (text is None or bare(text) is not None)
        ]
        return sorted(kills, key=lambda kill: kill.version)

    async def marks(self, model: str) -> AsyncIterator[tuple[PinKey | KillKey, str, float | None]]:
        """Iterate over the kills, then the pins of a model, with what their keys hold."""
        for raw, text, ttl_s in await self._kill_values(model):
            if text is not None and isinstance(key := self._keys.parse(raw), KillKey):
                yield key, text, ttl_s
        seen: set[str] = set()  # SCAN may return a key twice
        async for page in self._pages(self._keys.pins_pattern(model)):
            for raw, text, ttl_s in await self._values(page):
                pin = self._keys.parse(raw)
                if text is not None and isinstance(pin, PinKey) and pin.tenant not in seen:
                    seen.add(pin.tenant)
                    yield pin, text, ttl_s

    def _fault(self, key: PinKey | KillKey, text: str | None) -> str:
        return NO_TEXT if text is None else self._reader.doubt_of_mark(key, text)

    def _believed(self, key: PinKey, text: str) -> str | None:
        return None if self._fault(key, text) else bare(text)

    async def _kill_values(self, model: str) -> list[tuple[bytes, str | None, float | None]]:
        found = {self._keys.kill(model).encode()}
        async for page in self._pages(self._keys.kills_pattern(model)):
            found.update(page)
        return await self._values(sorted(found))

    async def set_revoked(self, jti: str, reason: str, ttl_s: float | None = None) -> None:
        """Take the token of this `jti` back, for `ttl_s` seconds when given."""
        await self._set(self._keys.revoked(jti), reason, ttl_s)

    async def delete_revoked(self, jti: str) -> bool:
        """Believe the token of this `jti` again; return whether it was taken back."""
        return await self._delete(self._keys.revoked(jti))

    async def revoked(self) -> AsyncIterator[RevokedToken]:
        """Iterate over the tokens that are taken back by their `jti`, in no order."""
        seen: set[str] = set()  # SCAN may return a key twice
        async for page in self._pages(self._keys.revocations_pattern):
            for raw, value, ttl_s in await self._values(page):
                key = self._keys.parse(raw)
                if isinstance(key, RevokedKey) and key.jti not in seen:
                    seen.add(key.jti)
                    fault = NO_TEXT if value is None else ""
                    yield RevokedToken(key.jti, value or "", ttl_s, fault)

    async def set_cutoff(self, tenant: str, before_s: float, ttl_s: float | None = None) -> None:
        """Take back the tokens of a tenant that were made before `before_s`, epoch seconds."""
        await self._set(self._keys.cutoff(tenant), repr(before_s), ttl_s)

    async def delete_cutoff(self, tenant: str) -> bool:
        """Believe a tenant's older tokens again; return whether they were taken back."""
        return await self._delete(self._keys.cutoff(tenant))

    async def cutoffs(self) -> list[Cutoff]:
        """Return the tenants whose older tokens are taken back, sorted."""
        found: dict[str, Cutoff] = {}
        async for page in self._pages(self._keys.revocations_pattern):
            for raw, value, ttl_s in await self._values(page):
                key = self._keys.parse(raw)
                if isinstance(key, CutoffKey):
                    found[key.tenant] = cutoff_of(key.tenant, value, ttl_s)
        return [found[tenant] for tenant in sorted(found)]

    async def history(self, model: str, limit: int = 100) -> list[HistoryEntry]:
        """Return the newest committed revisions of a model, newest first."""
        return await self._journal.entries(model, limit)

    async def add_contexts(
        self, model: str, contexts: Sequence[Context], settings: ContextSettings
    ) -> None:
        """Keep contexts of a model's requests, about `per_model` of them and for `keep_s`."""
        await self._contexts.add(model, contexts, settings)

    def contexts(self, model: str) -> AsyncIterator[Context | None]:
        """Iterate over the contexts that are kept of a model, None for what is no context."""
        return self._contexts.newest(model)

    async def put_tally(self, tally: Tally, worker: str, reset: str | None = None) -> str:
        """Store what a worker has counted of a shadow test; return what its last reset is called.

        Where that is not `reset`, and that is given, nothing is stored.
        """
        return await self._shadows.put(tally, worker, reset)

    async def last_reset(self, model: str, version: str, test: str) -> str:
        """Return what the last reset of a test is called; empty if none is known."""
        return await self._shadows.last_reset(model, version, test)

    async def settle_tally(self, tally: Tally, worker: str) -> None:
        """Put a stored tally together with those of workers that ended."""
        await self._shadows.settle(tally, worker)

    async def tallies(self, model: str | None = None) -> Tallied:
        """Return what workers have counted of the shadow tests of a model, or of all."""
        return await self._shadows.tallies(model)

    async def reset_shadow(self, model: str, version: str) -> int:
        """Forget counts and evidence of a shadow; return how many tests begin anew."""
        return await self._shadows.forget(model, version)

    async def spend(self, model: str, version: str, day: str, worker: str, amount: float) -> float:
        """Store what a worker's copies to a shadow have cost on a UTC day; return the sum."""
        return await self._shadows.spend(self._keys.spent(model, version, day), worker, amount)

    async def add_evidence(
        self, model: str, version: str, evidence: Sequence[Evidence], keep: int
    ) -> None:
        """Keep pairs in which a shadow disagreed, about `keep` of them, for 30 days."""
        await self._shadows.add_evidence(self._keys.evidence(model, version), evidence, keep)

    def evidence(self, model: str, version: str) -> AsyncIterator[Evidence | None]:
        """Iterate over the pairs that are kept of a shadow, None for what is none."""
        return self._shadows.evidence(self._keys.evidence(model, version))

    async def is_audited(self) -> bool:
        """Return whether there is a stream of audit."""
        return await self._audit.exists()

    async def add_audit(self, lines: Sequence[bytes], keep: int) -> None:
        """Add entries of audit; of more than about `keep` the oldest go, of fewer none."""
        await self._audit.add(lines, keep)

    def audit(self, after: str = "") -> AsyncIterator[tuple[str, bytes]]:
        """Iterate over ids and lines of audit, the oldest first, from the one after an id."""
        return self._audit.read(after)

    async def fleet(self, model: str | None = None) -> list[Instance]:
        """Return the live sidecars by name, with `model` what they tell of that one alone."""
        return await fleet.read(self._redis, self._keys, model)

    async def beat(self, pulse: Pulse) -> None:
        """Tell of a worker until cancelled, each change at once; nothing else ends it."""
        await fleet.Heart(self._redis, self._keys, pulse, self._clock).run()

    async def watch(self, live: LivePolicies) -> None:
        """Keep `live` current until cancelled; nothing else ends it."""
        self._journal.on_adopted = live.on_adopted
        await Watcher(self._track, self._keys, live, self._journal, self._timing).run()

    async def close(self) -> None:
        """Let go of every connection, whatever state they are in."""
        with suppress(StoreUnavailableError):  # a server that hangs answers no goodbye of TLS
            await self._link.close()

    def _track(self) -> Tracking:
        return self._link.track(self._keys)

    async def _next_revision(self, model: str) -> int:
        """Return the revision above all that the history had and that any sidecar decides by."""
        last = await self._journal.last_revision(model)
        # Sidecars may have seen more than a history that went back; they would refuse the next.
        told = await fleet.newest(self._redis, self._keys, model)
        return max(last, told if told <= MAX_REVISION else 0) + 1

    async def _settle(self, model: str, current: bytes) -> None:
        """Make sure that the history has the document which a commit is about to replace."""
        with suppress(PolicyError):  # replacing a broken document is how it is mended
            policy = codec.load(current, source=self._keys.policy(model))
            if 0 < policy.revision <= MAX_REVISION:
                await self._journal.record(policy, current)

    async def _write(
        self, key: PinKey | KillKey, spelled: str, value: str, ttl_s: float | None
    ) -> None:
        if self.signer is not None:
            found = await self._values([spelled.encode()])
            before = found[0][1] if found else None
            now_s = self._clock.now_s()
            value = renewed(self.signer, key, value, ttl_s=ttl_s, before=before, now_s=now_s)
        await self._set(spelled, value, ttl_s)

    async def _end(self, key: PinKey | KillKey, spelled: str) -> bool:
        if self.signer is None:
            return await self._delete(spelled)
        await self._write(key, spelled, "", None)
        return True

    async def _set(self, key: str, value: str, ttl_s: float | None) -> None:
        ttl_ms = None if ttl_s is None else max(1, round(ttl_s * 1000))
        async with bounded():
            await self._redis.set(key, value, px=ttl_ms)

    async def _delete(self, key: str) -> bool:
        async with bounded():
            return await self._redis.delete(key) > 0

    def _pages(self, pattern: str) -> AsyncIterator[list[bytes]]:
        """Iterate over the keys that match, a page at a time; a key may come twice."""
        return self._link.pages(pattern, _PAGE)

    async def _values(self, keys: list[bytes]) -> list[tuple[bytes, str | None, float | None]]:
        """Return key, value (None: no string) and seconds to live (None: for ever) of `keys`.

        Those that do not exist are left out.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
            pipeline.pttl(key)
        async with bounded():
            replies = await pipeline.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, RedisError) and not _is_of_another_type(reply):
                    raise reply
        return [
            (
                key,
                value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else None,
                ttl_ms / 1000 if ttl_ms >= 0 else None,
            )
            for key, value, ttl_ms in zip(keys, replies[::2], replies[1::2], strict=True)
            if ttl_ms != _GONE
        ]


def _is_of_another_type(error: RedisError) -> bool:
    return str(error).startswith("WRONGTYPE")


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
