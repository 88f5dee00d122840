"""What processes load: a worker's memory is paid once for each CPU."""

import subprocess
import sys

import pytest

HEAVY = "aiohttp, cryptography, jwt, re2, typer, yaml"  # for the control process, or once needed


@pytest.mark.parametrize("name", HEAVY.split(", "))
def test_a_worker_begins_without_what_it_may_never_need(name: str) -> None:
    ask = f"import sys, sidecar.app.worker; sys.exit({name!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", ask], check=True)
