"""What a worker believes of a store that has to be signed, and what it remembers of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sidecar.app.spec import SIGNATURE_REFUSED
from sidecar.errors import ConfigError
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.embedded import default_state_dir
from sidecar.store.keys import Keys
from sidecar.store.seal import Cause, Keyring

if TYPE_CHECKING:
    import asyncio

    from sidecar.config import Config
    from sidecar.store.ledger import Ledger
    from sidecar.store.live import LivePolicies
    from sidecar.store.trust import Trust
    from sidecar.telemetry.metrics import Metrics

REFUSALS: Final = "rmv_signature_refusals_total"


def trust_of(config: Config, metrics: Metrics) -> Trust | None:
    """Return who judges what the store holds; None when it need not be signed.

    Raises:
        ConfigError: a file of `signing.trusted` is no public key.
    """
    settings = config.signing
    if not settings.trusted:
        return None
    # Loaded only where it is needed, as all of cryptography.
    from sidecar.runtime.ed25519 import KeyFileError, load_public  # noqa: PLC0415
    from sidecar.store.trust import Trust  # noqa: PLC0415

    try:
        keyring = Keyring([load_public(file) for file in settings.trusted])
    except KeyFileError as error:
        raise ConfigError(f"signing.trusted: {error}") from error
    return Trust(
        keyring,
        Keys(config.prefix),
        SystemClock(),
        exempt_kills=settings.exempt_kills,
        count=lambda cause: metrics.count(REFUSALS, "cause", cause),
    )


def measure(trust: Trust | None, metrics: Metrics) -> None:
    """Tell how many keys are refused now, by cause."""
    if trust is not None:
        refused = trust.refused()
        for cause in Cause:
            metrics.levels[SIGNATURE_REFUSED, "cause", cause.value] = refused[cause.value]


class Memory:
    """The newest of all that was signed, kept in the state directory while a worker runs."""

    def __init__(self, ledger: Ledger, writing: asyncio.Task[None]) -> None:
        self._ledger = ledger
        self._writing = writing

    async def end(self) -> None:
        """Write what is left, once the watch has ended."""
        await stop(self._writing)
        await self._ledger.close()


async def remember(config: Config, live: LivePolicies) -> Memory | None:
    """Bring what is remembered into force, before the store is asked; None if nothing is signed.

    Raises:
        ConfigError: the file in the state directory cannot be used.
    """
    if live.trust is None:
        return None
    from sidecar.store.ledger import Ledger  # noqa: PLC0415 -- it needs SQLite

    folder = Path(config.state_dir or default_state_dir())
    ledger = Ledger(folder / f"signed-{config.prefix}.db")
    await ledger.restore(live, live.trust, Keys(config.prefix))
    return Memory(ledger, spawn(ledger.run(), name="signatures"))
