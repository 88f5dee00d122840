"""Whether an entry of a history is what was committed: anybody may have written it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import SidecarError
from sidecar.policy import codec
from sidecar.policy.problem import PolicyError

if TYPE_CHECKING:
    from sidecar.store.base import HistoryEntry


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


def expect_committed(entry: HistoryEntry, model: str) -> None:
    """Raise BrokenEntryError for an entry of a model's history that is not what was committed."""
    if fault := fault_of(entry, model):
        raise BrokenEntryError(
            f"revision {entry.revision} of {model} is not what was committed: {fault}. "
            f"`rmv history {model}` lists the revisions and marks such ones"
        )
