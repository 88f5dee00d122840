"""The admin listener of the control process, wired from the settings."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sidecar.admin.access import Access
from sidecar.admin.api import AdminApi, Desk, Signed
from sidecar.admin.server import AdminServer
from sidecar.app.auditing import noting, telling
from sidecar.app.credentials import Credentials
from sidecar.config import allow_list
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.connect import open_store

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sidecar.audit.log import AuditLog
    from sidecar.config import ServeSpec
    from sidecar.store.base import Store
    from sidecar.telemetry.metrics import Metrics


@asynccontextmanager
async def administering(
    spec: ServeSpec,
    listening: socket.socket | None,
    audit: AuditLog,
    metrics: Metrics,
    *,
    unready: Callable[[], Awaitable[str]],
    exposition: Callable[[], Awaitable[str]],
) -> AsyncIterator[Callable[[], None]]:
    """Answer on a bound socket, None for no admin listener, until the block is left.

    Credentials in the file of the settings hold as soon as it changes; yields what reads it now.

    Raises:
        ConfigError: the files of `admin_tls` cannot be used.
    """
    if listening is None:
        yield lambda: None
        return
    config, clock = spec.config, SystemClock()
    url = config.admin_api.redis or config.redis
    store = open_store(url, config.prefix, config.state_dir)

    def store_of(actor: str) -> Store:
        return telling(store, noting(audit, actor))

    signing = config.signing
    is_signed = bool(signing.trusted)
    desk = Desk(
        store_of,
        allow_list(config),
        clock.now_s,
        Signed(documents=is_signed, kills=is_signed and not signing.exempt_kills),
        lambda: audit.is_refusing,
    )
    access = Access(
        config.admin_api,
        config.admin_tokens,
        config.admin_certificates,
        monotonic_s=clock.monotonic_s,
        note=audit.note,
        metrics=metrics,
    )
    api = AdminApi(desk, access, metrics)
    server = AdminServer(unready, exposition, access, api, config.admin_api)
    credentials = Credentials(config, spec.file, access, note=audit.note, metrics=metrics)
    renewing = spawn(credentials.run(), name="admin credentials")
    try:
        await server.start(listening, config.admin_tls)
        yield credentials.read
    finally:
        await stop(renewing)
        await server.stop()
        await api.settle()
        await store.close()
