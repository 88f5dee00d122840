"""Keys that look as if they worked and do not: each is told once, until it changes.

They do nothing, but for a pin to a version that is not there: its tenant is refused, as the rules
may not give them another one.
"""

from __future__ import annotations

import logging

_log = logging.getLogger("sidecar.store")

MAX_DOUBTS = 100  # told at a time; more of them is one mistake repeated

NO_MODEL = "no such model"
NO_VERSION = "no such version"
NO_PINNED = "no such version: the tenant is refused"
NO_TENANT = "no caller can have this tenant"
NO_TEXT = "not a string"


class Doubts:
    """What was told of keys that cannot be followed, and is not told again."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._is_full = False

    def __bool__(self) -> bool:
        return bool(self._told)

    def told(self) -> list[str]:
        """Return the keys that were told of and have not changed since."""
        return list(self._told)

    def tell(self, key: str, model: str, reason: str) -> None:
        """Log that a key cannot be followed, unless that was the last word on it."""
        if self._told.get(key) == reason:
            return
        if len(self._told) < MAX_DOUBTS or key in self._told:
            self._told[key] = reason
        elif self._is_full:
            return
        else:
            self._is_full = True
            reason = f"{reason}; there are more such keys, of which no more is said"
        _log.warning("key cannot be followed", extra={"key": key, "model": model, "reason": reason})

    def forget(self, key: str) -> None:
        """Take note that a key has changed, is gone, or works now."""
        if self._told.pop(key, None) is not None:
            self._is_full = False
