"""Compile the hot modules with mypyc: into `build/compiled`, and into a wheel when asked to.

`tool.rmv.compiled` in pyproject.toml is the list of them. Both forms of the package run; a wheel
is pure unless HATCH_BUILD_HOOK_ENABLE_CUSTOM=true stands in the environment of its build.
Why, and what is bad about it: docs/adr/0002-compiled-hot-path.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Final

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT: Final = Path(__file__).resolve().parent
PACKAGE: Final = "sidecar"
OUTPUT: Final = Path("build", "compiled")
UNFINISHED: Final = "compiling-"
DIGEST_NAME: Final = "digest"  # inside the output: what it was made from
FAILED: Final = 1
NO_COMPILER: Final = 3  # the exit status that callers may treat as "go on without"

# Runs in the copy of the tree, where no pyproject.toml is: setuptools would read it as its own.
# Types are `make check`'s to judge, so the modules that are only imported stay silent here.
SETUP: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup

flags = ["--config-file=", "--explicit-package-bases", "--follow-imports=silent"]
hot = mypycify(flags + sys.argv[1:], group_name="sidecar", opt_level="3", debug_level="0")
setup(name="rmv-sidecar", ext_modules=hot, script_args=["--quiet", "build_ext", "--inplace"])
"""


class CompileError(Exception):
    """The modules were not compiled; the message says why."""


class NoCompilerError(CompileError):
    """This machine has nothing to compile C with."""


def modules(root: Path) -> list[str]:
    """Return the dotted names of the modules to compile."""
    with (root / "pyproject.toml").open("rb") as file:
        names = tomllib.load(file)["tool"]["rmv"]["compiled"]["modules"]
    return [str(name) for name in names]


def source_of(module: str) -> Path:
    """Return where a module's source is, relative to the root."""
    return Path(*module.split(".")).with_suffix(".py")


def fingerprint(root: Path) -> str:
    """Digest whatever the output depends on: sources, list, this file, compiler, interpreter."""
    versions = [installed_version("mypy"), installed_version("setuptools"), sys.version]
    digest = hashlib.sha256("\n".join([*versions, *modules(root), *c_compiler()]).encode())
    files = (path for path in (root / PACKAGE).rglob("*") if "__pycache__" not in path.parts)
    for path in sorted(file for file in files if file.is_file()):
        digest.update(f"\0{path.relative_to(root)}\0".encode() + path.read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def c_compiler() -> list[str]:
    """Return the command that setuptools will compile C with; it need not exist."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def require_compiler() -> None:
    """Raise NoCompilerError unless C can be compiled against this interpreter."""
    program = c_compiler()[0]
    if shutil.which(program) is None:
        raise NoCompilerError(f"no C compiler: {program} is not there (Debian: gcc libc6-dev)")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        raise NoCompilerError(f"no headers of Python: {header} is not there (Debian: python3-dev)")


def compile_package(root: Path, output: Path) -> bool:
    """Make `output` a copy of the package with its hot modules compiled; False: it was up to date.

    `output` is replaced in one step, so a process that still runs from the old one is not harmed.
    Raises CompileError.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with (output.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the second of two builders finds the first one's work
        digest = fingerprint(root)
        if is_made_from(digest, output):
            return False
        require_compiler()
        for leftover in output.parent.glob(f"{UNFINISHED}*"):  # of a builder that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=UNFINISHED) as folder:
            tree = Path(folder, "tree")
            shutil.copytree(root / PACKAGE, tree / PACKAGE, ignore=just_sources)
            run_mypyc(tree, modules(root))
            (tree / DIGEST_NAME).write_text(digest)
            shutil.rmtree(output, ignore_errors=True)
            tree.rename(output)
        return True


def is_made_from(digest: str, output: Path) -> bool:
    """Tell whether `output` was made from what has this digest."""
    try:
        return (output / DIGEST_NAME).read_text() == digest
    except FileNotFoundError:
        return False


def just_sources(folder: str, names: list[str]) -> set[str]:
    """Leave caches out, and whatever somebody compiled in place."""
    del folder
    return {name for name in names if name == "__pycache__" or name.endswith((".so", ".pyc"))}


def run_mypyc(tree: Path, names: list[str]) -> None:
    """Put the extension modules beside their sources in `tree`. Raises CompileError."""
    sources = [str(source_of(name)) for name in names]
    # -I: neither PYTHONPATH nor the current folder has a say in which mypyc this is.
    command = [sys.executable, "-I", "-c", SETUP, *sources]
    run = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)  # noqa: S603 -- no input of others
    if run.returncode:
        raise CompileError(f"mypyc failed:\n{run.stdout}{run.stderr}")
    shutil.rmtree(tree / "build")  # the C sources and objects


class CompiledWheel(BuildHookInterface[BuilderConfig]):
    """Puts the compiled modules into the wheel, beside their sources."""

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        """Compile, and tag the wheel for this interpreter and platform alone."""
        if version == "editable":  # a checkout runs its sources, never what was once made of them
            return
        root = Path(self.root)
        output = root / OUTPUT
        compile_package(root, output)
        included = build_data["force_include"]
        assert isinstance(included, dict)  # noqa: S101 -- hatchling promises it
        for path in sorted(output.rglob("*.so")):
            included[str(path)] = str(path.relative_to(output))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def main() -> None:
    """Bring `build/compiled` up to date; exit with 3 if there is no C compiler."""
    try:
        is_new = compile_package(ROOT, ROOT / OUTPUT)
    except CompileError as error:
        sys.stderr.write(f"{OUTPUT}: {error}\n")
        raise SystemExit(NO_COMPILER if isinstance(error, NoCompilerError) else FAILED) from error
    sys.stdout.write(f"{OUTPUT}: {'compiled' if is_new else 'up to date'}\n")


if __name__ == "__main__":
    main()
