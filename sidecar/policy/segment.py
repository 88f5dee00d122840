"""Segments compiled: who is in each, asked by the matchers that name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.policy.match import (
    Membership,
    Needs,
    asking_once,
    compiling_matchers,
    gathering,
    remembering,
    segments_named,
)
from sidecar.policy.steps import finish

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from sidecar.model.identity import Identity
    from sidecar.model.policy import Segment
    from sidecar.model.request import RequestHead
    from sidecar.policy.match import Memberships, Test
    from sidecar.policy.steps import Steps

MAX_DEPTH = 16  # segments that name segments; each costs a call, and the stack has an end


def compile_segments(segments: Mapping[str, Segment]) -> dict[str, Membership]:
    """Compile each segment once, those first that others name.

    Raises:
        KeyError: a segment that is not there is named.
        ValueError: segments name each other in a circle, or too deeply; a bad condition.
    """
    return finish(compiling_segments(segments))


def compiling_segments(segments: Mapping[str, Segment]) -> Steps[dict[str, Membership]]:
    """Do what `compile_segments` does, in steps."""
    left: dict[str, frozenset[str]] = {}
    for name, segment in segments.items():
        left[name] = references(segment, segments)
        if not all(one in segments for one in left[name]):
            raise KeyError(f'segment "{name}" names one that is not there')
        yield
    compiled: dict[str, Membership] = {}
    for _ in range(MAX_DEPTH):
        ready = []
        for name, named in left.items():
            if all(one in compiled for one in named):
                ready.append(name)
            yield
        for name in ready:
            compiled[name] = yield from _compiling(name, segments[name], compiled)
            del left[name]
            yield
    if left:
        some = ", ".join(list(left)[:8])
        raise ValueError(f"segments that name others in a circle, or over {MAX_DEPTH} deep: {some}")
    return compiled


def references(segment: Segment, known: Mapping[str, object]) -> frozenset[str]:
    """Return the segments that a segment names, itself perhaps; `known` are all there are."""
    found: set[str] = set()
    for matcher in segment.when:
        condition = matcher.get("segment")
        if condition is not None:
            found |= segments_named(condition, known)
    return frozenset(found)


def _compiling(name: str, segment: Segment, known: Memberships) -> Steps[Membership]:
    include = yield from gathering(segment.include)
    exclude = yield from gathering(segment.exclude)
    whens, needed = yield from compiling_matchers(segment.when, known)
    if segment.claimed:
        whens, needed = (_claiming(name), *whens), max(needed, Needs.IDENTITY)
    if include or exclude:
        needed = max(needed, Needs.TENANT)
    test = _member(include, exclude, whens)
    if needed is Needs.IDENTITY:
        test = remembering(test, needed)
    elif whens:
        test = asking_once(test)
    return Membership(test, needed, None if whens else include, whens)


def _claiming(name: str) -> Test:
    return lambda identity, _head: name in identity.segments


def _member(include: Set[str], exclude: Set[str], whens: tuple[Test, ...]) -> Test:
    def is_member(identity: Identity, head: RequestHead) -> bool:
        tenant = identity.tenant
        if tenant in include:
            return True
        if tenant in exclude:
            return False
        return any(test(identity, head) for test in whens)

    return is_member
