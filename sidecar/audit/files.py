"""Audit in files of lines, which any number of processes add to, one batch at a time.

`audit-000001.jsonl` is followed by `audit-000002.jsonl` once it is full; the newest is the one with
the highest number, and the oldest are deleted. A chain goes on from one to the next.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import time
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec

from sidecar.errors import AuditUnwritableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sidecar.model.audit import AuditSettings
    from sidecar.runtime.clock import Clock

P = ParamSpec("P")
Numbered = tuple[object, bytes]
"""A line and its number in a file, from 1."""

_NAME: Final = re.compile(r"audit-(\d{6,})\.jsonl")
_FIRST: Final = "audit-000001.jsonl"
_PAGE: Final = 4096  # lines that are read at a time
_SYNC_EVERY_S: Final = 1.0
_LOCK_PAUSE_S: Final = 0.005  # between two tries; a batch is written in less
_LOCK_TRIES: Final = 1000  # 5 s in all
_FILE_MODE: Final = 0o640
_LOCK_MODE: Final = 0o600  # whoever can read it can take the lock, and keep it
_FOLDER_MODE: Final = 0o750


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder, the oldest first; raises OSError."""
    numbered = [(int(found[1]), path) for path in folder.iterdir()
                if (found := _NAME.fullmatch(path.name))]  # fmt: skip
    return [path for _, path in sorted(numbered)]


class FileSink:
    """Adds lines to the newest file of a folder, in a thread: a disk may take its time."""

    name = "files"

    def __init__(self, settings: AuditSettings, clock: Clock) -> None:
        self._folder = Path(settings.dir)
        self._settings = settings
        self._clock = clock
        self._path = self._folder / "audit-000000.jsonl"
        self._fd = -1
        self._synced_s = clock.monotonic_s()
        self._is_dirty = False

    async def append(self, lines: Sequence[bytes]) -> None:
        """Keep lines, all of them or none; raises AuditUnwritableError."""
        await self._in_thread(self.write, lines)

    async def settle(self) -> None:
        """Bring what was written to the disk, once a second."""
        if self._is_dirty and self._is_second_over():
            await self._in_thread(self._sync)

    async def close(self) -> None:
        """Bring what was written to the disk, unless the settings say `never`."""
        if self._is_dirty and self._settings.fsync != "never":
            with suppress(AuditUnwritableError):  # a disk that failed before: it was told then
                await self._in_thread(self._sync)
        self._forget()

    async def _in_thread(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await asyncio.to_thread(work, *args, **kwargs)
        except OSError as error:
            self._forget()
            name = error.filename or self._path
            raise AuditUnwritableError(f"{name}: {error.strerror or error}") from error

    def write(self, lines: Sequence[bytes]) -> None:
        """Keep lines as `append` does, in this thread; raises OSError."""
        with self._locked():
            self._open_newest()
            self._add(b"\n".join([*lines, b""]))
        self._is_dirty = True
        if self._settings.fsync == "batch" or self._is_second_over():
            self._sync()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from writing and from turning to another file."""
        self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        lock = os.open(self._folder / "lock", flags, _LOCK_MODE)
        try:
            _take(lock, self._folder / "lock")
            yield
        finally:
            os.close(lock)

    def _open_newest(self) -> None:
        """Have the newest file open, or the next one if it is full."""
        found = files_in(self._folder)
        newest = found[-1] if found else self._folder / _FIRST
        if found and newest.stat().st_size >= self._settings.file_bytes:
            newest = _next(newest)
            for old in found[: len(found) + 1 - self._settings.files]:
                old.unlink(missing_ok=True)
        if newest != self._path or not self._is_there():
            if self._is_dirty and self._settings.fsync != "never":
                self._sync()
            self._forget()
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(newest, flags, _FILE_MODE)
            self._path = newest
            if newest not in found and self._settings.fsync != "never":
                _sync_folder(self._folder)

    def _is_there(self) -> bool:
        """Return whether the file that is open is still the one of its name."""
        if self._fd < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            return False

    def _add(self, data: bytes) -> None:
        """Write all of `data` or nothing; begin a line, whatever a writer before has left."""
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            data = b"\n" + data  # whoever wrote there died half-way
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, size)
            raise

    def _is_second_over(self) -> bool:
        elapsed_s = self._clock.monotonic_s() - self._synced_s
        return self._settings.fsync == "second" and elapsed_s >= _SYNC_EVERY_S

    def _sync(self) -> None:
        os.fsync(self._fd)
        self._synced_s = self._clock.monotonic_s()
        self._is_dirty = False

    def _forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._is_dirty = False  # a failure to synchronise is told once, by the kernel and here


def _take(lock: int, path: Path) -> None:
    """Wait for a lock, and not for ever: whoever has it may have been stopped; raises OSError."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return
    msg = "another process has held this lock for too long"
    raise BlockingIOError(errno.EWOULDBLOCK, msg, str(path))


def _sync_folder(folder: Path) -> None:
    """Bring to the disk that there is a new file, without which what is in it would be lost."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _next(path: Path) -> Path:
    found = _NAME.fullmatch(path.name)
    number = int(found[1]) + 1 if found else 1
    return path.with_name(f"audit-{number:06}.jsonl")


class FileReader:
    """Reads lines of one file or of all in a folder, the oldest first; each call goes on."""

    def __init__(self, place: Path) -> None:
        """Read from `place` when asked, not before."""
        self._place = place
        self._done: dict[Path, tuple[int, int]] = {}  # bytes and lines that were read

    def is_whole(self) -> bool:
        """Return whether this is a folder of which nothing was deleted yet; raises OSError."""
        if not self._place.is_dir():
            return False
        found = files_in(self._place)
        return bool(found) and found[0].name == _FIRST

    def pages(
        self, *, takes_torn: bool = True
    ) -> Iterator[tuple[Path, list[tuple[object, bytes]]]]:
        """Yield lines that have come, each with its number, some of a file at a time.

        Without `takes_torn` a line that has no end yet is left for later. Raises OSError.
        """
        for path in files_in(self._place) if self._place.is_dir() else [self._place]:
            offset, number = self._done.get(path, (0, 0))
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    while page := list(islice(file, _PAGE)):
                        if not takes_torn and not page[-1].endswith(b"\n"):
                            page.pop()
                        first = number + 1
                        offset, number = offset + sum(map(len, page)), number + len(page)
                        self._done[path] = offset, number
                        yield path, [(n, line.rstrip(b"\n")) for n, line in enumerate(page, first)]
            except FileNotFoundError:
                if path == self._place:
                    raise  # else it was rotated away just now
