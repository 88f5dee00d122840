"""What applying files would do to a store: which fields change, and whose edits would be lost.

Files are applied three-way. The base is what files last said: the newest revision of the history
that carries its own fingerprint in `applied`, which only an apply writes. What was changed in the
store since then, by whatever other means, is an edit; one that the files do not contain would be
lost, and is not overwritten unasked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple, TextIO

import msgspec

from sidecar.cli import output
from sidecar.model.identity import JSON
from sidecar.model.policy import Policy
from sidecar.policy import codec
from sidecar.policy.diff import Change, diff, fingerprint, undone
from sidecar.policy.problem import PolicyError
from sidecar.policy.validate import validate
from sidecar.store.adoption import DIRECT
from sidecar.store.base import HistoryEntry, Store
from sidecar.store.seal import Keyring

_COLOURS: dict[tuple[bool, bool], output.Colour] = {
    (True, False): "green",
    (False, True): "red",
    (False, False): "yellow",
}
"""By whether nothing was there before, and whether nothing is there after."""

LOOK_BACK = 100  # revisions: further back than anybody leaves an edit lie


class Review(NamedTuple):
    """One model: what is stored, what is wanted (None: nothing), and what lies between.

    `stored` is None also for a document that cannot be read. `undone` are the edits that would be
    lost, `editors` who made them. `is_behind`: the store went back, and sidecars refuse it, as they
    decide by a newer revision. `is_broken`: what is stored is no valid document, read or not. Where
    it cannot be read, `changes` are those to the last good revision, `compared_with`, if any.
    `is_unsigned`: it is not signed by the key which the store signs with.
    """

    model: str
    raw: bytes | None
    stored: Policy | None
    wanted: Policy | None
    changes: tuple[Change, ...] = ()
    undone: tuple[Change, ...] = ()
    editors: tuple[str, ...] = ()
    was_applied: bool = True
    is_behind: bool = False
    is_broken: bool = False
    compared_with: int | None = None
    is_unsigned: bool = False

    @property
    def is_loss(self) -> bool:
        """Whether somebody would miss what is stored: an edit, or a text that nobody replaces.

        A document that is not valid is in no history. Files that describe its model repair it.
        """
        return bool(self.undone) or (self.is_broken and self.wanted is None)

    @property
    def is_settled(self) -> bool:
        """Whether the store says what the files say, knows that they do, and is believed."""
        stored = self.stored
        if self.is_behind or self.is_broken or self.is_unsigned:
            return False
        return stored is not None and not self.changes and stored.applied == fingerprint(stored)


async def review(store: Store, model: str, wanted: Policy | None) -> Review:
    """Compare what is stored for a model with what files want; raises StoreUnavailableError."""
    try:
        raw = await store.get_document(model)
    except PolicyError:  # no string: it can be compared with nothing
        if wanted is not None:
            raise
        raw = b""
    stored = read(raw, model)
    if raw is None or stored is None:
        base = None if raw is None else await last_good(store, model)
        return Review(
            model,
            raw,
            None,
            wanted,
            diff(base, wanted),
            is_broken=raw is not None,
            compared_with=None if base is None else base.revision,
        )
    changes, is_broken = diff(stored, wanted), bool(validate(stored))
    is_gone = wanted is None and stored.deleted
    if not changes or is_gone:
        behind = await is_behind(store, stored)
        is_unsigned = store.signer is not None and bool(
            Keyring([store.signer.public]).fault_of_policy(stored)
        )
        return Review(
            model,
            raw,
            stored,
            wanted,
            is_behind=behind,
            is_broken=is_broken,
            is_unsigned=is_unsigned,
        )
    base, editors = await _since_applied(store, stored, codec.digest(raw))
    lost = undone(base, stored, wanted)
    return Review(
        model,
        raw,
        stored,
        wanted,
        changes,
        lost,
        editors if lost else (),
        was_applied=base is not None,
        is_broken=is_broken,
    )


async def is_behind(store: Store, stored: Policy) -> bool:
    """Return whether a sidecar decides by a newer revision than a store that went back has."""
    return any(
        one.revisions.get(stored.model, 0) > stored.revision > 0
        for one in await store.fleet(stored.model)
    )


async def last_good(store: Store, model: str) -> Policy | None:
    """Return the newest revision that is valid: by it is decided while what is stored is not."""
    for entry in await store.history(model, limit=LOOK_BACK):
        policy = read(entry.document, model)
        if policy is not None and not validate(policy):
            return policy
    return None


def read(raw: bytes | None, model: str) -> Policy | None:
    """Return what is stored for a model; None also for what is no policy, or another model's."""
    policy = None if raw is None else decoded(raw)
    return policy if policy is not None and policy.model == model else None


def decoded(raw: bytes) -> Policy | None:
    """Return a policy; None for a broken one."""
    try:
        return codec.decode(raw, source="store")
    except PolicyError:
        return None


def show(changes: Iterable[Change], stream: TextIO) -> None:
    """Print changes for people, one a line."""
    for one in changes:
        colour = _COLOURS[one.before is None, one.after is None]
        print("  " + output.paint(spell(one), colour, stream), file=stream)


def spell(change: Change) -> str:
    """Write a change as `~ default: "v1" -> "v2"`; `+` is new, `-` gone."""
    where, before, after = change.spell(), _json(change.before), _json(change.after)
    if change.before is None:
        return output.plain(f"+ {where}: {after}")
    if change.after is None:
        return output.plain(f"- {where}: {before}")
    return output.plain(f"~ {where}: {before} -> {after}")


def compared(revision: int | None) -> str:
    """Say which revision changes are told against in the place of what is stored, if any."""
    return "" if revision is None else f"; compared with revision {revision}, the last good one"


def as_json(changes: Iterable[Change]) -> list[dict[str, JSON]]:
    """Return changes for programs; `before` and `after` are null where there is nothing."""
    return [{"path": one.spell(), "before": one.before, "after": one.after} for one in changes]


def _json(value: JSON) -> str:
    return msgspec.json.encode(value).decode()


async def _since_applied(
    store: Store, stored: Policy, digest: str
) -> tuple[Policy | None, tuple[str, ...]]:
    """Return what files last said, and who changed it since then, newest first."""
    editors: list[str] = []
    newest = next(iter(await store.history(stored.model, limit=1)), None)
    if newest is None or newest.digest != digest:
        # Written past every commit, and seen by no sidecar yet; or a commit that died half-way.
        if _is_applied(stored, stored.actor) and stored.revision > (
            newest.revision if newest else 0
        ):
            return stored, ()
        editors.append("a direct edit")
    async for entry in _revisions(store, stored.model, newest):
        policy = decoded(entry.document)
        if policy is not None and _is_applied(policy, entry.actor):
            return policy, tuple(editors)
        editors.append(_named(entry))
    return None, tuple(editors)


async def _revisions(
    store: Store, model: str, newest: HistoryEntry | None
) -> AsyncIterator[HistoryEntry]:
    """Iterate over the history, newest first; what it mostly takes is the first one alone."""
    if newest is not None:
        yield newest
        for entry in (await store.history(model, limit=LOOK_BACK))[1:]:
            yield entry


def _is_applied(policy: Policy, actor: str) -> bool:
    return actor != DIRECT and policy.applied == fingerprint(policy)


def _named(entry: HistoryEntry) -> str:
    said = f" ({entry.comment})" if entry.comment else ""
    return output.plain(f"revision {entry.revision} by {entry.actor}{said}")
