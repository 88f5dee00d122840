"""How the demo is shown: headings, claims, and a table that a terminal updates in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TextIO

from sidecar.cli import output
from sidecar.cli.redraw import Redraw

_INDENT = "  "


class Screen:
    """Writes to one stream; what is drawn on a terminal is drawn over until it is final."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._redraw = Redraw(stream)

    def heading(self, text: str) -> None:
        """Begin a step."""
        self._write(f"\n{output.paint(text, 'bold', self._stream)}")

    def line(self, text: str = "") -> None:
        """Write one line."""
        self._write(f"{_INDENT}{text}".rstrip())

    def held(self, text: str) -> None:
        """Tell a claim that was found true."""
        self.line(f"{output.paint('ok', 'green', self._stream)}      {text}")

    def failed(self, text: str) -> None:
        """Tell a claim that was found false."""
        self.line(f"{output.paint('FAILED', 'red', self._stream)}  {text}")

    def draw(self, lines: Sequence[str], *, is_final: bool) -> None:
        """Draw lines in the place of those drawn before; only the final ones without a terminal."""
        self._redraw.draw([f"{_INDENT}{text}" for text in lines], is_final=is_final)

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


class Claims:
    """What the demo says of the product, each found true or false when it is shown."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.held = 0
        self.failed = 0

    def check(self, text: str, *faults: str) -> None:
        """Tell a claim; each of `faults` is something that speaks against it."""
        found = [fault for fault in faults if fault]
        if not found:
            self.held += 1
            self._screen.held(text)
            return
        self.failed += 1
        self._screen.failed(text)
        for fault in found[:5]:
            self._screen.line(f"        {fault}")


def table(header: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """Return aligned lines; a name in `header` that begins with `>` has its column to the right."""
    names = header.split("|")
    cells = [[name.lstrip(">") for name in names], *rows]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    lines = []
    for row in cells:
        aligned = [
            f"{cell:>{width}}" if name.startswith(">") else f"{cell:<{width}}"
            for cell, width, name in zip(row, widths, names, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    return lines
