"""What every store promises, and the structs it speaks in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec import Struct

from sidecar.model.policy import Policy
from sidecar.model.shadow import Tally
from sidecar.store.doubts import NO_TEXT
from sidecar.store.revocations import NO_MOMENT, moment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from sidecar.model.context import Context, ContextSettings
    from sidecar.model.shadow import Evidence
    from sidecar.store.keys import KillKey, PinKey
    from sidecar.store.live import LivePolicies
    from sidecar.store.pulse import Pulse
    from sidecar.store.seal import Reader, Signer


class StoredPolicy(Struct, frozen=True):
    """A policy and the very bytes it is stored as, which a commit compares."""

    raw: bytes
    policy: Policy


class Pin(Struct, frozen=True):
    """One tenant held to one version; `ttl_s` is None when it does not end by itself.

    `fault` says why it has no effect, as far as a store can tell: its key holds no string.
    """

    tenant: str
    version: str
    ttl_s: float | None = None
    fault: str = ""


class Kill(Struct, frozen=True):
    """A version switched off, or the whole model when `version` is empty; `fault` as of a pin."""

    version: str
    reason: str
    ttl_s: float | None = None
    fault: str = ""


class RevokedToken(Struct, frozen=True):
    """A token taken back by its `jti`; `ttl_s` and `fault` as of a pin."""

    jti: str
    reason: str
    ttl_s: float | None = None
    fault: str = ""


class Cutoff(Struct, frozen=True):
    """A tenant whose tokens from before a moment (epoch seconds) are taken back.

    `before_s` is None where `fault` says why the moment cannot be read.
    """

    tenant: str
    before_s: float | None
    ttl_s: float | None = None
    fault: str = ""


def cutoff_of(tenant: str, value: str | None, ttl_s: float | None) -> Cutoff:
    """Return a cut-off as it is stored; no value is one of another type."""
    before_s = None if value is None else moment(value)
    fault = NO_TEXT if value is None else NO_MOMENT if before_s is None else ""
    return Cutoff(tenant, before_s, ttl_s, fault)


class HistoryEntry(Struct, frozen=True):
    """One committed revision. `at_s` is epoch seconds, `digest` that of `document`'s bytes."""

    revision: int
    actor: str
    comment: str
    at_s: float
    digest: str
    document: bytes


class Instance(Struct, frozen=True):
    """One live sidecar, as its last heartbeat told.

    `revisions` are those that all of its workers decide by, by model; `faults` say why a newer
    document of a model was refused; `unready` are the versions without a healthy endpoint.
    `age_s` is how old the heartbeat is, that of the worker that was silent longest. `program` is
    the release that runs, `mixed` while its workers are being replaced; `counters` are sums over
    its workers, by name. `refused` is how many keys are not believed, by `seal.Cause`.
    """

    name: str
    revisions: dict[str, int]
    is_stale: bool = False
    faults: dict[str, str] = {}
    age_s: float = 0.0
    workers: int = 1
    program: str = ""
    started_s: float = 0.0
    unready: dict[str, tuple[str, ...]] = {}
    counters: dict[str, int] = {}
    refused: dict[str, int] = {}


class Tallied(Struct, frozen=True):
    """What is stored of shadow tests: tallies that add up, and where and why one cannot be read."""

    tallies: tuple[Tally, ...] = ()
    faults: tuple[str, ...] = ()


@runtime_checkable
class Fleet(Protocol):
    """Which sidecars live by a store."""

    async def fleet(self, model: str | None = None) -> list[Instance]:
        """Return the sidecars whose heartbeat has not expired, by name.

        With `model` they tell of that one alone: cheap enough to be asked every few milliseconds.

        Raises:
            StoreUnavailableError: the store did not answer.
        """
        ...


class Store(Protocol):
    """Where policies, pins and kills are kept, in words of the model.

    Every method may raise `StoreUnavailableError`, after seconds at most, and `BadNameError` for
    a model, version or tenant that cannot stand in a key. Only `watch`, `beat` and `close` never
    raise either.

    With a `signer` whatever commits, pins and kills write is signed, and their end, too, which then
    is written instead of a deletion.
    """

    @property
    def signer(self) -> Signer | None:
        """Who signs what is written; None: nobody."""
        ...

    def sign_with(self, signer: Signer) -> None:
        """Have everything signed from now on."""
        ...

    def believe(self, reader: Reader) -> None:
        """Tell of pins and kills from now on, as `fault`, what `reader` does not believe of them.

        `pins_of` leaves out what is not believed.
        """
        ...

    def doubt_of(self, policy: Policy) -> str:
        """Return why a stored policy is not believed, or nothing."""
        ...

    async def get_document(self, model: str) -> bytes | None:
        """Return a model's document as it is stored, valid or not; None when there is none.

        Raises:
            PolicyError: its key holds no string.
        """
        ...

    async def get_policy(self, model: str) -> StoredPolicy | None:
        """Return a model's policy, or None when there is none.

        Raises:
            PolicyError: the stored document is not a valid policy.
        """
        ...

    async def models(self) -> list[str]:
        """Return the models that have a document, sorted."""
        ...

    async def stray_documents(self) -> list[str]:
        """Return the keys, sorted, where a document would be of a model that no policy can name."""
        ...

    async def named_models(self) -> list[str]:
        """Return the models that any document, pin or kill names, good names or not, sorted."""
        ...

    async def commit(
        self, policy: Policy, *, expected: bytes | None, actor: str, comment: str
    ) -> Policy:
        """Store `policy` if the stored bytes still are `expected` (None: no document yet).

        Returns the policy as committed: with its new revision, one above all before it, its
        actor and its comment.

        Raises:
            StoreConflictError: somebody else changed the document since it was read.
            HistoryError: the history does not take another revision.
            PolicyError: `policy` is not valid.
        """
        ...

    async def delete_policy(self, model: str, expected: bytes | None = None) -> bool:
        """Remove a model's document if the stored bytes still are `expected` (None: whatever).

        Returns whether there was one. A key that holds no string has the bytes b"".

        Raises:
            StoreConflictError: somebody else changed the document since it was read.
        """
        ...

    async def set_pin(
        self, model: str, tenant: str, version: str, ttl_s: float | None = None
    ) -> None:
        """Hold `tenant` to `version`, for `ttl_s` seconds when given."""
        ...

    async def delete_pin(self, model: str, tenant: str) -> bool:
        """Let a tenant go; return whether it was pinned.

        It may have been, if that is signed: sidecars hold on to a pin that the store has lost.
        """
        ...

    def pins(self, model: str) -> AsyncIterator[Pin]:
        """Iterate over the pins of a model, in no order; there may be a million."""
        ...

    async def pins_of(self, model: str, tenants: Collection[str]) -> dict[str, str]:
        """Return the version that each of these tenants is pinned to, of those who are."""
        ...

    async def set_kill(
        self, model: str, version: str, reason: str, ttl_s: float | None = None
    ) -> None:
        """Switch a version off, or the whole model when `version` is empty."""
        ...

    async def delete_kill(self, model: str, version: str = "") -> bool:
        """Switch it on again; return whether it was off, as `delete_pin` has it."""
        ...

    async def kills(self, model: str) -> list[Kill]:
        """Return what is switched off in a model, sorted by version."""
        ...

    def marks(self, model: str) -> AsyncIterator[tuple[PinKey | KillKey, str, float | None]]:
        """Iterate over the kills and pins of a model: text, seal and all, and seconds to live."""
        ...

    async def set_revoked(self, jti: str, reason: str, ttl_s: float | None = None) -> None:
        """Take the token of this `jti` back, for `ttl_s` seconds when given."""
        ...

    async def delete_revoked(self, jti: str) -> bool:
        """Believe the token of this `jti` again; return whether it was taken back."""
        ...

    def revoked(self) -> AsyncIterator[RevokedToken]:
        """Iterate over the tokens that are taken back by their `jti`, in no order."""
        ...

    async def set_cutoff(self, tenant: str, before_s: float, ttl_s: float | None = None) -> None:
        """Take back the tokens of a tenant that were made before `before_s`, epoch seconds."""
        ...

    async def delete_cutoff(self, tenant: str) -> bool:
        """Believe a tenant's older tokens again; return whether they were taken back."""
        ...

    async def cutoffs(self) -> list[Cutoff]:
        """Return the tenants whose older tokens are taken back, sorted."""
        ...

    async def history(self, model: str, limit: int = 100) -> list[HistoryEntry]:
        """Return the newest committed revisions of a model, newest first."""
        ...

    async def add_contexts(
        self, model: str, contexts: Sequence[Context], settings: ContextSettings
    ) -> None:
        """Keep contexts of a model's requests, about `per_model` of them and for `keep_s`."""
        ...

    def contexts(self, model: str) -> AsyncIterator[Context | None]:
        """Iterate over the contexts that are kept of a model, the last added first.

        None stands for one that cannot be read.
        """
        ...

    async def put_tally(self, tally: Tally, worker: str, reset: str | None = None) -> str:
        """Store what a worker has counted of a shadow test, in the place of what it said before.

        `reset` is what this returned for an earlier tally of the same counting. Where it returns
        something else somebody has reset the test: nothing is stored, and the worker begins anew.
        """
        ...

    async def last_reset(self, model: str, version: str, test: str) -> str:
        """Return what the last reset of a test is called; empty if none is known."""
        ...

    async def settle_tally(self, tally: Tally, worker: str) -> None:
        """Put a stored tally, which changes no more, together with those of workers that ended."""
        ...

    async def tallies(self, model: str | None = None) -> Tallied:
        """Return what workers have counted of the shadow tests of a model, or of all."""
        ...

    async def reset_shadow(self, model: str, version: str) -> int:
        """Forget counts and evidence of a shadow; return how many tests begin anew.

        What its copies have cost today stays: a cap has to hold.
        """
        ...

    async def spend(self, model: str, version: str, day: str, worker: str, amount: float) -> float:
        """Store what a worker's copies to a shadow have cost on a UTC day; return the fleet's sum.

        `amount` takes the place of what the worker said before of this day (`2026-11-23`).
        """
        ...

    async def add_evidence(
        self, model: str, version: str, evidence: Sequence[Evidence], keep: int
    ) -> None:
        """Keep pairs in which a shadow disagreed, about `keep` of them, for 30 days."""
        ...

    def evidence(self, model: str, version: str) -> AsyncIterator[Evidence | None]:
        """Iterate over the pairs that are kept of a shadow, the last added first.

        None stands for one that cannot be read.
        """
        ...

    async def is_audited(self) -> bool:
        """Return whether there is a stream of audit."""
        ...

    async def add_audit(self, lines: Sequence[bytes], keep: int) -> None:
        """Add entries of audit; of more than about `keep` the oldest go, of fewer none.

        After `StoreUnavailableError` some may have been added.
        """
        ...

    def audit(self, after: str = "") -> AsyncIterator[tuple[str, bytes]]:
        """Iterate over ids and lines of audit, the oldest first, from the one after an id.

        A line is empty where an entry is not of this program.
        """
        ...

    async def fleet(self, model: str | None = None) -> list[Instance]:
        """Return the live sidecars, as `Fleet` has it."""
        ...

    async def beat(self, pulse: Pulse) -> None:
        """Tell of a worker until cancelled, each change at once; nothing else ends it."""
        ...

    async def watch(self, live: LivePolicies) -> None:
        """Keep `live` current until cancelled; nothing else ends it."""
        ...

    async def close(self) -> None:
        """Let go of every connection, whatever state they are in."""
        ...
