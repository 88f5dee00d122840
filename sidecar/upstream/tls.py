"""The TLS context of connections to endpoints, built anew when one of its files changes."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sidecar.runtime.tls import stamp_of

if TYPE_CHECKING:
    from sidecar.model.upstream import UpstreamTls
    from sidecar.runtime.tls import Stamp

LOOK_S: Final = 1.0  # how long a changed file may go unnoticed

_log = logging.getLogger("sidecar.upstream")


class TlsContext:
    """One context for all endpoints; whoever holds an old one keeps it until it has connected."""

    def __init__(self, settings: UpstreamTls) -> None:
        self._settings = settings
        named = (settings.ca_file, settings.cert_file, settings.key_file)
        self._files = tuple(Path(name) for name in named if name)
        self._stamp: tuple[Stamp, ...] = ()
        self._context: ssl.SSLContext | None = None
        self._looked_s = 0.0
        self._fault = ""

    def current(self, now_s: float) -> ssl.SSLContext:
        """Return the context of the files as they are, or of their last good state.

        Raises OSError or ValueError while there is none. Files are looked at once in `LOOK_S`.
        """
        context = self._context
        if context is not None and now_s - self._looked_s < LOOK_S:
            return context
        self._looked_s = now_s
        try:
            return self._look()
        except (OSError, ValueError) as error:  # a file, or what is in it: a key of another
            if context is None:
                raise
            if self._fault != str(error):
                self._fault = str(error)
                _log.warning("TLS files not reloaded", extra={"reason": self._fault})
            return context

    def _look(self) -> ssl.SSLContext:
        stamp = tuple(stamp_of(file) for file in self._files)
        if self._context is None or stamp != self._stamp:
            self._context = _build(self._settings)
            self._stamp = stamp
        self._fault = ""
        return self._context


def _build(settings: UpstreamTls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if settings.cert_file:
        # A key with a passphrase is refused: OpenSSL would ask for it on the terminal.
        context.load_cert_chain(settings.cert_file, settings.key_file or None, password="")
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
