"""Request ids: unique over the fleet, and no system call for each."""

from __future__ import annotations

from typing import Final

# Formatting all digits each time would cost as much as resolving a request.
_LOW_DIGITS: Final = tuple(b"%03x" % n for n in range(0x1000))


class RequestIds:
    """Makes 32 hexadecimal digits a request: 20 of this worker's `entropy`, 12 counted."""

    def __init__(self, entropy: bytes) -> None:
        """Take 10 random bytes."""
        self._prefix = entropy.hex().encode()
        self._count = 0
        self._block = self._prefix + b"%09x" % 0

    def make(self) -> bytes:
        """Return a new id."""
        self._count += 1
        low = self._count & 0xFFF
        if not low:
            self._block = self._prefix + b"%09x" % (self._count >> 12)
        return self._block + _LOW_DIGITS[low]
