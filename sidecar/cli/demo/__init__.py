"""`rmv demo`: the whole product in a minute, with real processes, real models and real data."""

from __future__ import annotations

from sidecar.cli.demo.command import app

__all__ = ["app"]
