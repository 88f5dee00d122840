"""What a shadow may not mean, taken by itself: what is copied, how, and how answers compare."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sidecar.model.comparison import Kind
from sidecar.policy.condition import TOKEN, matcher_faults
from sidecar.policy.deployment import set_headers_faults

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sidecar.model.comparison import Comparison
    from sidecar.model.policy import Shadow
    from sidecar.policy.problem import Finding, Findings, Path

_POINTER = re.compile(r"(/([^~/]|~[01])*)*")  # RFC 6901 section 3


def shadow_faults(shadow: Shadow, at: Path, segments: Collection[str]) -> Findings:
    """Yield everything that is wrong with a shadow but for what it has to do with versions."""
    if not 0 <= shadow.percent <= 100:  # noqa: PLR2004  # percent
        yield (*at, "percent"), "a percentage is from 0 to 100"
    for n, matcher in enumerate(shadow.when):
        yield from matcher_faults(matcher, (*at, "when", n), segments)
        yield None
    for n, method in enumerate(shadow.methods):
        if not TOKEN.fullmatch(method):
            yield (*at, "methods", n), f'"{method[:80]}" is no method, nor *'
    yield from set_headers_faults(shadow.headers, (*at, "headers"))
    if shadow.compare is not None:
        yield from _comparison(shadow.compare, (*at, "compare"))


def _comparison(compare: Comparison, at: Path) -> Iterator[Finding]:
    pointers: dict[Path, str] = {
        **{("ignore", n): one for n, one in enumerate(compare.ignore)},
        **{("unordered", n): one for n, one in enumerate(compare.unordered)},
        **{("keep", "mask", n): one for n, one in enumerate(compare.keep.mask)},
        ("label",): compare.label or "",
        ("probabilities",): compare.probabilities or "",
    }
    for place, pointer in pointers.items():
        if not _POINTER.fullmatch(pointer):
            yield (
                (*at, *place),
                f'"{pointer[:80]}" is no JSON pointer: /a/b, with ~0 for ~, ~1 for /',
            )
    for n, name in enumerate(compare.headers):
        if not TOKEN.fullmatch(name):
            yield (*at, "headers", n), f'"{name[:80]}" is not a header name'
    if compare.kind is Kind.CLASSIFICATION and not (compare.label or compare.probabilities):
        yield (*at, "kind"), "where a classification is has to be said: give label or probabilities"
