"""Keys of issuers in the control process: kept there, and told to every worker."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from sidecar.app.spec import KEYS, UNKNOWN_KEY
from sidecar.errors import ConfigError, SidecarError
from sidecar.identity.holding import encode
from sidecar.runtime.questions import UnansweredError
from sidecar.runtime.tasks import spawn, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.audit.log import AuditLog
    from sidecar.identity.keeper import Keeper
    from sidecar.model.issuer import IdentitySettings
    from sidecar.runtime.clock import Clock
    from sidecar.runtime.questions import Line
    from sidecar.telemetry.metrics import Metrics

RETELL_S: Final = 1.0  # after a worker could not take keys in


class KeyDesk:
    """Keeps the keys of `issuers`, and each worker that it follows in the know.

    A worker is told what holds when it starts, and again whenever that changes; while it takes
    that in, what happens meanwhile amounts to one more telling.
    """

    def __init__(
        self, issuers: Sequence[IdentitySettings], clock: Clock, metrics: Metrics, audit: AuditLog
    ) -> None:
        self._keepers = {one.issuer: _keeper(one, clock, metrics, self._on_news) for one in issuers}
        for issuer, keeper in self._keepers.items():
            keeper.on_believed = partial(_note, audit, issuer)
        self._news = asyncio.Event()
        self._keeping: list[asyncio.Task[None]] = []
        self._telling: dict[Line, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Read what is on this host, and keep all keys; ConfigError for files that are no good."""
        for n, keeper in enumerate(self._keepers.values()):
            try:
                await keeper.begin()
            except SidecarError as error:
                path = f"issuers[{n - 1}]" if n else "identity"
                raise ConfigError(f"{path}.{keeper.source_setting}: {error}") from error
        for issuer, keeper in self._keepers.items():
            self._keeping.append(spawn(keeper.run(), name=f"keys of {issuer}"))

    async def stop(self) -> None:
        """Keep and tell no more."""
        await stop(*self._keeping, *self._telling.values())

    def refresh(self) -> None:
        """Read all keys now."""
        for keeper in self._keepers.values():
            keeper.refresh()

    def follow(self, line: Line) -> None:
        """Tell a worker that starts of the keys, now and as they change."""
        if self._keepers:
            line.on_notice = self._on_notice
            self._telling[line] = spawn(self._tell(line), name=f"keys to {line.name}")

    def leave(self, line: Line) -> None:
        """Tell nothing to a worker that is gone."""
        telling = self._telling.pop(line, None)
        if telling is not None:
            telling.cancel()

    def measure(self) -> None:
        """Set the gauges."""
        for keeper in self._keepers.values():
            keeper.measure()

    async def _tell(self, line: Line) -> None:
        with suppress(ConnectionError):  # it has ended
            while True:
                news = self._news
                holdings = tuple(keeper.holding() for keeper in self._keepers.values())
                try:
                    await line.ask_patiently(f"{KEYS} {encode(holdings)}")
                except (UnansweredError, TimeoutError):  # else it would go by other keys for good
                    await asyncio.sleep(RETELL_S)
                else:
                    await news.wait()

    def _on_news(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _on_notice(self, text: str) -> None:
        name, _, issuer = text.partition(" ")
        keeper = self._keepers.get(issuer)
        if name == UNKNOWN_KEY and keeper is not None:
            keeper.ask()


def _note(audit: AuditLog, issuer: str, believed: tuple[str, ...], digest: str) -> None:
    audit.note("keys", issuer=issuer, keys=list(believed), digest=digest)


def _keeper(
    settings: IdentitySettings, clock: Clock, metrics: Metrics, on_news: Callable[[], None]
) -> Keeper:
    # Loaded only where tokens are checked: cryptography takes memory and time.
    from sidecar.identity.keeper import Keeper  # noqa: PLC0415
    from sidecar.identity.sources import source_of  # noqa: PLC0415

    return Keeper(
        settings,
        source_of(settings),
        clock=clock,
        draw=random.random,
        metrics=metrics,
        on_news=on_news,
    )
