"""Request ids: unique over the fleet, and no system call for each."""

from __future__ import annotations

import re
from itertools import count

_ACCEPTED = re.compile(rb"[!-~]{1,128}")  # visible ASCII: it goes into headers and logs


class RequestIds:
    """Makes 32 hexadecimal digits a request: 20 of this worker's `entropy`, 12 counted."""

    def __init__(self, entropy: bytes) -> None:
        """Take 10 random bytes."""
        self._format = entropy.hex().encode() + b"%012x"
        self._next = count(1).__next__

    def make(self) -> bytes:
        """Return a new id."""
        return self._format % self._next()


def acceptable(client_id: bytes) -> bool:
    """Return whether an id from a client is kept: visible ASCII, 128 bytes at most."""
    return _ACCEPTED.fullmatch(client_id) is not None
