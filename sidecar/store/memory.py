"""The store in this process's memory: the same promises, for tests and for trying things out."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from secrets import token_hex
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import structs

from sidecar.errors import StoreConflictError
from sidecar.model.shadow import Tally
from sidecar.policy import codec
from sidecar.policy.problem import PolicyError
from sidecar.runtime.clock import SystemClock
from sidecar.shadow.tally import merge
from sidecar.store import document
from sidecar.store.adoption import DIRECT, Adoption, judge, readopted
from sidecar.store.base import (
    Cutoff,
    HistoryEntry,
    Kill,
    Pin,
    RevokedToken,
    StoredPolicy,
    Tallied,
    cutoff_of,
)
from sidecar.store.fleet import merged, told_of
from sidecar.store.keys import CutoffKey, Key, Keys, KillKey, PinKey, PolicyKey, RevokedKey
from sidecar.store.live import Contents
from sidecar.store.seal import Sealing, bare, renewed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from sidecar.model.context import Context, ContextSettings
    from sidecar.model.policy import Policy
    from sidecar.model.shadow import Evidence
    from sidecar.runtime.clock import Clock
    from sidecar.store.base import Instance
    from sidecar.store.live import LivePolicies
    from sidecar.store.pulse import Pulse

_ENDED: Final = ""  # what workers that ended have counted; no worker is called so


class MemoryStore(Sealing):
    """`Store` without a server; a change is live before the call that made it returns."""

    def __init__(self, keys: Keys | None = None, *, clock: Clock | None = None) -> None:
        super().__init__()
        self._keys = keys or Keys()
        self._clock = clock or SystemClock()
        self._contents = Contents()
        self._history: dict[str, list[HistoryEntry]] = defaultdict(list)  # oldest first
        self._samples: dict[str, list[Context]] = defaultdict(list)
        self._tallies: dict[str, dict[str, Tally]] = defaultdict(dict)  # by test, by worker
        self._resets: dict[str, str] = {}  # by test
        self._spent: dict[str, dict[str, float]] = defaultdict(dict)  # by shadow and day, by worker
        self._pairs: dict[str, list[Evidence]] = defaultdict(list)  # by shadow
        self._audited: list[tuple[str, bytes]] = []
        self._ends: dict[Key, asyncio.TimerHandle] = {}
        self._watching: list[LivePolicies] = []
        self._beating: list[Pulse] = []

    async def get_document(self, model: str) -> bytes | None:
        """Return a model's document as it is stored, valid or not."""
        self._keys.policy(model)
        return self._contents.policies.get(model)

    async def get_policy(self, model: str) -> StoredPolicy | None:
        """Return a model's policy, or None; raises PolicyError when it is not valid."""
        raw = await self.get_document(model)
        if raw is None:
            return None
        source = self._keys.policy(model)
        return StoredPolicy(raw, document.load(raw, model=model, source=source))

    async def models(self) -> list[str]:
        """Return the models that have a document, sorted."""
        return sorted(self._contents.policies)

    async def stray_documents(self) -> list[str]:
        """Return no key: this store takes none that a model cannot have."""
        return []

    async def named_models(self) -> list[str]:
        """Return the models that any document, pin or kill names, sorted."""
        contents = self._contents
        held = [model for kind in (contents.pins, contents.kills) for model in kind if kind[model]]
        return sorted({*contents.policies, *held})

    async def commit(
        self, policy: Policy, *, expected: bytes | None, actor: str, comment: str
    ) -> Policy:
        """Store `policy` as the next revision if the stored bytes still are `expected`."""
        source = self._keys.policy(policy.model)
        policy = document.checked(policy, source)
        if self._contents.policies.get(policy.model) != expected:
            raise StoreConflictError(f"{source} changed since it was read")
        revision = self._last_revision(policy.model) + 1
        committed = structs.replace(
            policy, revision=revision, actor=actor, comment=comment, signature=""
        )
        if self.signer is not None:
            committed = self.signer.policy(committed)
        self._store(committed)
        return committed

    async def edit(self, model: str, raw: bytes) -> None:
        """Set a document as redis-cli would, past every check; a valid one is adopted."""
        source = self._keys.policy(model)
        self._put(PolicyKey(model), raw)
        try:
            policy = codec.load(raw, source=source)
        except PolicyError:
            return  # every watcher refuses it and says why
        if policy.model != model:
            return
        last = self._last_revision(model)
        digest = codec.digest(raw)
        recorded = [e.digest for e in self._history[model] if e.revision == policy.revision]
        match judge(policy.revision, digest, last=last, recorded=recorded[0] if recorded else None):
            case Adoption.NONE | Adoption.REFUSE:  # this store never goes back
                pass
            case Adoption.RECORD:
                self._record(policy, raw)
                self._tell_adopted(policy)
            case Adoption.COMMIT:
                self._store(committed := readopted(policy, last=last))
                self._tell_adopted(committed)

    def _tell_adopted(self, policy: Policy) -> None:
        for live in self._watching:
            if live.on_adopted is not None:
                live.on_adopted(policy)

    async def delete_policy(self, model: str, expected: bytes | None = None) -> bool:
        """Remove a model's document if it is `expected` (None: whatever it is)."""
        key = self._keys.policy(model)
        stored = await self.get_document(model)
        if expected is not None and stored not in {None, expected}:
            raise StoreConflictError(f"{key} changed since it was read")
        return self._put(PolicyKey(model), None)

    async def set_pin(
        self, model: str, tenant: str, version: str, ttl_s: float | None = None
    ) -> None:
        """Hold `tenant` to `version`, for `ttl_s` seconds when given."""
        self._keys.pin(model, tenant)
        self._write(PinKey(model, tenant), version, ttl_s)

    async def delete_pin(self, model: str, tenant: str) -> bool:
        """Let a tenant go; return whether it was pinned."""
        self._keys.pin(model, tenant)
        return self._end(PinKey(model, tenant))

    async def pins(self, model: str) -> AsyncIterator[Pin]:
        """Iterate over the pins of a model, in no order."""
        self._keys.pins_pattern(model)
        for tenant, text in list(self._contents.pins.get(model, {}).items()):
            key = PinKey(model, tenant)
            if (version := bare(text)) is not None:
                doubt = self._reader.doubt_of_mark(key, text)
                yield Pin(tenant, version, self._ttl_s(key), doubt)

    async def pins_of(self, model: str, tenants: Collection[str]) -> dict[str, str]:
        """Return the version that each of these tenants is pinned to, of those who are."""
        self._keys.pins_pattern(model)
        pins = self._contents.pins.get(model, {})
        versions = {
            tenant: bare(pins[tenant])
            for tenant in tenants
            if tenant in pins
            and not self._reader.doubt_of_mark(PinKey(model, tenant), pins[tenant])
        }
        return {tenant: version for tenant, version in versions.items() if version is not None}

    async def set_kill(
        self, model: str, version: str, reason: str, ttl_s: float | None = None
    ) -> None:
        """Switch a version off, or the whole model when `version` is empty."""
        self._keys.kill(model, version)
        self._write(KillKey(model, version), reason, ttl_s)

    async def delete_kill(self, model: str, version: str = "") -> bool:
        """Switch it on again; return whether it was off."""
        self._keys.kill(model, version)
        return self._end(KillKey(model, version))

    async def kills(self, model: str) -> list[Kill]:
        """Return what is switched off in a model, sorted by version."""
        self._keys.kill(model)
        return [
            Kill(key.version, reason, self._ttl_s(key), self._reader.doubt_of_mark(key, text))
            for version, text in sorted(self._contents.kills.get(model, {}).items())
            for key, reason in ((KillKey(model, version), bare(text)),)
            if reason is not None
        ]

    async def marks(self, model: str) -> AsyncIterator[tuple[PinKey | KillKey, str, float | None]]:
        """Iterate over the kills, then the pins of a model, with what their keys hold."""
        self._keys.kill(model)
        for version, text in list(self._contents.kills.get(model, {}).items()):
            kill = KillKey(model, version)
            yield kill, text, self._ttl_s(kill)
        for tenant, text in list(self._contents.pins.get(model, {}).items()):
            pin = PinKey(model, tenant)
            yield pin, text, self._ttl_s(pin)

    async def set_revoked(self, jti: str, reason: str, ttl_s: float | None = None) -> None:
        """Take the token of this `jti` back, for `ttl_s` seconds when given."""
        self._keys.revoked(jti)
        self._put(RevokedKey(jti), reason.encode(), ttl_s)

    async def delete_revoked(self, jti: str) -> bool:
        """Believe the token of this `jti` again; return whether it was taken back."""
        self._keys.revoked(jti)
        return self._put(RevokedKey(jti), None)

    async def revoked(self) -> AsyncIterator[RevokedToken]:
        """Iterate over the tokens that are taken back by their `jti`, in no order."""
        for key, reason in list(self._contents.revocations.items()):
            if isinstance(key, RevokedKey):
                yield RevokedToken(key.jti, reason, self._ttl_s(key))

    async def set_cutoff(self, tenant: str, before_s: float, ttl_s: float | None = None) -> None:
        """Take back the tokens of a tenant that were made before `before_s`, epoch seconds."""
        self._keys.cutoff(tenant)
        self._put(CutoffKey(tenant), repr(before_s).encode(), ttl_s)

    async def delete_cutoff(self, tenant: str) -> bool:
        """Believe a tenant's older tokens again; return whether they were taken back."""
        self._keys.cutoff(tenant)
        return self._put(CutoffKey(tenant), None)

    async def cutoffs(self) -> list[Cutoff]:
        """Return the tenants whose older tokens are taken back, sorted."""
        held = self._contents.revocations.items()
        found = [
            cutoff_of(key.tenant, value, self._ttl_s(key))
            for key, value in held
            if isinstance(key, CutoffKey)
        ]
        return sorted(found, key=lambda one: one.tenant)

    async def history(self, model: str, limit: int = 100) -> list[HistoryEntry]:
        """Return the newest committed revisions of a model, newest first."""
        self._keys.history(model)
        return self._history[model][::-1][:limit]

    async def add_contexts(
        self, model: str, contexts: Sequence[Context], settings: ContextSettings
    ) -> None:
        """Keep contexts of a model's requests: the newest `per_model`, to the end."""
        self._keys.contexts(model)
        self._samples[model] = [*self._samples[model], *contexts][-settings.per_model :]

    async def contexts(self, model: str) -> AsyncIterator[Context | None]:
        """Iterate over the contexts that are kept of a model, the last added first."""
        self._keys.contexts(model)
        for context in reversed(self._samples[model]):
            yield context

    async def put_tally(self, tally: Tally, worker: str, reset: str | None = None) -> str:
        """Store what a worker has counted of a shadow test, unless it was reset since."""
        key = self._keys.shadow(tally.model, tally.version, tally.test)
        current = self._resets.get(key, "")
        if reset is None or reset == current:
            self._tallies[key][worker] = _copied(tally)
        return current

    async def last_reset(self, model: str, version: str, test: str) -> str:
        """Return what the last reset of a test is called; empty if none is known."""
        return self._resets.get(self._keys.shadow(model, version, test), "")

    async def settle_tally(self, tally: Tally, worker: str) -> None:
        """Put a stored tally together with those of workers that ended."""
        told = self._tallies[self._keys.shadow(tally.model, tally.version, tally.test)]
        if told.pop(worker, None) is not None:
            ended = told.get(_ENDED)
            told[_ENDED] = _copied(tally if ended is None else merge([ended, tally]))

    async def tallies(self, model: str | None = None) -> Tallied:
        """Return what workers have counted of the shadow tests of a model, or of all."""
        if model is not None:
            self._keys.policy(model)
        found = [one for _, told in sorted(self._tallies.items()) for one in told.values()]
        return Tallied(tuple(one for one in found if model in {None, one.model}))

    async def reset_shadow(self, model: str, version: str) -> int:
        """Forget counts and evidence of a shadow; return how many tests begin anew."""
        self._pairs.pop(self._keys.evidence(model, version), None)
        keys = [key for key in self._tallies if key.split(":")[-3:-1] == [model, version]]
        for key in keys:
            self._tallies[key].clear()
            self._resets[key] = token_hex(6)
        return len(keys)

    async def spend(self, model: str, version: str, day: str, worker: str, amount: float) -> float:
        """Store what a worker's copies to a shadow have cost on a UTC day; return the sum."""
        told = self._spent[self._keys.spent(model, version, day)]
        told[worker] = amount
        return sum(told.values())

    async def add_evidence(
        self, model: str, version: str, evidence: Sequence[Evidence], keep: int
    ) -> None:
        """Keep pairs in which a shadow disagreed: the newest `keep`, to the end."""
        key = self._keys.evidence(model, version)
        self._pairs[key] = [*self._pairs[key], *evidence][-keep:]

    async def evidence(self, model: str, version: str) -> AsyncIterator[Evidence | None]:
        """Iterate over the pairs that are kept of a shadow, the last added first."""
        for one in reversed(self._pairs[self._keys.evidence(model, version)]):
            yield one

    async def is_audited(self) -> bool:
        """Return whether anything was audited."""
        return bool(self._audited)

    async def add_audit(self, lines: Sequence[bytes], keep: int) -> None:
        """Add entries of audit, of which the newest `keep` stay."""
        count = int(self._audited[-1][0].partition("-")[0]) if self._audited else 0
        added = [(f"{count + n}-0", line) for n, line in enumerate(lines, 1)]
        self._audited = [*self._audited, *added][-keep:]

    async def audit(self, after: str = "") -> AsyncIterator[tuple[str, bytes]]:
        """Iterate over ids and lines of audit, the oldest first, from the one after an id."""
        first = int(after.partition("-")[0]) if after else 0
        for at, line in list(self._audited):
            if int(at.partition("-")[0]) > first:
                yield at, line

    async def fleet(self, model: str | None = None) -> list[Instance]:
        """Return the live sidecars by name; what they tell is of all models, asked or not."""
        self._keys.policy(model or "any")
        told: dict[str, list[Instance]] = defaultdict(list)
        for pulse in self._beating:
            told[pulse.member.sidecar].append(told_of(pulse))
        return [merged(workers) for _, workers in sorted(told.items())]

    async def beat(self, pulse: Pulse) -> None:
        """Tell of a worker until cancelled, each change at once; nothing else ends it."""
        self._beating.append(pulse)
        try:
            await asyncio.Event().wait()
        finally:
            self._beating.remove(pulse)

    async def watch(self, live: LivePolicies) -> None:
        """Keep `live` current until cancelled; nothing else ends it."""
        live.replace(self._contents)
        live.is_stale = False
        self._watching.append(live)
        try:
            await asyncio.Event().wait()
        finally:
            self._watching.remove(live)

    async def close(self) -> None:
        """Stop the timers of what would end by itself."""
        for end in self._ends.values():
            end.cancel()
        self._ends.clear()

    def _write(self, key: PinKey | KillKey, value: str, ttl_s: float | None) -> None:
        if self.signer is not None:
            kind = self._contents.pins if isinstance(key, PinKey) else self._contents.kills
            name = key.tenant if isinstance(key, PinKey) else key.version
            before, now_s = kind.get(key.model, {}).get(name), self._clock.now_s()
            value = renewed(self.signer, key, value, ttl_s=ttl_s, before=before, now_s=now_s)
        self._put(key, value.encode(), ttl_s)

    def _end(self, key: PinKey | KillKey) -> bool:
        if self.signer is None:
            return self._put(key, None)
        self._write(key, "", None)
        return True

    def _store(self, policy: Policy) -> None:
        raw = codec.encode(policy)
        self._put(PolicyKey(policy.model), raw)
        self._record(policy, raw)

    def _record(self, policy: Policy, raw: bytes) -> None:
        self._history[policy.model].append(
            HistoryEntry(
                revision=policy.revision,
                actor=policy.actor or DIRECT,
                comment=policy.comment,
                at_s=self._clock.now_s(),
                digest=codec.digest(raw),
                document=raw,
            )
        )

    def _last_revision(self, model: str) -> int:
        entries = self._history[model]
        return entries[-1].revision if entries else 0

    def _put(self, key: Key, value: bytes | None, ttl_s: float | None = None) -> bool:
        """Set or remove a key here and wherever it is watched; return whether it was there."""
        end = self._ends.pop(key, None)
        if end is not None:
            end.cancel()
        if ttl_s is not None:
            loop = asyncio.get_running_loop()
            self._ends[key] = loop.call_later(ttl_s, self._put, key, None)
        was_there = self._contents.has(key)
        self._contents.put(key, value)
        for live in self._watching:
            live.put(key, value)
        return was_there

    def _ttl_s(self, key: Key) -> float | None:
        end = self._ends.get(key)
        return None if end is None else max(0.0, end.when() - asyncio.get_running_loop().time())


def _copied(tally: Tally) -> Tally:
    """Return a tally as it is now, which its worker goes on adding to."""
    return msgspec.convert(msgspec.to_builtins(tally), Tally)
