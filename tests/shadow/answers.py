"""Answers as the tests of comparing write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.model.comparison import Comparison
from sidecar.model.shadow import Answer
from sidecar.shadow.compare import compare, compile_rules

if TYPE_CHECKING:
    from sidecar.model.shadow import Outcome

JSON_TYPE = "application/json"


def answer(body: bytes, media: str = JSON_TYPE, status: int = 200, **fields: str) -> Answer:
    """One answer; `content_encoding="gzip"` is a header field."""
    lines = [(name.replace("_", "-"), value) for name, value in fields.items()]
    if media:
        lines.append(("content-type", media))
    return Answer(status, tuple(lines), body, first_byte_s=0.1, duration_s=0.2)


def compared(
    primary: bytes | Answer,
    shadow: bytes | Answer,
    comparison: Comparison = Comparison(),  # noqa: B008
) -> Outcome:
    """What comparing two bodies of JSON, or two answers, finds."""
    mine = answer(primary) if isinstance(primary, bytes) else primary
    theirs = answer(shadow) if isinstance(shadow, bytes) else shadow
    return compare(mine, theirs, compile_rules(comparison))
