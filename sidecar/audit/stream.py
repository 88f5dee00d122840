"""Audit in a stream of the store, which all processes that live by it add to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar.errors import AuditUnwritableError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence


class AuditStore(Protocol):
    """The part of a store in use."""

    async def add_audit(self, lines: Sequence[bytes], keep: int) -> None:
        """Add lines; raises StoreUnavailableError, after which some may have been added."""


class StreamSink:
    """Adds lines to the stream of a store, of which `keep` entries are kept."""

    name = "stream"

    def __init__(self, store: AuditStore, keep: int) -> None:
        self._store = store
        self._keep = keep

    async def append(self, lines: Sequence[bytes]) -> None:
        """Keep lines; raises AuditUnwritableError, after which some may be there already."""
        try:
            await self._store.add_audit(lines, self._keep)
        except StoreUnavailableError as error:
            raise AuditUnwritableError(str(error)) from error

    async def settle(self) -> None:
        """Leave it to the server when what it has reaches a disk."""

    async def close(self) -> None:
        """Leave the store to whoever has opened it."""
