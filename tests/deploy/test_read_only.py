"""A sidecar writes below its state directory and where settings say, and nowhere else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sidecar.runtime.ed25519 import generate
from tests.support.sidecar import flags, sidecar
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

# Everything is mounted read-only in a namespace of its own, but for what follows --state-dir.
CONFINED = """\
#!/bin/sh
before=
for word in "$@"; do [ "$before" = --state-dir ] && state=$word; before=$word; done
[ -n "$state" ] || exec "{python}" "$@"
mkdir -p "$state"
export STATE="$state" TMPDIR="$state/none"
exec unshare --map-root-user --mount sh -c '
    mount --bind "$STATE" "$STATE" && mount -o remount,bind,ro / && cd "$STATE" || exit 70
    if touch /written-by-a-test 2>/dev/null; then exit 71; fi
    exec "{python}" "$@"' sh "$@"
"""


@pytest.fixture
def confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each `rmv serve` of this test on a read-only file system, or skip with the reason."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not here")
    tried = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "mount", "-o", "remount,bind,ro", "/"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip(f"no namespaces of mounts: {tried.stderr.strip()}")
    program = tmp_path / "python"
    program.write_text(CONFINED.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


async def test_it_serves_where_nothing_but_its_state_can_be_written(
    confined: None, tmp_path: Path
) -> None:
    del confined
    generate(tmp_path, "alice")
    settings = f'[audit]\ndir = "state/audit"\nkey_file = "{tmp_path}/alice.key"\n'
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url), "--workers", "2", settings=settings) as running,
    ):
        assert (await running.ask()).status == 200
        assert await running.recorded(1)
        async with running.editor() as editor:
            document = await editor.document()
            await editor.put({**document, "default": None})

            async def is_refused() -> bool:
                return (await running.ask()).status == 503

            await running.until(is_refused, "refusal")
        state = {path.name for path in running.state_dir.iterdir()}
        assert "audit" in state
        assert not [line for line in running.said().splitlines() if "level=error" in line]
