"""Who may use the admin listener, kept to what the settings file says."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sidecar.config import with_credentials
from sidecar.errors import ConfigError
from sidecar.model.admin import credential_changes
from sidecar.runtime.tasks import repeat
from sidecar.runtime.tls import stamp_if_any

if TYPE_CHECKING:
    from sidecar.admin.access import Access, Note
    from sidecar.config import Config
    from sidecar.model.admin import Credential
    from sidecar.model.identity import JSON
    from sidecar.runtime.tls import Stamp
    from sidecar.telemetry.metrics import Metrics

LOOK_S: Final = 1.0  # at the file: how long a change may go unnoticed
ACTOR: Final = "file"  # whoever wrote it
RELOADS: Final = "rmv_admin_reloads_total"
_log = logging.getLogger("sidecar.admin")


class Credentials:
    """Has `access` believe the credentials of a file, read again when that changes.

    A file that cannot be used leaves the former ones in force, and is told of once.
    """

    def __init__(
        self, config: Config, file: str, access: Access, *, note: Note, metrics: Metrics
    ) -> None:
        """Begin with those of `config`; without a `file` these hold for good."""
        self._config = config
        self._file = Path(file) if file else None
        self._access = access
        self._note = note
        self._metrics = metrics
        self._stamp: Stamp | None = None
        self._is_looked_at = False

    async def run(self) -> None:
        """Look at the file every second until cancelled."""
        if self._file is not None:
            await repeat(self._turn, part="admin")

    async def _turn(self) -> None:
        self._look()
        await asyncio.sleep(LOOK_S)

    def read(self) -> None:
        """Read the file now, be it unchanged."""
        self._is_looked_at = False
        self._look()

    def _look(self) -> None:
        if self._file is None:
            return
        # Looked at before it is read: what changes in between is read again.
        stamp = stamp_if_any(self._file)
        if self._is_looked_at and stamp == self._stamp:
            return
        self._is_looked_at = False  # after a fault it is read again
        try:
            self._take(with_credentials(self._config, self._file, os.environ))
        except ConfigError as error:
            self._metrics.count(RELOADS, "outcome", "refused")
            extra = {"reason": str(error)}
            _log.error("admin credentials refused: the former ones hold", extra=extra)
        self._stamp, self._is_looked_at = stamp, True

    def _take(self, config: Config) -> None:
        changes = credential_changes(_all(self._config), _all(config))
        if not changes:
            return
        self._access.renew(config.admin_tokens, config.admin_certificates)
        self._config = config
        self._metrics.count(RELOADS, "outcome", "loaded")
        facts: dict[str, JSON] = {what: list(ones) for what, ones in changes.items()}
        self._note("credentials", actor=ACTOR, file=str(self._file), **facts)
        told = {what: "; ".join(ones) for what, ones in changes.items()}
        _log.warning("admin credentials changed", extra=told)


def _all(config: Config) -> tuple[Credential, ...]:
    return *config.admin_tokens, *config.admin_certificates
