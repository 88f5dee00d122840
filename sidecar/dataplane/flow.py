"""Backpressure: whether a transport is read, for several reasons at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidecar.runtime.transport import Transport

UPSTREAM_FULL: Final = 1  # the upstream takes no more of the body now
UNCONNECTED: Final = 2  # a body has begun to arrive before there is an upstream
PIPELINED: Final = 4  # a later request waits for the one in hand


class Reading:
    """A transport is read while no reason against it holds."""

    __slots__ = ("_reasons", "_transport")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._reasons = 0

    def hold(self, reason: int) -> None:
        """Stop reading for `reason`."""
        if not self._reasons:
            self._transport.pause_reading()
        self._reasons |= reason

    @property
    def is_held(self) -> bool:
        """Return whether there is any reason against reading."""
        return bool(self._reasons)

    def is_held_for(self, reason: int) -> bool:
        """Return whether `reason` is one of those against reading."""
        return bool(self._reasons & reason)

    def release(self, reasons: int) -> None:
        """Let one reason, or several, go; read again if none is left."""
        if self._reasons & reasons:
            self._reasons &= ~reasons
            if not self._reasons:
                self._transport.resume_reading()

    def release_all(self) -> None:
        """Read again whatever held it: what comes is dropped."""
        if self._reasons:
            self._reasons = 0
            self._transport.resume_reading()
