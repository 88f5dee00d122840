"""Where the keys of an issuer come from: files, or a server. Each is read again and again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.identity.keys import KeySet, KeySetError, load_jwks, load_pem
from sidecar.runtime.tls import stamp_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from sidecar.identity.keys import Key
    from sidecar.model.issuer import IdentitySettings, KeyFile
    from sidecar.runtime.tls import Stamp

MAX_FILE_BYTES: Final = 256 * 1024  # as of what is fetched: all of it goes to every worker


class Source(Protocol):
    """Where keys are read."""

    @property
    def is_local(self) -> bool:
        """Whether looking again costs nobody anything."""

    async def read(self) -> KeySet | None:
        """Return the keys; None when nothing has changed since they were last returned.

        Raises KeySetError while they cannot be had.
        """


def source_of(settings: IdentitySettings) -> Source:
    """Return the source that the settings of an issuer name."""

    def load(raw: bytes) -> KeySet:
        skips = settings.keys_of_other_use == "skip"
        return load_jwks(raw, settings.algorithms, skips_other_uses=skips)

    if settings.jwks_file:
        file = Path(settings.jwks_file)
        return Files([file], lambda: _read_jwks(file, load))
    if settings.keys:
        files = [Path(key.file) for key in settings.keys]
        return Files(files, lambda: _read_pem(settings.keys, settings.algorithms))
    # Loaded only where keys are fetched: aiohttp takes its time.
    from sidecar.identity.fetch import Place, fetch  # noqa: PLC0415

    place = Place.of(settings)
    return Fetched(lambda: fetch(place), load)


class Files:
    """Keys in files, read again when one of them changes."""

    is_local = True

    def __init__(self, files: Sequence[Path], load: Callable[[], KeySet]) -> None:
        self._files = files
        self._load = load
        self._stamps: list[Stamp] = []
        self._fault = ""

    async def read(self) -> KeySet | None:
        """Return the keys if a file has changed, else None; raises KeySetError."""
        # Looked at before they are read: what changes in between is read again.
        stamps = [_stamp(file) for file in self._files]
        if stamps != self._stamps:
            self._stamps, self._fault = stamps, ""
            try:
                return self._load()
            except KeySetError as error:
                self._fault = str(error)
        if self._fault:
            raise KeySetError(self._fault)
        return None


class Fetched:
    """Keys from a server."""

    is_local = False

    def __init__(
        self, fetch: Callable[[], Awaitable[bytes]], load: Callable[[bytes], KeySet]
    ) -> None:
        self._fetch = fetch
        self._load = load

    async def read(self) -> KeySet | None:
        """Return the keys as they are now; raises KeySetError."""
        return self._load(await self._fetch())


def _read_jwks(file: Path, load: Callable[[bytes], KeySet]) -> KeySet:
    try:
        return load(_contents(file))
    except KeySetError as error:
        raise KeySetError(f"{file}: {error}") from error


def _read_pem(named: Sequence[KeyFile], algorithms: Collection[str]) -> KeySet:
    """Read keys that are named one by one; none of them is left out."""
    keys: dict[str, Key] = {}
    for one in named:
        file = Path(one.file)
        only = algorithms if one.algorithm is None else (one.algorithm,)
        try:
            key = load_pem(_contents(file), one.kid, only)
        except KeySetError as error:
            raise KeySetError(f"{file}: {error}") from error
        if one.kid and one.kid in keys:
            raise KeySetError(f"{file}: its kid '{one.kid}' is another key's already")
        keys[one.kid or str(file)] = key
    return KeySet(tuple(keys.values()))


def _stamp(file: Path) -> Stamp:
    try:
        return stamp_of(file)
    except OSError as error:
        raise KeySetError(f"{file}: {error.strerror}") from error


def _contents(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeySetError(f"{file}: {error.strerror}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise KeySetError(f"{file}: is over {MAX_FILE_BYTES} bytes")
    return raw
