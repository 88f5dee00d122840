"""The pages as tests read them: fenced blocks, tables, sections."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))

_FENCE = re.compile(r"^```(\S*) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"(?<!\\)\|")
_CODE = re.compile(r"(?<!`)(`+)(.+?)(?<!`)\1(?!`)")


class Block(NamedTuple):
    """A fenced block; `name` is the file that the text of an example is, if it is one."""

    language: str
    name: str
    text: str


class Step(NamedTuple):
    """One command of a console block, and what the page says that it prints."""

    command: str
    printed: str


def page(name: str) -> str:
    """Return the text of a page below `docs/`."""
    return (DOCS / name).read_text()


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [Block(*found) for found in _FENCE.findall(text)]


def steps(console: str) -> list[Step]:
    """Take a console block apart: each `$ command`, and the lines up to the next one."""
    parts = re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]
    return [Step(command, printed) for command, _, printed in (p.partition("\n") for p in parts)]


def section(text: str, title: str) -> str:
    """Return what stands below a heading, up to the next one of its rank or above."""
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert found, f"no heading {title!r}"
    after = text[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", after, re.MULTILINE)
    return after[: following.start()] if following else after


def table(text: str, title: str) -> list[list[str]]:
    """Return the rows of the first table whose header begins with `title`, without the header."""
    lines = text.splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith(f"| {title} |")]
    assert starts, f"no table of {title!r}"
    rows = []
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in _CELL.split(line)[1:-1]])
    return rows


def coded(text: str) -> list[str]:
    """Return everything that is set as code in a line of text."""
    return [inside.strip() for _, inside in _CODE.findall(text)]


def first_column(text: str, title: str) -> list[str]:
    """Return what is set as code in the first column of a table."""
    return [name for row in table(text, title) for name in coded(row[0])]
