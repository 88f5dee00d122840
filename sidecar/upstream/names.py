"""What the names of endpoints resolve to: asked again and again while in use."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from typing import TYPE_CHECKING, Final

from sidecar.policy.address import ANYWHERE, AllowList
from sidecar.runtime import faults
from sidecar.runtime.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

REFRESH_S: Final = 5.0
DOUBTED_S: Final = 1.0  # between lookups while nothing is known, or nothing known accepts
STALE_WAIT_S: Final = 0.1  # for DNS, when there is an old answer to fall back on
_log = logging.getLogger("sidecar.upstream")


async def ask_system(host: str, port: int) -> list[str]:
    """Resolve as the system does; raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(where[0]) for *_, where in found]


class Name:
    """One name: its addresses of the last good answer, taken in turn."""

    def __init__(
        self,
        host: str,
        port: int,
        resolve: Resolve,
        monotonic_s: Callable[[], float],
        allowed: AllowList = ANYWHERE,
    ) -> None:
        self.addresses: tuple[str, ...] = ()
        self.has_moved = False  # an address has gone from the answer at some time
        self._host = host
        self._port = port
        self._resolve = resolve
        self._allowed = allowed
        self._monotonic_s = monotonic_s
        self._answered_s = -math.inf
        self._is_expired = True
        self._lookup: asyncio.Task[None] | None = None
        self._fault = ""
        self._turn = 0

    async def take(self) -> tuple[str, ...]:
        """Return the addresses, another one first each time; raises OSError if there are none.

        Waits for DNS while nothing is known, and a moment when what is known is old.
        """
        if self._is_due():
            lookup = self._look_up()
            # A wait that ends early leaves the lookup running, for whoever comes next.
            await asyncio.wait({lookup}, timeout=STALE_WAIT_S if self.addresses else None)
        if not self.addresses:
            raise OSError(self._fault)
        self._turn = turn = (self._turn + 1) % len(self.addresses)
        return self.addresses[turn:] + self.addresses[:turn]

    def refresh(self) -> None:
        """Ask again in the background, if it is time."""
        if self._is_due():
            self._look_up()

    def expire(self) -> None:
        """Doubt the answer: none of its addresses accepts connections."""
        self._is_expired = True

    def _is_due(self) -> bool:
        lasts_s = DOUBTED_S if self._is_expired else REFRESH_S
        return self._monotonic_s() - self._answered_s >= lasts_s

    def _look_up(self) -> asyncio.Task[None]:
        if self._lookup is None or self._lookup.done():
            self._lookup = spawn(self._ask(), name=f"resolve {self._host}")
        return self._lookup

    async def _ask(self) -> None:
        try:
            self._take_over(await self._resolve(self._host, self._port))
        except (OSError, UnicodeError) as error:
            self._note_fault(getattr(error, "strerror", None) or str(error))
        except Exception as error:  # noqa: BLE001 -- it is asked again, and until then not known
            self._note_fault(faults.note("names", error))
        self._answered_s = self._monotonic_s()
        self._is_expired = not self.addresses

    def _take_over(self, answer: Sequence[str]) -> None:
        faults = {one: self._allowed.reach_fault(one, self._port) for one in answer}
        usable = tuple(one for one, fault in faults.items() if fault is None)
        if not usable:
            why = ", ".join(f"{one} ({fault})" for one, fault in faults.items())
            raise OSError(f"no address in the answer may be connected to: {why}")
        self.has_moved |= not set(self.addresses) <= set(usable)
        self.addresses = usable
        self._fault = ""

    def _note_fault(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            _log.warning("name not resolved", extra={"host": self._host, "reason": fault})
