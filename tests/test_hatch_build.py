"""What decides over a compile: the list, the digest of its sources, whether there is a compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import hatch_build
from hatch_build import CompileError, NoCompilerError, compile_package, fingerprint

if TYPE_CHECKING:
    from pathlib import Path

ROOT = hatch_build.ROOT
LISTED = hatch_build.modules(ROOT)
PYPROJECT = '[tool.rmv.compiled]\nmodules = ["sidecar.hot"]\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of one hot and one cold module."""
    package = tmp_path / "sidecar"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "hot.py").write_text("def answer() -> int:\n    return 42\n")
    (package / "cold.py").touch()
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return tmp_path


@pytest.fixture
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")


def test_the_list_names_modules_that_are_there_each_once() -> None:
    missing = [name for name in LISTED if not (ROOT / hatch_build.source_of(name)).is_file()]

    assert not missing
    assert sorted(set(LISTED)) == LISTED


def test_the_module_that_tells_the_form_is_compiled() -> None:
    # `sidecar.is_compiled` looks at this one.
    assert "sidecar.dataplane.exchange" in LISTED


def test_the_checkout_holds_nothing_compiled() -> None:
    assert not list((ROOT / "sidecar").rglob("*.so"))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("sidecar/hot.py", "def answer() -> int:\n    return 43\n"),
        ("sidecar/cold.py", "ANSWER = 42\n"),
        ("sidecar/new.py", ""),
        ("pyproject.toml", PYPROJECT.replace('"]', '", "sidecar.cold"]')),
    ],
    ids=["hot module", "cold module", "new module", "list"],
)
def test_a_change_changes_the_digest(root: Path, path: str, text: str) -> None:
    before = fingerprint(root)

    (root / path).write_text(text)

    assert fingerprint(root) != before


def test_caches_and_other_settings_do_not_change_the_digest(root: Path) -> None:
    before = fingerprint(root)

    (root / "sidecar" / "__pycache__").mkdir()
    (root / "sidecar" / "__pycache__" / "hot.pyc").touch()
    (root / "pyproject.toml").write_text(f'{PYPROJECT}[project]\nname = "x"\n')

    assert fingerprint(root) == before


@pytest.mark.usefixtures("_no_compiler")
def test_without_a_compiler_the_message_names_it_and_what_was_there_stays(root: Path) -> None:
    output = root / "build" / "compiled"
    output.mkdir(parents=True)
    (output / hatch_build.DIGEST_NAME).write_text("of older sources")

    with pytest.raises(NoCompilerError, match="no C compiler: no-such-compiler is not there"):
        compile_package(root, output)

    assert (output / hatch_build.DIGEST_NAME).read_text() == "of older sources"


@pytest.mark.usefixtures("_no_compiler")
def test_what_is_up_to_date_needs_no_compiler(root: Path) -> None:
    output = root / "build" / "compiled"
    output.mkdir(parents=True)
    (output / hatch_build.DIGEST_NAME).write_text(fingerprint(root))

    assert compile_package(root, output) is False


def test_a_module_that_is_refused_leaves_nothing_behind(root: Path) -> None:
    try:
        hatch_build.require_compiler()
    except NoCompilerError as error:
        pytest.skip(str(error))
    (root / "sidecar" / "hot.py").write_text("def answer() -> int:\n    return 'no number'\n")
    killed = root / "build" / f"{hatch_build.UNFINISHED}by-a-killed-builder"
    killed.mkdir(parents=True)

    with pytest.raises(CompileError, match="Incompatible return value type"):
        compile_package(root, root / "build" / "compiled")

    assert [path.name for path in (root / "build").iterdir()] == ["lock"]
