"""How commands speak: results to stdout, everything else to stderr, colour on terminals only."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Literal, TextIO

import msgspec

Colour = Literal["bold", "red", "green", "yellow"]
_CODES: dict[Colour, int] = {"bold": 1, "red": 31, "green": 32, "yellow": 33}


def paint(text: str, colour: Colour, stream: TextIO) -> str:
    """Return `text` coloured if `stream` is a terminal and NO_COLOR (no-color.org) is not set."""
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return text
    return f"\033[{_CODES[colour]}m{text}\033[0m"


def complain(text: str) -> None:
    """Say on stderr what went wrong; the first line is the error itself."""
    print(paint("error:", "red", sys.stderr), text, file=sys.stderr)


def warn(text: str) -> None:
    """Say on stderr what should be known although the command goes on."""
    print(paint("warning:", "yellow", sys.stderr), text, file=sys.stderr)


def note(text: str) -> None:
    """Say something on stderr that is not part of the result."""
    print(text, file=sys.stderr)


def emit(value: object) -> None:
    """Print a result as JSON, for programs."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    colours: Sequence[Colour | None] = (),
) -> None:
    """Print rows under a header in aligned columns; an empty cell shows as `-`.

    `colours` are those of the rows; of all none, when they are not given.
    """
    cells = [list(header), *([cell or "-" for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row, colour in zip_longest(cells, ("bold", *colours)):
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print(paint(line.rstrip(), colour, sys.stdout) if colour else line.rstrip())


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line; pairs without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{paint(f'{name:<{width}}', 'bold', sys.stdout)}  {value}")
