"""Regular expressions of policies, in RE2's syntax: a value costs time by its length alone.

Each byte costs by the instructions of the compiled expression. The product is bounded, or an
expression at its limit and a client's 16 KiB would hold up all requests: the larger an expression,
the shorter the values that it takes.

The engine is loaded with the first expression: most policies have none, and it takes memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CHARS = 1000  # a longer one is a list in disguise
MAX_PROGRAM = 2000  # instructions
MAX_WORK = 2**18  # instructions times bytes of a value; up to 16 of them take 16 KiB
MAX_MEMORY = 256 * 1024  # bytes for one expression, its program and what it learns of values

_NOT_OF_RE2 = ("invalid perl operator", "invalid escape sequence")


class Pattern:
    """One compiled expression; it matches no value of more than `max_bytes`."""

    __slots__ = ("__weakref__", "_fullmatch", "max_bytes")

    def __init__(self, fullmatch: Callable[[bytes], object], max_bytes: int) -> None:
        self._fullmatch = fullmatch
        self.max_bytes = max_bytes

    def fits(self, text: str) -> bool:
        """Return whether the expression matches all of `text`."""
        # Bytes that are no UTF-8 are surrogates here, and remain characters to the engine.
        raw = text.encode("utf-8", "surrogatepass")
        return len(raw) <= self.max_bytes and self._fullmatch(raw) is not None


_compiled: WeakValueDictionary[str, Pattern] = WeakValueDictionary()


def pattern(text: str) -> Pattern:
    """Compile an expression; an equal one that is in use is used again.

    Raises:
        ValueError: it is none, or matching it could be slow.
    """
    known = _compiled.get(text)
    if known is None:
        known = _compiled[text] = _compile(text)
    return known


class _Expression(Protocol):
    programsize: int

    def fullmatch(self, text: bytes) -> object: ...


def _compile(text: str) -> Pattern:
    import re2  # type: ignore[import-untyped]  # noqa: PLC0415 -- see above

    if len(text) > MAX_CHARS:
        raise ValueError(f"longer than {MAX_CHARS} characters")
    options = re2.Options()
    options.max_mem = MAX_MEMORY
    options.log_errors = False
    options.never_capture = True  # nobody asks where groups match, and without them it is faster
    try:
        made: _Expression = re2.compile(text.encode("utf-8", "surrogatepass"), options)
    except re2.error as error:
        raise ValueError(f"bad regex: {_reason(error)}") from error
    if made.programsize > MAX_PROGRAM:
        raise ValueError(_too_large(made.programsize))
    return Pattern(made.fullmatch, MAX_WORK // made.programsize)


def _reason(error: Exception) -> str:
    """Return what the engine says, and what somebody who knows others has to know."""
    said = error.args[0] if error.args else ""
    words = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    if words.startswith("pattern too large"):
        return "it takes too much memory: fewer repeats, smaller counts"
    if words.startswith(_NOT_OF_RE2):
        words += "; the syntax is RE2's, without look-around and back-references"
    return words


def _too_large(size: int) -> str:
    return (
        f"bad regex: {size} instructions when compiled, and {MAX_PROGRAM} is the most: "
        "fewer repeats, smaller counts"
    )
