"""Lines that a terminal shows in the place of those before."""

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

    def draw(self, lines: Sequence[str], *, is_final: bool = False) -> bool:
        """Draw lines in the place of those drawn before; return whether they were.

        Without a terminal that has room for them, only final ones are.
        """
        columns, rows = shutil.get_terminal_size()
        is_live = self._is_terminal and len(lines) < rows
        if not (is_final or is_live):
            return False
        if self._drawn:
            self._stream.write(_UP_AND_CLEAR.format(lines=self._drawn))
        # A line that wraps would be two, and the next drawing would begin too low.
        room = columns - 1 if is_live else None
        self._stream.write("".join(f"{text[:room].rstrip()}\n" for text in lines))
        self._stream.flush()
        self._drawn = 0 if is_final else len(lines)
        return True
