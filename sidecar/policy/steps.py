"""Long work in steps: it pauses now and then, so that whoever does it can do other things, too."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import Struct, structs

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PORTION: Final = 100  # plain values that are let go of at once
_PLAIN: Final = frozenset({str, bytes, int, float, bool, type(None)})

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


def letting_go(held: list[object]) -> Steps[None]:
    """Let go of values, and of what is in them: to free ten thousand at once takes as long.

    The list, which is emptied from its end, has to be all that holds them. Nothing in them is
    changed: what somebody else has stays as it is.
    """
    lists = [held]
    while lists:
        last = lists[-1]
        if not last:
            lists.pop()
        elif _PLAIN.issuperset(map(type, last[-PORTION:])):
            del last[-PORTION:]
            yield
        else:
            inner = _inside(last[-1])
            last.pop()  # what was in it is held by another list from here on
            if inner:
                lists.append(inner)
            yield


def _inside(value: object) -> list[object]:
    """Return what a value is made of, unless that is few plain values, which go with it."""
    if isinstance(value, dict):
        inner = [*value, *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = list(value)
    elif isinstance(value, Struct):
        inner = list(structs.astuple(value))
    else:
        return []
    if len(inner) > PORTION:
        return inner
    return [one for one in inner if type(one) not in _PLAIN]
