"""Where commands read audit: the store's stream, files of the settings, or files that are named.

The stream has what all sidecars did that live by the store, the files what those of one host did:
so commands that look for something read the stream where there is one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, NamedTuple, Protocol

import typer

from sidecar.audit.entry import Entry, decode
from sidecar.audit.files import FileReader
from sidecar.cli.failure import advised
from sidecar.cli.lookup import NotFoundError
from sidecar.cli.options import one_of
from sidecar.cli.session import Session
from sidecar.errors import SidecarError
from sidecar.store.base import Store

_PAGE = 1000


class Source(Enum):
    """Which of them, where there are both."""

    FILES = "files"
    STREAM = "stream"


Files = Annotated[
    list[Path] | None,
    typer.Option(help="Read this file or folder instead; may be repeated.", metavar="FILE"),
]
From = Annotated[
    Source | None,
    typer.Option("--source", parser=one_of(Source), help="`files` or `stream`.", metavar="NAME"),
]


class Page(NamedTuple):
    """Some lines of one file or stream, each with its number or id."""

    source: str
    lines: list[tuple[object, bytes]]


class Found(NamedTuple):
    """An entry, and the line that it is."""

    line: bytes
    entry: Entry


class Trail(Protocol):
    """One place where audit is read; each call of `pages` goes on where the last one ended."""

    name: str
    is_whole: bool
    """Whether nothing was ever removed from it, as far as can be told."""

    def pages(self, *, takes_torn: bool = True) -> AsyncIterator[Page]:
        """Iterate over what has come; a line without end is left for later, unless taken."""


class FileTrail:
    """A file, or a folder of them."""

    def __init__(self, place: Path) -> None:
        """Raise NotFoundError for a place that cannot be read."""
        self.name = str(place)
        self._reader = FileReader(place)
        try:
            self.is_whole = self._reader.is_whole()
        except OSError as error:
            raise _unreadable(error, place) from error
        if not place.exists():
            raise NotFoundError(f"{place}: there is no such file or folder")

    async def pages(self, *, takes_torn: bool = True) -> AsyncIterator[Page]:
        """Iterate over what has come since."""
        try:
            for path, lines in self._reader.pages(takes_torn=takes_torn):
                yield Page(path.name, lines)
        except OSError as error:
            raise _unreadable(error, self.name) from error


class StreamTrail:
    """The stream of a store."""

    is_whole = False  # it is trimmed, and does not tell who does

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self._store = store
        self._after = ""

    async def pages(self, *, takes_torn: bool = True) -> AsyncIterator[Page]:
        """Iterate over what has come since."""
        lines: list[tuple[object, bytes]] = []
        async for at, line in self._store.audit(self._after):
            self._after = at
            lines.append((at, line))
            if len(lines) >= _PAGE:
                yield Page(self.name, lines)
                lines = []
        if lines:
            yield Page(self.name, lines)


async def trails(
    session: Session, files: Sequence[Path] | None, source: Source | None
) -> list[Trail]:
    """Return all places that are meant, the stream before the files of the settings.

    Raises:
        NotFoundError: there is no audit.
    """
    if files:
        return [FileTrail(path) for path in files]
    found: list[Trail] = []
    folder = Path(session.config.audit.dir)
    if source is not Source.FILES and await session.store.is_audited():
        found.append(StreamTrail(session.store, f"{session.config.prefix}:audit"))
    if source is not Source.STREAM and session.config.audit.dir and _is_folder(folder):
        found.append(FileTrail(folder))
    if not found:
        error = NotFoundError("there is no audit here")
        raise advised(
            error,
            "Sidecars keep it when audit.stream or audit.dir is set (docs/audit.md). --config names"
            " their settings, --file a file or folder to read.",
        )
    return found


async def trail_of(session: Session, files: Sequence[Path] | None, source: Source | None) -> Trail:
    """Return the place to look in: all files that are named, else the first of `trails`.

    Raises:
        NotFoundError: there is no audit.
    """
    found = await trails(session, files, source)
    return _Joined(found) if files else found[0]


class _Joined:
    """Several places, one after the other."""

    is_whole = False

    def __init__(self, parts: Sequence[Trail]) -> None:
        self.name = ", ".join(one.name for one in parts)
        self._parts = parts

    async def pages(self, *, takes_torn: bool = True) -> AsyncIterator[Page]:
        for part in self._parts:
            async for page in part.pages(takes_torn=takes_torn):
                yield page


async def entries(trail: Trail, *, takes_torn: bool = True) -> AsyncIterator[Found]:
    """Iterate over the entries of a place, the oldest first; of what is none, `verify` tells."""
    async for page in trail.pages(takes_torn=takes_torn):
        for _, line in page.lines:
            try:
                entry = decode(line)
            except (ValueError, RecursionError):  # of JSON, or of text that is no UTF-8
                continue
            yield Found(line, entry)


def _is_folder(path: Path) -> bool:
    return path.is_dir()


def _unreadable(error: OSError, place: object) -> SidecarError:
    return SidecarError(f"{error.filename or place}: {error.strerror}")
