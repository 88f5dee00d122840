"""What processes load: a worker's memory is paid once for each CPU."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

# For the control process, or once needed. redis-py looks whether cryptography is there, no more.
HEAVY = "aiohttp, cryptography.hazmat, jwt, re2, typer, yaml"


@cache
def loaded_by(modules: str) -> frozenset[str]:
    """Return what a process has loaded that imports so much and no more."""
    ask = f"import sys, {modules}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True)
    return frozenset(run.stdout.split())


@pytest.mark.parametrize("name", HEAVY.split(", "))
def test_a_worker_begins_without_what_it_may_never_need(name: str) -> None:
    loaded = loaded_by("sidecar.app.worker")

    assert "sidecar.app.worker" in loaded
    assert name not in loaded


@pytest.mark.parametrize("name", ["aiohttp", "jwt", "re2", "typer", "yaml"])
def test_a_worker_that_checks_tokens_does_so_without(name: str) -> None:
    loaded = loaded_by("sidecar.app.worker, sidecar.app.tokens")

    assert "sidecar.app.tokens" in loaded
    assert name not in loaded
