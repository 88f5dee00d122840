"""What bash does to a command line that it completes, undone.

It cuts words at colons and equal signs (`COMP_WORDBREAKS`), so that `fraud:v` is three of them, and
puts what is chosen in the place of the last piece alone.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence

_BREAKS = ":="


@contextlib.contextmanager
def whole_words() -> Iterator[None]:
    """Let bash's completion see the words as they were typed, and bash the pieces that it needs."""
    pieces: list[str] = []
    if os.environ.get("_RMV_COMPLETE") == "complete_bash":
        at = int(os.environ["COMP_CWORD"])
        pieces = os.environ["COMP_WORDS"].split("\n")[: at + 1]
    words = _joined(pieces)
    if words == pieces:
        yield
        return
    os.environ |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    typed = words[-1]
    kept = typed[: 1 + max(map(typed.rfind, _BREAKS))]  # stands there already
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            yield
    finally:
        for word in told.getvalue().splitlines():
            print(word.removeprefix(kept))


def _joined(pieces: Sequence[str]) -> list[str]:
    """Join what was one word; an empty piece is one that has not begun."""
    words: list[str] = []
    before = ""
    for piece in pieces:
        if before and piece and not (before.strip(_BREAKS) and piece.strip(_BREAKS)):
            words[-1] += piece
        else:
            words.append(piece)
        before = piece
    return words
