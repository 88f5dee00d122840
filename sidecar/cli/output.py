"""How commands speak: results to stdout, everything else to stderr, colour on terminals only.

To programs (`--json`) all of it is JSON: a result, and on stderr one object a line.

What they tell was written by others: files, stores, requests. Nothing of it may steer the terminal
that shows it, so every character that shows nothing itself is spelled out, here and nowhere else.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import zip_longest
from typing import Literal, TextIO

import msgspec

Colour = Literal["bold", "red", "green", "yellow"]
MAX_CELL_CHARS = 1000  # of one cell of a table; `--json` has all of it
_CODES: dict[Colour, int] = {"bold": 1, "red": 31, "green": 32, "yellow": 33}

_IS_FOR_PROGRAMS = ContextVar("is_for_programs", default=False)

_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: an escape sequence begins with ESC or with 9B
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # text that is shown in another order
    "\u2028\u2029\ud800-\udfff]"  # line ends; bytes of a name that are no UTF-8
)
_NO_UTF8 = re.compile("[\ud800-\udfff]")
_BETWEEN_LINES = re.compile(_HIDDEN.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


@contextmanager
def for_programs(*, is_so: bool) -> Iterator[None]:
    """Make what goes to stderr JSON meanwhile, or text."""
    token = _IS_FOR_PROGRAMS.set(is_so)
    try:
        yield
    finally:
        _IS_FOR_PROGRAMS.reset(token)


def is_for_programs() -> bool:
    """Return whether what goes to stderr is JSON."""
    return _IS_FOR_PROGRAMS.get()


def plain(text: str) -> str:
    """Return `text` on one line, each character that shows nothing itself as `\\x1b`."""
    return _HIDDEN.sub(_spelled, text)


def plain_lines(text: str) -> str:
    """Return `text` as `plain` does, with its line ends and tabs."""
    return _BETWEEN_LINES.sub(_spelled, text)


def inner(text: str) -> str:
    """Return lines of others for within a line of our own: none of them begins where ours do."""
    return plain_lines(text).replace("\n", "\n  ")


def is_plain(text: str) -> bool:
    """Return whether lines of text can be shown as they are."""
    return _BETWEEN_LINES.search(text) is None


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 -- a byte


def paint(text: str, colour: Colour, stream: TextIO) -> str:
    """Return `text` coloured if `stream` is a terminal and NO_COLOR (no-color.org) is not set."""
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return text
    return f"\033[{_CODES[colour]}m{text}\033[0m"


def say(text: str) -> None:
    """Print lines of a result, for people."""
    print(plain_lines(text))


def complain(text: str) -> None:
    """Say on stderr what went wrong; the first line is the error itself."""
    print(paint("error:", "red", sys.stderr), plain_lines(text), file=sys.stderr)


def warn(text: str) -> None:
    """Say on stderr what should be known although the command goes on."""
    if is_for_programs():
        report({"warning": text})
        return
    print(paint("warning:", "yellow", sys.stderr), plain_lines(text), file=sys.stderr)


def note(text: str) -> None:
    """Say something on stderr that is not part of the result."""
    if is_for_programs():
        report({"note": text})
        return
    print(plain_lines(text), file=sys.stderr)


def report(value: object) -> None:
    """Say something to a program on stderr: JSON, on one line."""
    print(_shown(_encoded(value)), file=sys.stderr)


def emit(value: object) -> None:
    """Print a result as JSON, for programs."""
    print(as_json(value))


def emit_line(value: object) -> None:
    """Print one of many results as JSON on a line of its own, for programs."""
    print(_shown(_encoded(value)))


def as_json(value: object) -> str:
    """Return a value as JSON that a terminal can show."""
    return _shown(msgspec.json.format(_encoded(value), indent=2))


def _encoded(value: object) -> bytes:
    """Encode as JSON; bytes that are no UTF-8, which JSON cannot say, as people see them."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
        return _NO_UTF8.sub(lambda found: f"\\{_spelled(found)}", text).encode()


def _shown(raw: bytes) -> str:
    """Escape in JSON what a terminal would not show: it is the same to JSON."""
    return _BETWEEN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", raw.decode())


def _cell(text: str) -> str:
    # All rows are as wide as the widest: one value of a megabyte would be one in each of them.
    shown = plain(text[:MAX_CELL_CHARS]) or "-"
    return shown if len(text) <= MAX_CELL_CHARS else f"{shown}..."


def counted(number: int, what: str, many: str = "") -> str:
    """Return a number with the word for what it counts: `1 worker`, `1,200 entries`."""
    return f"{number:,} {what if number == 1 else many or f'{what}s'}"


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    colours: Sequence[Colour | None] = (),
) -> None:
    """Print rows under a header in aligned columns; an empty cell shows as `-`.

    `colours` are those of the rows; of all none, when they are not given.
    """
    cells = [list(header), *([_cell(text) for text in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row, colour in zip_longest(cells, ("bold", *colours)):
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print(paint(line.rstrip(), colour, sys.stdout) if colour else line.rstrip())


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line; pairs without a value are left out."""
    shown = [(plain(name), plain(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{paint(f'{name:<{width}}', 'bold', sys.stdout)}  {value}")
