"""TLS of the listener: a context from files, made anew when they change."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sidecar.errors import ConfigError

if TYPE_CHECKING:
    from sidecar.model.tls import TlsSettings

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CLIENT_CERTS: Final = {
    "off": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}

Stamp = tuple[int, int, int]
"""What changes when a file does: inode, time of change in ns, size in bytes."""


class ServerTls:
    """The context for new connections; those that stand keep the one they began with."""

    def __init__(self, settings: TlsSettings) -> None:
        """Read the files; ConfigError when they cannot be used."""
        self._settings = settings
        self._stamp = self._look()
        self.context = load(settings)

    def reload(self) -> bool:
        """Read the files again if they changed; return whether there is a new context.

        Files that cannot be used raise ConfigError, once for each change, and leave the context
        as it was: certificate and key are two files, and one of them is written first.
        """
        stamp = self._look()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self.context = load(self._settings)
        return True

    def _look(self) -> tuple[Stamp | None, ...]:
        settings = self._settings
        return tuple(
            _stamp_if_any(Path(file))
            for file in (settings.cert_file, settings.key_file, settings.client_ca_file)
            if file is not None
        )


def load(settings: TlsSettings) -> ssl.SSLContext:
    """Return a server's context; ConfigError names the files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.set_alpn_protocols(["http/1.1"])
    context.verify_mode = _CLIENT_CERTS[settings.client_certs]
    try:
        # A key with a passphrase is refused: OpenSSL would ask for it on the terminal.
        context.load_cert_chain(settings.cert_file, settings.key_file, password="")
    except (OSError, ValueError) as error:
        named = f"{settings.cert_file} and {settings.key_file}"
        raise ConfigError(f"{named}: {_reason(error)}") from error
    if settings.client_ca_file is not None:
        try:
            context.load_verify_locations(settings.client_ca_file)
        except OSError as error:
            raise ConfigError(f"{settings.client_ca_file}: {_reason(error)}") from error
    return context


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):  # `reason` is typed as text and is None at times
        return str(error.reason or "is not PEM").lower().replace("_", " ")
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def stamp_of(file: Path) -> Stamp:
    """Return what changes when a file does; raises OSError.

    Links are followed: Kubernetes renews secrets by turning one.
    """
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _stamp_if_any(file: Path) -> Stamp | None:
    try:
        return stamp_of(file)
    except OSError:
        return None
