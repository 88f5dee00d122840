"""TLS of the listener: a context from files, made anew when they change."""

from __future__ import annotations

import logging
import re
import ssl
from datetime import UTC, datetime
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

_CERTIFICATE: Final = re.compile(rb"-----BEGIN (X509 |TRUSTED )?CERTIFICATE-----")
_KEY: Final = re.compile(rb"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----")
_PASSPHRASE: Final = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED")

_log = logging.getLogger("sidecar.tls")

Stamp = tuple[int, int, int]
"""What changes when a file does: inode, time of change in ns, size in bytes."""


class TlsFileError(ConfigError):
    """A file that cannot be used, and the setting of `[tls]` that names it."""

    def __init__(self, setting: str, file: str, why: str) -> None:
        super().__init__(f"{file}: {why}")
        self.setting = setting


class ServerTls:
    """The context for new connections; those that stand keep the one they began with."""

    def __init__(self, settings: TlsSettings) -> None:
        """Read the files; ConfigError when they cannot be used."""
        self._settings = settings
        self._stamp = self._look()
        self.context = load(settings)
        _warn_if_expired(settings.cert_file)

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
        _warn_if_expired(self._settings.cert_file)
        return True

    def _look(self) -> tuple[Stamp | None, ...]:
        settings = self._settings
        return tuple(
            stamp_if_any(Path(file))
            for file in (settings.cert_file, settings.key_file, settings.client_ca_file)
            if file is not None
        )


def load(settings: TlsSettings) -> ssl.SSLContext:
    """Return a server's context; TlsFileError names the file that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.set_alpn_protocols(["http/1.1"])
    context.verify_mode = _CLIENT_CERTS[settings.client_certs]
    _check_certificate("cert_file", settings.cert_file)
    _check_key("key_file", settings.key_file)
    try:
        # A key with a passphrase is refused: OpenSSL would ask for it on the terminal.
        context.load_cert_chain(settings.cert_file, settings.key_file, password="")
    except (OSError, ValueError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            why = f"is not the key of the certificate in {settings.cert_file}"
        else:
            why = _reason(error)
        raise TlsFileError("key_file", settings.key_file, why) from error
    if settings.client_ca_file is not None:
        _check_certificate("client_ca_file", settings.client_ca_file)
        context.load_verify_locations(settings.client_ca_file)
    return context


def _check_certificate(setting: str, file: str) -> None:
    text = _read(setting, file)
    if not _CERTIFICATE.search(text):
        other = ": it holds a private key" if _KEY.search(text) else ""
        raise TlsFileError(setting, file, f"holds no certificate in PEM{other}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ValueError) as error:
        raise TlsFileError(setting, file, _reason(error)) from error


def _check_key(setting: str, file: str) -> None:
    text = _read(setting, file)
    if not _KEY.search(text):
        other = ": it holds a certificate" if _CERTIFICATE.search(text) else ""
        raise TlsFileError(setting, file, f"holds no private key in PEM{other}")
    if _PASSPHRASE.search(text):
        raise TlsFileError(setting, file, "its key has a passphrase: write it without one")


def _read(setting: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise TlsFileError(setting, file, error.strerror or str(error)) from error


def _warn_if_expired(file: str) -> None:
    """Tell of a certificate that clients will not believe; it is served all the same."""
    from cryptography import x509  # noqa: PLC0415 -- only workers with TLS pay for it

    try:
        ends = x509.load_pem_x509_certificate(Path(file).read_bytes()).not_valid_after_utc
    except (OSError, ValueError):  # OpenSSL took it: it may be replaced at this moment
        return
    if ends < datetime.now(UTC):
        since = ends.isoformat(timespec="seconds")
        _log.warning("TLS certificate has expired", extra={"file": file, "since": since})


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


def stamp_if_any(file: Path) -> Stamp | None:
    """Return what changes when a file does; None while it cannot be looked at."""
    try:
        return stamp_of(file)
    except OSError:
        return None
