"""`rmv`, the command line: thin commands over the floors below; none of them decides anything."""

from __future__ import annotations

from sidecar.cli.root import app, main

__all__ = ["app", "main"]
