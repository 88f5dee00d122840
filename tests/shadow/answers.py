"""Answers as the tests of comparing write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.model.comparison import Comparison
from sidecar.model.shadow import Answer
from sidecar.shadow.compare import compare, compile_rules

if TYPE_CHECKING:
    from sidecar.model.identity import JSON
    from sidecar.model.shadow import Outcome

JSON_TYPE = "application/json"

FORMS: list[JSON] = [
    {"outputs": [{"name": "a", "datatype": "FP32", "shape": [2], "data": [1, 2]}]},
    {"outputs": [{"name": "a", "datatype": "BYTES", "shape": [1], "data": ["x"]}]},
    {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {
                    "content": "x",
                    "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}],
                },
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    },
    {"object": "text_completion", "choices": [{"text": "x"}], "usage": None},
    {"a": {"label": "x"}, "b": [0.5, 0.5]},
]
"""Documents that are known here as more than JSON."""


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


def planted(value: JSON, steps: tuple[str, ...], secret: JSON) -> JSON:
    """`value` with `secret` wherever the pointer leads."""
    if not steps:
        return secret
    first, *rest = steps
    if isinstance(value, dict):
        return {
            name: planted(inner, tuple(rest), secret) if first in {"*", name} else inner
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [
            planted(inner, tuple(rest), secret)
            if first in {"*", str(index), _name(inner)}
            else inner
            for index, inner in enumerate(value)
        ]
    return value


def _name(item: JSON) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else "*"


def pointers(value: JSON, at: str = "") -> list[str]:
    """All pointers to each place of a document: by name, by index and with `*`."""
    inner: list[tuple[str, JSON]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = [(str(index), item) for index, item in enumerate(value)]
    found = [at]
    for step, item in inner:
        steps = {step, "*", _name(item)} if isinstance(value, list) else {step, "*"}
        found += [pointer for one in sorted(steps) for pointer in pointers(item, f"{at}/{one}")]
    return found
