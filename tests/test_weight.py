"""What processes load: a worker's memory is paid once for each CPU."""

import subprocess
import sys

import pytest

# For the control process, or once needed. redis-py looks whether cryptography is there, no more.
HEAVY = "aiohttp, cryptography.hazmat, jwt, re2, typer, yaml"


@pytest.mark.parametrize("name", HEAVY.split(", "))
def test_a_worker_begins_without_what_it_may_never_need(name: str) -> None:
    ask = f"import sys, sidecar.app.worker; sys.exit({name!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", ask], check=True)


@pytest.mark.parametrize("name", ["aiohttp", "jwt", "re2", "typer", "yaml"])
def test_a_worker_that_checks_tokens_does_so_without(name: str) -> None:
    ask = f"import sys, sidecar.app.worker, sidecar.app.tokens; sys.exit({name!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", ask], check=True)
