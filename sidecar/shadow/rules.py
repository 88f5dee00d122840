"""A policy's comparison, made ready to be used for every pair of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sidecar.shadow.body import CONTENT_FIELDS
from sidecar.shadow.pointer import compile_nodes, steps_of
from sidecar.shadow.tolerance import Tolerance

if TYPE_CHECKING:
    from sidecar.model.comparison import Comparison, Kind, Text
    from sidecar.shadow.pointer import Nodes


class Rules(NamedTuple):
    """`headers` are compared, `fields` are all header fields that are looked at."""

    kind: Kind
    headers: tuple[str, ...]
    fields: frozenset[str]
    nodes: Nodes
    tolerance: Tolerance
    text: Text
    text_ratio: float
    label: tuple[str, ...] | None
    labels: tuple[str, ...]
    probabilities: tuple[str, ...] | None
    max_body_bytes: int


def compile_rules(comparison: Comparison) -> Rules:
    """Return what `compare` needs of a policy's comparison."""
    of = comparison
    headers = tuple(dict.fromkeys(name.lower() for name in of.headers))
    return Rules(
        kind=of.kind,
        headers=headers,
        fields=CONTENT_FIELDS.union(headers),
        nodes=compile_nodes(of),
        tolerance=Tolerance(of.absolute, of.relative),
        text=of.text,
        text_ratio=of.text_ratio,
        label=None if of.label is None else steps_of(of.label),
        labels=of.labels,
        probabilities=None if of.probabilities is None else steps_of(of.probabilities),
        max_body_bytes=of.max_body_bytes,
    )
