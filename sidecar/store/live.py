"""What decisions are made from right now: the last good snapshot of every model."""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeVar, assert_never

from msgspec import Struct, field

from sidecar.model.identity import is_tenant
from sidecar.policy.address import ANYWHERE, AllowList
from sidecar.policy.compiled import CompiledPolicy, compiling
from sidecar.policy.pins import Pins
from sidecar.policy.problem import PolicyError
from sidecar.policy.snapshot import Snapshot
from sidecar.policy.steps import finish, letting_go, unless
from sidecar.runtime.slices import lasting
from sidecar.store import document
from sidecar.store.adoption import MAX_REVISION
from sidecar.store.doubts import NO_MODEL, NO_PINNED, NO_TENANT, NO_VERSION, Doubts
from sidecar.store.keys import (
    CutoffKey,
    Key,
    Keys,
    KillKey,
    Numerous,
    PinKey,
    PolicyKey,
    Revocation,
    RevokedKey,
)
from sidecar.store.revocations import Revocations
from sidecar.store.seal import bare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sidecar.model.policy import Policy
    from sidecar.policy.steps import Steps
    from sidecar.store.trust import Trust

_K = TypeVar("_K")
_T = TypeVar("_T")
_log = logging.getLogger("sidecar.store")
SMALL_BYTES = 4 * 1024  # of a document: a millisecond's work, which is done at once
MAX_VALUE_BYTES = 4 * 1024  # of a pin or kill: more is no name, and no reason that anybody reads
LARGE_BYTES = 64 * 1024  # its policy is so many objects that to look for garbage there takes long
_STRIDE = 1000  # pins that are looked at in one go: about a millisecond of work


class Contents(Struct):
    """All that a store holds and decisions depend on, as read in one go.

    Documents by model; pins by model, then tenant; kill reasons by model, then version, where
    the empty version is the whole model, both as they are stored; what takes tokens back by its
    key.
    """

    policies: dict[str, bytes] = field(default_factory=dict)
    pins: dict[str, dict[str, str]] = field(default_factory=dict)
    kills: dict[str, dict[str, str]] = field(default_factory=dict)
    revocations: dict[Revocation, str] = field(default_factory=dict)

    def put(self, key: Key, value: bytes | None) -> None:
        """Set what `key` means to `value`, or remove it when that is None."""
        match key:
            case PolicyKey(model=model):
                _put(self.policies, model, value)
            case PinKey(model=model, tenant=tenant):
                _put(self.pins.setdefault(model, {}), tenant, _text(value))
            case KillKey(model=model, version=version):
                _put(self.kills.setdefault(model, {}), version, _text(value))
            case RevokedKey() | CutoffKey():
                _put(self.revocations, key, _text(value))
            case _:
                assert_never(key)

    def has(self, key: Key) -> bool:
        """Return whether `key` is set."""
        match key:
            case PolicyKey(model=model):
                return model in self.policies
            case PinKey(model=model, tenant=tenant):
                return tenant in self.pins.get(model, {})
            case KillKey(model=model, version=version):
                return version in self.kills.get(model, {})
            case RevokedKey() | CutoffKey():
                return key in self.revocations
            case _:
                assert_never(key)


class LivePolicies:
    """The snapshots that decisions are made from, kept current by a store's `watch`.

    Everything here is one reference or one dict item away, so the hot path reads it unguarded.
    A document with faults never replaces a good one, and never touches another model.
    `on_change` is called with the model after its snapshot or its fault changed; not for pins,
    which need no more than their one dict item. A document whose endpoints are not in `allowed` has
    a fault, whoever wrote it. With `trust` nothing comes into force, or goes, that is not signed.
    """

    def __init__(
        self,
        keys: Keys | None = None,
        on_change: Callable[[str], None] | None = None,
        allowed: AllowList = ANYWHERE,
        trust: Trust | None = None,
    ) -> None:
        self.snapshots: dict[str, Snapshot] = {}
        """By model. A snapshot is replaced as a whole; its pins change in place."""
        self.faults: dict[str, str] = {}
        """Model -> why its newest document was refused; what served before still does."""
        self.is_stale = True
        """Whether the store may hold something newer: not loaded yet, out of reach, or emptied."""
        self.behind: dict[str, int] = {}
        """Model -> the revision in force, of those whose newest document has an older one."""
        self.on_adopted: Callable[[Policy], None] | None = None
        """Called with the heading of each document that the watch brought into the history."""
        self.lost: frozenset[str] = frozenset()
        """Models in force that the store has lost: gone, but not because anybody deleted them."""
        self.revocations = Revocations()
        """The tokens that are taken back."""
        self.is_loaded = False
        """Whether everything has been read at least once: before that a model may just be late."""
        self._keys = keys or Keys()
        self._on_change = on_change
        self._allowed = allowed
        self.trust = trust
        """Who judges what is signed; None: everything is believed."""
        self._documents: dict[str, bytes] = {}  # the newest of each model, refused ones included
        self._taking: dict[str, bytes] = {}  # those that are on their way there
        self._policies: dict[str, Policy] = {}  # those in force
        self._reached: dict[str, int] = {}  # the newest revision that was in force, by model
        self._pins: dict[str, Pins] = {}  # each also held by its model's snapshot
        self._kills: dict[str, dict[str, str]] = {}
        self._unready: dict[str, frozenset[str]] = {}
        self._doubts = Doubts()

    def put(self, key: Key, value: bytes | None) -> None:
        """Apply what the store now holds under `key`; None is a key that is gone."""
        match key:
            case PolicyKey(model=model):
                self.put_policy(model, value)
            case PinKey(model=model, tenant=tenant):
                self.put_pin(model, tenant, _text(value))
            case KillKey(model=model, version=version):
                self.put_kill(model, version, _text(value))
            case RevokedKey() | CutoffKey():
                self.put_revocation(key, _text(value))
            case _:
                assert_never(key)

    def put_policy(self, model: str, raw: bytes | None) -> bool:
        """Take a model's document into force, or remove the model; return whether `raw` serves.

        A document that does not parse, validate or name its own key is refused: logged, kept in
        `faults`, and the last good one keeps serving. So is one with an older revision than was
        in force, kept in `behind` too: whether it is an edit, its adoption tells, which then
        commits it as the next revision.
        """
        self.give_up(model)
        if raw is None:
            self._lose(model)
            return False
        return finish(self.taking(model, raw))

    def taking(self, model: str, raw: bytes) -> Steps[bool]:
        """Do what `put_policy` does with a document, in steps; what served before serves meanwhile.

        A document that is put meanwhile takes this one's place, which then never serves.
        """
        if self._taking.get(model) == raw:
            return False  # whoever began will end it
        self.give_up(model)
        if self._documents.get(model) == raw:
            return model not in self.faults
        self._taking[model] = raw
        try:
            steps = self._replacing(model, raw)
            replacing = yield from unless(steps, lambda: self._taking.get(model) is not raw)
            if replacing is None:
                return False
            made, kept = replacing
            self._documents[model] = raw
        finally:
            if self._taking.get(model) is raw:
                self.give_up(model)
        is_in_force = self._bring_into_force(model, made)
        if is_in_force and self.trust is not None and not isinstance(made, str):
            self.trust.took(made.policy, raw)
        yield from letting_go(kept)
        return is_in_force

    def _replacing(
        self, model: str, raw: bytes
    ) -> Steps[tuple[CompiledPolicy | str, list[object]]]:
        """Do as `_making`; return also the parts of what is in force, to be let go of after it."""
        made = yield from self._making(model, raw)
        snapshot = self.snapshots.get(model)
        if snapshot is None or isinstance(made, str):
            return made, []
        return made, (yield from snapshot.compiled.parting())

    def give_up(self, model: str) -> None:
        """Have no document that is being taken for a model come into force."""
        self._taking.pop(model, None)

    def is_taking(self, model: str) -> bool:
        """Return whether a document of a model is being taken."""
        return model in self._taking

    def _making(self, model: str, raw: bytes) -> Steps[CompiledPolicy | str]:
        """Compile a document, or return why it cannot be."""
        source = self._keys.policy(model)
        if self.trust is not None:
            self.trust.forget(model)
        try:
            with lasting() if len(raw) > LARGE_BYTES else nullcontext():
                policy = yield from document.loading(
                    raw, model=model, source=source, allowed=self._allowed
                )
                if self.trust is not None and (fault := self.trust.fault_of(policy)):
                    return f"{source}: {fault}"
                return (yield from compiling(policy))
        except PolicyError as e:
            return str(e)
        except Exception as e:  # noqa: BLE001 -- a bug that one document meets must not stop the others
            return f"{source}: {e!r}"

    def _bring_into_force(self, model: str, made: CompiledPolicy | str) -> bool:
        """Swap the snapshot of a model for one of a new policy, or refuse it; return which."""
        if isinstance(made, str):
            self._refuse(model, made)
            return False
        policy = made.policy
        if 0 < policy.revision < self._reached.get(model, 0):
            self._hold_back(policy)
            return False
        if policy.deleted:
            self.snapshots.pop(model, None)
            self._policies.pop(model, None)
        else:
            # What was switched off while it was compiled is off.
            kills, unready = self._kills.get(model, {}), self._unready.get(model, frozenset())
            self.snapshots[model] = Snapshot(made, self._pins_of(model), kills, unready)
            self._policies[model] = policy
        if self._reached.get(model, 0) < policy.revision <= MAX_REVISION:
            self._reached[model] = policy.revision
        self.behind.pop(model, None)
        self.faults.pop(model, None)
        self._judge_kills(model)
        self._changed(model)
        return True

    def put_pin(self, model: str, tenant: str, version: str | None) -> None:
        """Hold `tenant` to `version`, or let it go. O(1); a pin may come before its policy."""
        if self.trust is None:
            version = bare(version)
        else:
            version = self.trust.admit(PinKey(model, tenant), version)
        self._hold(model, tenant, version)

    def _hold(self, model: str, tenant: str, version: str | None) -> None:
        # One text for all tenants of a version: there may be a million of them.
        self._pins_of(model).put(tenant, None if version is None else sys.intern(version))
        self._judge_pin(model, tenant, version)

    def has_pin(self, pin: PinKey) -> bool:
        """Return whether a tenant is held to a version, whichever."""
        pins = self._pins.get(pin.model)
        return pins is not None and pins.get(pin.tenant) is not None

    def holds(self, key: Key) -> bool:
        """Return whether a pin or a revocation is held; of other keys it is not said."""
        match key:
            case PinKey():
                return self.has_pin(key)
            case RevokedKey() | CutoffKey():
                return self.revocations.has(key)
            case _:
                return False

    def held(self, size: int) -> Iterator[Sequence[Numerous]]:
        """Yield the pins and revocations that are held, as `pinned` does."""
        yield from self.pinned(size)
        yield from self.revocations.portions(size)

    def may_be_lost(self, key: Numerous) -> bool:
        """Return whether the store may lack a key as it lost its data, not as somebody took it."""
        return key.model in self.lost if isinstance(key, PinKey) else bool(self.lost)

    def pinned(self, size: int) -> Iterator[list[PinKey]]:
        """Yield the pins that are held, at most `size` at a time; they may change in between."""
        for model in list(self._pins):
            yield from self._pinned(model, size)

    def marks(self, model: str, size: int) -> Iterator[Sequence[Key]]:
        """Yield the kills and pins of a model that are held, at most `size` at a time.

        They may change in between.
        """
        kills = iter([KillKey(model, version) for version in self._kills.get(model, ())])
        while portion := list(islice(kills, size)):
            yield portion
        yield from self._pinned(model, size)

    def _pinned(self, model: str, size: int) -> Iterator[list[PinKey]]:
        for tenants in self._pins_of(model).portions(size):
            yield [PinKey(model, tenant) for tenant in tenants]

    def put_kill(self, model: str, version: str, reason: str | None) -> None:
        """Switch a version off, or on again when `reason` is None; "" is the whole model."""
        if self.trust is None:
            reason = bare(reason)
        else:
            reason = self.trust.admit(KillKey(model, version), reason)
        self._switch(model, version, reason)

    def _switch(self, model: str, version: str, reason: str | None) -> None:
        kills = self._kills.setdefault(model, {})
        if kills.get(version) == reason:
            return
        _put(kills, version, reason)
        self._judge(KillKey(model, version), version, is_set=reason is not None)
        if self._revise(model):
            self._changed(model)

    def put_revocation(self, key: Revocation, value: str | None) -> None:
        """Take tokens back, or believe them again when `value` is None."""
        reason = self.revocations.put(key, value)
        if reason:
            self._doubts.tell(self._keys.spell(key), "", reason)
        else:
            self._doubts.forget(self._keys.spell(key))

    def set_unready(self, model: str, versions: frozenset[str]) -> None:
        """Let `versions` of a model serve nobody: none of their endpoints is healthy.

        Holds until it is called again, whatever becomes of the policy. It is of this process alone
        and no change of the policy: `on_change` is not called.
        """
        if self._unready.get(model, frozenset()) == versions:
            return
        _put(self._unready, model, versions or None)
        self._revise(model)

    def set_lost(self, models: frozenset[str]) -> None:
        """Say which models the store has lost; `on_change` is called for each that is news of."""
        changed = self.lost ^ models
        self.lost = models
        for model in sorted(changed):
            self._changed(model)

    def ending(self) -> Iterator[None]:
        """Let go of pins and kills that were signed until now, if the store has not done so.

        Yields after each, as many may end at one moment.
        """
        for key in () if self.trust is None else self.trust.ended():
            if isinstance(key, PinKey):
                self._hold(key.model, key.tenant, None)
            else:
                self._switch(key.model, key.version, None)
            yield

    def holds_on_to(self, model: str) -> bool:
        """Return whether a model in force stays so without its document: nobody signed its end."""
        return self.trust is not None and model in self.snapshots

    def absent(self, contents: Contents) -> set[str]:
        """Return the models that serve and have no document in `contents`."""
        return self.snapshots.keys() - contents.policies.keys()

    def reached(self, model: str) -> int:
        """Return the newest revision of a model that was in force, 0 when it has none."""
        return self._reached.get(model, 0)

    def replace(self, contents: Contents) -> None:
        """Make everything as in `contents`; what is not there is removed."""
        for model in self._pins.keys() | contents.pins.keys():
            now = contents.pins.get(model, {})
            for tenant in self._pins_of(model).keys() | now.keys():
                self.put_pin(model, tenant, now.get(tenant))
        revoked = contents.revocations
        for key in {*revoked, *chain.from_iterable(self.revocations.portions(_STRIDE))}:
            self.put_revocation(key, revoked.get(key))
        for _ in self.replacing(contents):
            pass

    def replacing(self, contents: Contents) -> Iterator[None]:
        """Make all as in `contents` but pins and revocations, yielding so that a loop can serve.

        Between the steps every model is whole: only how many are current differs. A key that
        changes in between is put both here and into `contents`. Of models that are `lost` nothing
        is removed.
        """
        # Kills first: nothing that is switched off may serve, not even for one step.
        for model in self._kills.keys() | contents.kills.keys():
            now = contents.kills.get(model, {})
            held = () if model in self.lost else self._kills.get(model, {})
            for version in {*held, *now}:
                self.put_kill(model, version, now.get(version))
                yield
        known = self._documents.keys() | self._taking.keys() | contents.policies.keys()
        for model in known - self.lost:
            raw = contents.policies.get(model)
            if raw is None:
                self.put_policy(model, None)
            else:
                yield from self.taking(model, raw)
            yield
        self.is_loaded = True
        yield from self._judge_all()

    def _judge_all(self) -> Iterator[None]:
        """Look for pins and kills that a change of policy may have made wrong."""
        self._judge_told()
        for model in self._kills:
            self._judge_kills(model)
        for model, pins in list(self._pins.items()):
            for tenants in pins.portions(_STRIDE):
                policy = self._policies.get(model)
                names = {*policy.versions, *policy.labels} if policy else ()
                for tenant in tenants:
                    # The good ones cost no more than this, with a million of them every minute.
                    if pins.get(tenant) not in names or not is_tenant(tenant):
                        self._judge_pin(model, tenant, pins.get(tenant))
                yield

    def _judge_told(self) -> None:
        """Look again at what was told: a new version or model may have given it an effect."""
        for spelled in self._doubts.told():
            match self._keys.parse(spelled.encode()):
                case PinKey(model=model, tenant=tenant):
                    self._judge_pin(model, tenant, self._pins_of(model).get(tenant))
                case KillKey(model=model, version=version) as key:
                    is_set = version in self._kills.get(model, {})
                    self._judge(key, version, is_set=is_set)
                case _:
                    pass  # what is wrong with a cut-off is so whatever the policies

    def _judge_kills(self, model: str) -> None:
        for version in self._kills.get(model, ()):
            self._judge(KillKey(model, version), version, is_set=True)

    def _judge_pin(self, model: str, tenant: str, version: str | None) -> None:
        policy = self._policies.get(model)
        # The common case without a key: there may be a million pins.
        is_known = policy is not None and (version in policy.versions or version in policy.labels)
        if is_known and is_tenant(tenant):
            if self._doubts:
                self._doubts.forget(self._keys.spell(PinKey(model, tenant)))
            return
        self._judge(PinKey(model, tenant), version or "", is_set=version is not None)

    def _judge(self, key: PinKey | KillKey, version: str, *, is_set: bool) -> None:
        """Tell of what cannot be followed; of nothing before everything has been read."""
        spelled = self._keys.spell(key)
        reason = self._doubt(key, version) if is_set and self.is_loaded else ""
        if reason:
            self._doubts.tell(spelled, key.model, reason)
        else:
            self._doubts.forget(spelled)

    def _doubt(self, key: PinKey | KillKey, version: str) -> str:
        if isinstance(key, PinKey) and not is_tenant(key.tenant):
            return NO_TENANT
        policy = self._policies.get(key.model)
        if policy is None:  # a document without a good one before it says nothing of its versions
            has_document = key.model in self._documents or key.model in self._taking
            return "" if has_document else NO_MODEL
        is_whole = isinstance(key, KillKey) and not version
        is_known = version in policy.versions or version in policy.labels
        if is_whole or is_known:
            return ""
        return NO_PINNED if isinstance(key, PinKey) else NO_VERSION

    def _pins_of(self, model: str) -> Pins:
        """Return the pins of a model; they are the same object as long as this lives."""
        pins = self._pins.get(model)
        if pins is None:
            pins = self._pins[model] = Pins()
        return pins

    def _revise(self, model: str) -> bool:
        """Bring kills and readiness of a model into force, if it has a policy; return whether."""
        snapshot = self.snapshots.get(model)
        if snapshot is None:
            return False
        kills, unready = self._kills.get(model, {}), self._unready.get(model, frozenset())
        self.snapshots[model] = snapshot.with_health(kills, unready)
        return True

    def _hold_back(self, policy: Policy) -> None:
        """Refuse a document for now, without a word in the log: most such are edits."""
        model, reached = policy.model, self._reached[policy.model]
        self.behind[model] = reached
        self.faults[model] = (
            f"{self._keys.policy(model)}: revision: {policy.revision} is older than {reached}, "
            "which is in force"
        )
        self._changed(model)

    def _refuse(self, model: str, reason: str) -> None:
        self.behind.pop(model, None)
        self.faults[model] = reason
        _log.error(
            "policy refused",
            extra={"model": model, "reason": reason, "serving": model in self.snapshots},
        )
        self._changed(model)

    def _lose(self, model: str) -> None:
        """Remove a model whose document is gone, unless nobody had the right to remove it."""
        if self.trust is not None and self.holds_on_to(model):
            self._documents.pop(model, None)
            self.trust.miss(model)
            return
        if self.trust is not None:
            self.trust.forget(model)
        self._remove(model)

    def _remove(self, model: str) -> None:
        is_known = self._documents.pop(model, None) is not None
        self._policies.pop(model, None)
        self._reached.pop(model, None)
        self.snapshots.pop(model, None)
        self.behind.pop(model, None)
        self.faults.pop(model, None)
        if is_known:
            self._changed(model)

    def _changed(self, model: str) -> None:
        if self._on_change is not None:
            self._on_change(model)


def _put(into: dict[_K, _T], name: _K, value: _T | None) -> None:
    if value is None:
        into.pop(name, None)
    else:
        into[name] = value


def _text(value: bytes | None) -> str | None:
    # Values typed or piped into redis-cli often end in a newline.
    return None if value is None else value[:MAX_VALUE_BYTES].decode("utf-8", "replace").strip()
