"""The page about comparing names every measure and every field, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from sidecar.model.comparison import Kind
from sidecar.shadow import classes, compare, completion, pointer, text

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "comparing.md").read_text()


def names(section: str, column: int) -> set[str]:
    """The words in backquotes in one column of a section's table."""
    part = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    rows = [line.split("|") for line in part.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row[column])}


def test_each_measure_that_is_made_is_told_and_no_other() -> None:
    sources = [path.read_text() for path in (ROOT / "sidecar" / "shadow").glob("*.py")]
    made = {
        name for source in sources for name in re.findall(r'measures\[f?"([a-z0-9_]+)[".]', source)
    }

    assert len(made) > 5
    assert names("Measures", 1) == made


def test_each_kind_is_told_with_the_fields_that_are_not_pointers() -> None:
    kinds = {kind.value for kind in Kind} - {"auto"} | {compare.COMPLETION}

    assert names("By kind", 1) == kinds
    fields = {name for name in names("By kind", 3) if "/" not in name}
    made = {text.FIELD, classes.FIELD, completion.FINISH, pointer.WHOLE, compare.EVENT}
    assert fields == made
