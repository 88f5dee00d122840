"""What a reader can try while the demo is up: lines to copy, and the files that they need."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sidecar.cli.demo.checkout import MODEL
from sidecar.cli.demo.client import PATH, request_body
from sidecar.cli.demo.stage import Stage
from sidecar.cli.demo.story import PINNED_TENANT, PINNED_VERSION, TENANTS

_STRANGER = "hooli"


def write(stage: Stage) -> list[str]:
    """Write a row and every tenant's headers to the folder; return what to print."""
    folder = stage.folder
    folder.row.write_bytes(request_body(stage.checkout.rows.rows[0]))
    for tenant in TENANTS:
        folder.write_headers(tenant, folder.token(tenant))
    lines = []
    for caption, commands in {**_requests(stage), **_writes(stage), **_tools(stage)}.items():
        lines.append(f"{caption}:")
        lines += [f"  {command}" for command in commands]
    return lines


def _requests(stage: Stage) -> Mapping[str, Sequence[str]]:
    folder, other = stage.folder, TENANTS[1]
    lines = []
    for tenant in (PINNED_TENANT, other):
        lines.append(f"curl -i http://{stage.listen}{PATH} \\")
        lines.append(f"  -H @{folder.path / tenant} -d @{folder.row}")
    rest = ", ".join(TENANTS[2:])
    return {f"Ask as {PINNED_TENANT} and as {other} (or {rest})": lines}


def _writes(stage: Stage) -> Mapping[str, Sequence[str]]:
    redis = f"redis-cli -s {stage.folder.socket}"
    pin = f"rmv:pin:{MODEL}:{PINNED_TENANT}"
    kill = f"rmv:kill:{MODEL}:{PINNED_VERSION}"
    return {
        f"Pin {PINNED_TENANT} to {PINNED_VERSION}, and let it go": (
            f"{redis} SET {pin} {PINNED_VERSION}",
            f"{redis} DEL {pin}",
        ),
        f"Switch {PINNED_VERSION} off for everyone, and on again": (
            f"{redis} SET {kill} 'too slow'",
            f"{redis} DEL {kill}",
        ),
    }


def _tools(stage: Stage) -> Mapping[str, Sequence[str]]:
    folder, rmv = stage.folder, _program()
    has_redis_cli = shutil.which("redis-cli") is not None
    same = "The same without redis-cli" + ("" if has_redis_cli else ", which is not installed here")
    store = f"--redis {folder.store_url}"
    return {
        same: (
            f"{rmv} pin {MODEL} {PINNED_TENANT} {PINNED_VERSION} {store}",
            f"{rmv} unpin {MODEL} {PINNED_TENANT} {store}",
        ),
        "What the shadow test found: the whole report, and the pairs that disagree": [
            f"{rmv} shadow {what} {MODEL}@{shadow.version} {store}"
            for shadow in stage.policy.shadows
            for what in ("report", "diffs")
        ],
        "Who would get what, and why; a token for somebody new; the counters": (
            f"{rmv} explain --model {MODEL} --tenant {_STRANGER} {store}",
            f"{rmv} token --tenant {_STRANGER} --config {folder.settings}",
            f"curl http://{stage.admin_address}/metrics",
        ),
    }


def _program() -> str:
    """Return how `rmv` is called from the current folder."""
    called = Path(sys.argv[0])
    if called.name != "rmv":
        return f"{sys.executable} -m sidecar"
    found = shutil.which("rmv")
    if found is not None and Path(found).resolve() == called.resolve():
        return "rmv"
    here = Path.cwd()
    return str(called.relative_to(here) if called.is_relative_to(here) else called)
