"""Entries of a history, and whether they are what was committed: anybody may have written them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.errors import SidecarError
from sidecar.policy import codec
from sidecar.policy.problem import PolicyError

if TYPE_CHECKING:
    from sidecar.store.base import HistoryEntry, Store

MAX_REVISIONS: Final = 1000
"""That are looked through: each holds a whole document, and none is removed."""


class BrokenEntryError(SidecarError):
    """An entry of a history is not what was committed."""


def fault_of(entry: HistoryEntry, model: str) -> str:
    """Return why an entry of a model's history is not what was committed, "" when it is."""
    if entry.digest != codec.digest(entry.document):
        return "its digest does not fit its document"
    try:
        said = codec.decode(entry.document, source="").model
    except PolicyError:
        return ""  # it was committed so; whoever reads it is told what is wrong with it
    return "" if said == model else f"its document is of the model `{said}`"


async def find_revision(store: Store, model: str, revision: int) -> HistoryEntry | None:
    """Return a revision of the history, reading none that is older."""
    newest = next(iter(await store.history(model, limit=1)), None)
    if newest is None:
        return None
    later = max(newest.revision - revision, 0)
    entries = await store.history(model, limit=min(later + 1, MAX_REVISIONS))
    return next((one for one in entries if one.revision == revision), None)


def expect_committed(entry: HistoryEntry, model: str) -> None:
    """Raise BrokenEntryError for an entry of a model's history that is not what was committed."""
    if fault := fault_of(entry, model):
        raise BrokenEntryError(
            f"revision {entry.revision} of {model} is not what was committed: {fault}. "
            f"`rmv history {model}` lists the revisions and marks such ones"
        )
