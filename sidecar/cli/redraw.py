"""Lines that a terminal shows in the place of those before; elsewhere one line a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import TextIO

_UP_AND_CLEAR = "\033[{lines}A\033[J"


class Redraw:
    """Writes to one stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = 0  # lines that the next drawing replaces

    def draw(self, lines: Sequence[str], line: str) -> None:
        """Draw `lines` over those drawn before; without a terminal write `line` alone."""
        if not self._is_terminal:
            self._stream.write(f"{line}\n")
            return
        columns, rows = shutil.get_terminal_size()
        if self._drawn:
            self._stream.write(_UP_AND_CLEAR.format(lines=self._drawn))
        # A line that wraps would be two, and the next drawing would begin too low.
        shown = [text[: columns - 1] for text in lines[: rows - 1]]
        self._stream.write("".join(f"{text}\n" for text in shown))
        self._drawn = len(shown)
