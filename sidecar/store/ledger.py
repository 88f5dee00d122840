"""The newest that was signed of each policy, pin and kill, in a file that outlives the workers.

Without it a worker that starts would believe any copy that was ever signed. All workers of a
sidecar share the file: a row of it only ever gives way to a newer one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Final

from sidecar.errors import ConfigError
from sidecar.runtime.slices import Slice
from sidecar.runtime.tasks import repeat
from sidecar.store.keys import KillKey, PinKey, PolicyKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sidecar.store.keys import Keys
    from sidecar.store.live import LivePolicies
    from sidecar.store.trust import Trust

_BUSY_S: Final = 10.0  # how long another worker may write
_RETRY_S: Final = 1.0
_BATCH: Final = 1000  # rows of one transaction
_PAGE: Final = 200  # rows that are read in one go
_log = logging.getLogger("sidecar.store")

_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS signed "
    "(key TEXT PRIMARY KEY, rank INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID"
)
_PUT: Final = (
    "INSERT INTO signed VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
    "SET rank = excluded.rank, value = excluded.value WHERE excluded.rank > signed.rank"
)
_DROP: Final = "DELETE FROM signed WHERE key = ? AND rank = ?"
_NEXT: Final = "SELECT key, rank, value FROM signed WHERE key > ? ORDER BY key LIMIT ?"


class Ledger:
    """One file, opened. What is noted is written soon, durably (fsync), by `run`.

    Raises:
        ConfigError: the file cannot be opened, made or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._noted: dict[str, tuple[int, bytes]] = {}  # by key; the newest wins
        self._wake = asyncio.Event()
        self._is_failing = False
        self._job: asyncio.Future[None] | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._base = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
            # A transaction that was answered is on the disk, and so is the folder's entry of it.
            self._base.execute("PRAGMA synchronous = EXTRA")
            with self._base:
                self._base.execute(_CREATE)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"state_dir: {path}: {error}") from error

    def note(self, key: str, rank: int, value: bytes) -> None:
        """Remember that nothing of `key` may have a lower `rank` than this any more."""
        self._noted[key] = rank, value
        self._wake.set()

    async def restore(self, live: LivePolicies, trust: Trust, keys: Keys) -> None:
        """Bring into force what is remembered, before the store is asked.

        What no key signed that is trusted now is forgotten.

        Raises:
            ConfigError: the file cannot be read.
        """
        trust.restoring(is_so=True)
        turn = Slice()
        dropped = 0
        try:
            for spelled, rank, value in self._rows():
                key = keys.parse(spelled.encode())
                if isinstance(key, PolicyKey | PinKey | KillKey):
                    live.put(key, value)
                    if trust.is_stranger(key, rank):
                        self._drop(spelled, rank)
                        dropped += 1
                if turn.is_over():
                    await turn.rest()
        except sqlite3.Error as error:
            raise ConfigError(f"state_dir: {self._path}: {error}") from error
        finally:
            trust.restoring(is_so=False)
        if dropped:
            _log.warning(
                "signatures forgotten: of keys that are no longer trusted",
                extra={"file": str(self._path), "number": dropped},
            )
        trust.remember = self.note

    async def run(self) -> None:
        """Write what is noted until cancelled."""
        await repeat(self._turn, part="signatures")

    async def _turn(self) -> None:
        if not self._noted:
            await self._wake.wait()
            self._wake.clear()
        elif not await self._write():
            await asyncio.sleep(_RETRY_S)

    async def close(self) -> None:
        """Write what is left, once `run` has ended, and let go of the file."""
        if self._job is not None:
            await asyncio.wait((self._job,))
            self._job.exception()  # it is in what is left, then
        while self._noted and await self._write():
            pass
        self._base.close()

    async def _write(self) -> bool:
        """Write a portion of what is noted; return whether that went well."""
        portion = dict(islice(self._noted.items(), _BATCH))
        try:
            # Not cancelled with who waits: a thread goes on, and `close` has to know of it.
            self._job = asyncio.get_running_loop().run_in_executor(None, self._put, portion)
            await asyncio.shield(self._job)
        except sqlite3.Error as error:
            if not self._is_failing:
                _log.error(
                    "signatures not remembered",
                    extra={"file": str(self._path), "reason": str(error)},
                )
            self._is_failing = True
            return False
        self._is_failing = False
        for key, row in portion.items():
            if self._noted.get(key) == row:  # what was noted meanwhile is newer
                del self._noted[key]
        return True

    def _put(self, portion: Mapping[str, tuple[int, bytes]]) -> None:
        with self._base:
            self._base.executemany(_PUT, [(key, *row) for key, row in portion.items()])

    def _rows(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield the rows by key, a page at a time, so that others can write in between."""
        last = ""
        while True:
            with closing(self._base.execute(_NEXT, (last, _PAGE))) as found:
                page: list[tuple[str, int, bytes]] = found.fetchall()
            if not page:
                return
            yield from page
            last = page[-1][0]

    def _drop(self, key: str, rank: int) -> None:
        with self._base:
            self._base.execute(_DROP, (key, rank))
