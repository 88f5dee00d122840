"""`rmv` and `python -m sidecar`."""

from __future__ import annotations

from sidecar.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
