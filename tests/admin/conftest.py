"""The store that the admin API is before."""

from __future__ import annotations

from tests.support.valkey import valkey

__all__ = ["valkey"]
