"""What leads back to itself: fallbacks and segments may name each other, but not in a circle."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def circles(
    names: Iterable[str], after: Callable[[str], Iterable[str]]
) -> Iterator[list[str] | None]:
    """Yield the circles that a walk over all references meets, each once: `[a, b, a]`.

    Without one there is none at all; None is a moment to pause. No recursion: a chain may be as
    long as a document.
    """
    done: set[str] = set()
    for start in names:
        if start in done:
            continue
        way: dict[str, None] = {start: None}  # in order: where the walk is
        ahead = [iter(after(start))]
        while ahead:
            name = next(ahead[-1], None)
            if name is None:
                ahead.pop()
                done.add(way.popitem()[0])
                yield None
            elif name in way:
                trail = list(way)
                yield [*trail[trail.index(name) :], name]
            elif name not in done:
                way[name] = None
                ahead.append(iter(after(name)))
                yield None
