"""Whether what is fast here is there: modules in C that have a slow stand-in, or none.

Without one of them a sidecar would serve, at a fraction of what was measured, and nobody would be
told: an image of another platform, a package built without its extension.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

ACCELERATORS: Final = {
    "uvloop": "uvloop.loop",  # else asyncio's own event loop
    "hiredis": "hiredis.hiredis",  # else a parser of Redis replies in Python
    "msgspec": "msgspec._core",
    "aiohttp": "aiohttp._http_parser",  # else an HTTP parser in Python, which takes more, too
    "google-re2": "re2._re2",
    "cryptography": "cryptography.hazmat.bindings._rust",  # OpenSSL
}
"""The extension of each package."""

_HEAVY: Final = frozenset(("cryptography", "google-re2"))
"""Looked for and not loaded: they take 14 MB, which only those who use them need."""


def missing() -> list[str]:
    """Return the packages whose extension is not there or cannot be loaded, and why."""
    faults = ((name, _fault(name, module)) for name, module in ACCELERATORS.items())
    return [f"{name} ({why})" for name, why in faults if why]


def _fault(name: str, module: str) -> str:
    if name == "aiohttp" and os.environ.get("AIOHTTP_NO_EXTENSIONS"):
        return "AIOHTTP_NO_EXTENSIONS is set"
    try:
        if name in _HEAVY:
            return "" if _has_file(module) else f"there is no {module}"
        spec = importlib.import_module(module).__spec__
    except (ImportError, OSError) as error:
        return str(error)
    origin = "" if spec is None else spec.origin or ""
    is_native = origin.endswith(tuple(EXTENSION_SUFFIXES))
    return "" if is_native else f"{module} is no extension"


def _has_file(module: str) -> bool:
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    folders = () if spec is None else spec.submodule_search_locations or ()
    files = (Path(folder, *rest) for folder in folders)
    return any(Path(f"{file}{end}").is_file() for file in files for end in EXTENSION_SUFFIXES)
