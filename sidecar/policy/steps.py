"""Long work in steps: it pauses now and then, so that whoever does it can do other things, too."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PORTION: Final = 100  # parts that are let go of at once

Steps = Generator[None, None, T]
"""Work that ends with a `T`; from one pause to the next it takes well under a millisecond."""


def finish(steps: Steps[T]) -> T:
    """Do all the steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def until(steps: Steps[T], is_over: Callable[[], bool]) -> T | None:
    """Do the steps at once, or as many as there is time for; None: it was over before the end."""
    while not is_over():
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
    steps.close()
    return None


def unless(steps: Steps[T], is_void: Callable[[], bool]) -> Steps[T | None]:
    """Do some work as long as somebody wants it; None: nobody does any more."""
    while not is_void():
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        yield
    steps.close()
    return None


def letting_go(value: object, *, is_inner: bool = False) -> Steps[None]:
    """Empty a value, a few levels deep: to free one of ten thousand parts at once takes as long."""
    inner = value.values() if isinstance(value, dict) else ()
    for part in inner:
        while isinstance(part, (list, dict)) and part:
            if isinstance(part, list):
                del part[-PORTION:]
            else:
                one = part.popitem()[1]
                if not is_inner:
                    yield from letting_go(one, is_inner=True)
            yield
