"""The bill of materials has what the lock has, hash by hash."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "runtime.txt"


class Hash(msgspec.Struct):
    alg: str
    content: str


class Reference(msgspec.Struct):
    hashes: list[Hash] = []


class Component(msgspec.Struct):
    name: str
    version: str = ""
    purl: str = ""
    references: list[Reference] = msgspec.field(default_factory=list, name="externalReferences")


class Metadata(msgspec.Struct):
    component: Component


class Bill(msgspec.Struct):
    format: str = msgspec.field(name="bomFormat")
    version: str = msgspec.field(name="specVersion")
    metadata: Metadata
    components: list[Component]


def made(folder: Path) -> Bill:
    """Return what the recipe of `make sbom` makes."""
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^\t\$\(BIN\)/python (.*cyclonedx_py.*)$", makefile, re.MULTILINE)
    assert recipe is not None
    file = folder / "sbom.json"
    words = recipe[1].replace("build/sbom.json", str(file)).split()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, timeout=50)  # it validates, too
    return msgspec.json.decode(file.read_bytes(), type=Bill)


def test_it_names_every_package_of_the_lock_with_all_of_its_hashes(tmp_path: Path) -> None:
    bill = made(tmp_path)

    blocks = re.split(r"\n(?=\S)", LOCK.read_text().replace("\\\n", ""))
    pinned = (re.match(r"([a-z0-9-]+)(?:\[[^]]*\])?==([^\s;]+)", block) for block in blocks)
    wanted = {
        f"pkg:pypi/{found[1]}@{found[2]}": set(re.findall(r"sha256:([0-9a-f]{64})", block))
        for found, block in zip(pinned, blocks, strict=True)
        if found
    }
    assert {
        one.purl: {told.content for reference in one.references for told in reference.hashes}
        for one in bill.components
    } == wanted
    assert (bill.format, bill.metadata.component.name) == ("CycloneDX", "rmv-sidecar")
    assert all(
        told.alg == "SHA-256"
        for one in bill.components
        for reference in one.references
        for told in reference.hashes
    )
