"""The audit of a process, wired from the settings, and stores that tell it what they change."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol, cast

from msgspec import structs

from sidecar.audit import command
from sidecar.audit.entry import event
from sidecar.audit.files import FileSink
from sidecar.audit.log import AuditLog
from sidecar.audit.stream import StreamSink
from sidecar.errors import AuditUnwritableError, StoreRefusedError, StoreUnavailableError
from sidecar.model.audit import Kind
from sidecar.model.policy import Policy
from sidecar.policy import codec
from sidecar.policy.diff import content
from sidecar.policy.problem import PolicyError
from sidecar.runtime.clock import SystemClock
from sidecar.store.connect import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sidecar.audit.outlet import Sink
    from sidecar.config import Config
    from sidecar.model.audit import AuditSettings
    from sidecar.model.identity import JSON
    from sidecar.runtime.clock import Clock
    from sidecar.runtime.ed25519 import PrivateKey
    from sidecar.store.base import Store
    from sidecar.telemetry.metrics import Metrics

_CHANGES: Final = {
    "commit": Kind.COMMIT,
    "delete_policy": Kind.DELETE,
    "set_pin": Kind.PIN,
    "delete_pin": Kind.UNPIN,
    "set_kill": Kind.KILL,
    "delete_kill": Kind.REVIVE,
    "set_revoked": Kind.REVOKE,
    "delete_revoked": Kind.UNREVOKE,
    "set_cutoff": Kind.REVOKE,
    "delete_cutoff": Kind.UNREVOKE,
}
"""The methods of a store that are control actions."""

_TOLD: Final = frozenset(
    ("model", "tenant", "version", "reason", "ttl_s", "jti", "before_s", "actor", "comment")
)
"""Their arguments that are told; of a policy its model, revision and labels are."""

Tell = Callable[[Kind, Mapping[str, "JSON"]], Awaitable[None]]
"""Takes a control action that has been done, and facts as in `AuditLog.note`."""


class _Method(Protocol):
    def __call__(self, *args: object, **kwargs: object) -> Awaitable[object]: ...


def audit_log(
    settings: AuditSettings, store: Store, *, role: str, clock: Clock, metrics: Metrics
) -> AuditLog:
    """Return the audit of a process of this `role`; raises KeyFileError for a key of no use."""
    sinks = _sinks(settings, store, clock, is_streamed=settings.stream)
    key = _signing_key(settings) if sinks else None
    return AuditLog(sinks, settings, role=role, clock=clock, metrics=metrics, key=key)


@asynccontextmanager
async def auditing(config: Config, metrics: Metrics) -> AsyncIterator[AuditLog]:
    """Yield the audit of the control process, begun, and end its chains afterwards."""
    store = open_store(config.redis, config.prefix, config.state_dir)
    try:
        clock = SystemClock()
        audit = audit_log(config.audit, store, role="control", clock=clock, metrics=metrics)
        await audit.start()
        try:
            yield audit
        finally:
            await audit.close()
    finally:
        await store.close()


async def record(
    settings: AuditSettings, store: Store, actor: str, kind: Kind, facts: Mapping[str, JSON]
) -> None:
    """Tell audit of a control action that a command has done; `facts` are as in `AuditLog.note`.

    `actor` is who did it, where the facts do not say.

    It is told where the settings say, and in the store's stream if there is one: sidecars that
    audit into it have begun it, so that also commands without settings are in it.

    Raises:
        AuditUnwritableError: it is done, and audit does not have it.
        KeyFileError: the same, as the key cannot be used.
    """
    clock = SystemClock()
    done = event(kind, clock.now_s(), {"actor": actor, **facts})
    try:
        is_streamed = settings.stream or await _is_audited(store)
        if sinks := _sinks(settings, store, clock, is_streamed=is_streamed):
            await command.record(sinks, done, _signing_key(settings))
    except (AuditUnwritableError, StoreUnavailableError) as error:
        msg = f"it is done ({kind.value}), but audit did not take it: {error}"
        raise AuditUnwritableError(msg) from error


async def _is_audited(store: Store) -> bool:
    """Return whether a store has a stream of audit, as far as this user may know."""
    try:
        return await store.is_audited()
    except StoreRefusedError:  # rights of a time before audit: who has such was told of none
        return False


def noting(audit: AuditLog, actor: str) -> Tell:
    """Return what notes control actions of this process, as those of `actor`."""

    async def tell(kind: Kind, facts: Mapping[str, JSON]) -> None:
        audit.note(kind.value, **{"actor": actor, **facts})

    return tell


def telling(store: Store, tell: Tell) -> Store:
    """Return `store` so that `tell` is called with each control action that is done through it."""
    # It has what `Store` says, by looking it up when it is asked for.
    return cast("Store", _TellingStore(store, tell))


class _TellingStore:
    """A store in all but that what is in `_CHANGES` is told, once it is done."""

    _store: Store
    _tell: Tell

    def __init__(self, store: Store, tell: Tell) -> None:
        vars(self).update(_store=store, _tell=tell)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._store, name, value)

    def __getattr__(self, name: str) -> object:
        method: object = getattr(self._store, name)
        kind = _CHANGES.get(name)
        return method if kind is None else self._told(kind, cast("_Method", method))

    def _told(self, kind: Kind, method: _Method) -> _Method:
        @functools.wraps(method)
        async def change(*args: object, **kwargs: object) -> object:
            done = await method(*args, **kwargs)
            if done is not False:  # else there was nothing to take away
                given = inspect.signature(method).bind(*args, **kwargs).arguments
                await self._tell(*_described(kind, given, done))
            return done

        return change


def _described(
    kind: Kind, given: Mapping[str, object], done: object
) -> tuple[Kind, dict[str, JSON]]:
    """Return what was done by a call of these arguments that returned `done`."""
    facts: dict[str, JSON] = {
        name: value
        for name, value in given.items()
        if name in _TOLD and isinstance(value, (str, int, float))
    }
    if not isinstance(done, Policy):
        return kind, facts
    facts |= {"model": done.model, "revision": done.revision}
    facts["digest"] = codec.digest(codec.encode(done))
    if done.deleted:
        return Kind.DELETE, facts
    before = _policy_of(given.get("expected"))
    if before is None or before.labels == done.labels:
        return kind, facts
    facts["labels"] = dict(done.labels)
    is_same = content(structs.replace(done, labels=before.labels)) == content(before)
    return (Kind.LABEL if is_same else kind), facts


def _policy_of(raw: object) -> Policy | None:
    if not isinstance(raw, bytes):
        return None
    try:
        return codec.decode(raw, source="the document before")
    except PolicyError:
        return None


def _sinks(settings: AuditSettings, store: Store, clock: Clock, *, is_streamed: bool) -> list[Sink]:
    sinks: list[Sink] = [FileSink(settings, clock)] if settings.dir else []
    if is_streamed:
        sinks.append(StreamSink(store, settings.stream_entries))
    return sinks


def _signing_key(settings: AuditSettings) -> PrivateKey | None:
    if not settings.key_file:
        return None
    # Only who signs pays for it: cryptography is a fifth of a worker's memory.
    from sidecar.runtime.ed25519 import load_private  # noqa: PLC0415

    return load_private(settings.key_file)
