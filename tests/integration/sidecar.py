"""The sidecar as shipped: `rmv serve` from a file, policies by `rmv apply`, edits in Redis."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import redis

from tests.integration.processes import HOST, ROOT, Server, fetch, free_port, running, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RMV = str(ROOT / ".venv" / "bin" / "rmv")

Policy = dict[str, object]


class Sidecar:
    """A running `rmv serve`: its address, and a Redis client on its embedded store."""

    def __init__(self, server: Server, port: int, store: redis.Redis) -> None:
        self.server = server
        self.address = f"{HOST}:{port}"
        self.url = f"http://{self.address}"
        self.store = store

    def version_for(self, path: str, tenant: str) -> str:
        """Return the version that the sidecar names for a GET by this tenant."""
        return fetch(self.url + path, headers={"X-Tenant": tenant})[1].get("x-model-version", "")


@contextmanager
def sidecar(folder: Path, policy: Policy, probe: str) -> Iterator[Sidecar]:
    """Run a sidecar without authentication that fronts one model, ready when `probe` is 200."""
    port = free_port()
    state = folder / "state"
    config = folder / "rmv.toml"
    config.write_text(
        f'listen = "{HOST}:{port}"\n'
        f'admin = "{HOST}:{free_port()}"\n'
        f'state_dir = "{state}"\n'
        f'model = "{policy["model"]}"\n'
        "no_auth = true\n"
    )
    with (
        running([RMV, "serve", "--config", str(config)], folder) as server,
        redis.Redis(unix_socket_path=str(state / "valkey.sock")) as store,
    ):
        server.until("its store answers", lambda: _answers(store))
        _apply(server, config, policy)
        server.until("serving the policy", lambda: status(f"http://{HOST}:{port}{probe}") == 200)
        yield Sidecar(server, port, store)


def _apply(server: Server, config: Path, policy: Policy) -> None:
    document = config.with_name(f"{policy['model']}.json")
    document.write_text(json.dumps(policy))
    command = [RMV, "apply", "--config", str(config), "--file", str(document)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        pytest.fail(f"rmv apply: {done.stderr}\n{server.name}: {server.last_lines()}")


def _answers(store: redis.Redis) -> bool:
    try:
        return bool(store.ping())
    except redis.ConnectionError:
        return False
