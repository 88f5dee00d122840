"""Whatever is compared as what, nothing that a mask points at is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import assume, given
from hypothesis import strategies as st

from sidecar.model.comparison import Comparison, Kept, Kind, Text
from sidecar.shadow.masking import mask
from sidecar.shadow.pointer import compile_masks, resolve, steps_of
from tests.shadow.answers import FORMS, answer, compared, planted, pointers

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

MEDIA = ["application/json", "text/plain", "text/event-stream", "application/x-ndjson", "a/b", ""]
NAMES = st.sampled_from(
    [
        *("a", "b", "label", "usage", "outputs", "name", "datatype", "shape", "data", "parameters"),
        *("object", "choices", "message", "content", "tool_calls", "index", "finish_reason"),
    ]
)
LEAVES = st.none() | st.integers(0, 3) | st.sampled_from(["x", "y"])
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
) | st.sampled_from(FORMS)
SECRETS = ("s3cr3t", 987654321, {"s3cr3t": 987654321}, ["s3cr3t"])


@given(st.data(), DOCUMENTS, DOCUMENTS, st.sampled_from(SECRETS), st.booleans())
def test_what_is_masked_is_not_told(
    data: st.DataObject,
    one: JSON,
    other: JSON,
    secret: JSON,
    both: bool,
) -> None:
    pointer = data.draw(st.sampled_from(pointers(one)))
    media = data.draw(st.sampled_from(MEDIA))
    one = planted(one, steps_of(pointer), secret)
    other = planted(other, steps_of(pointer), "s3cr3t too") if both else other
    # A secret in the place of an item takes the name away that the item was meant by.
    for document in (one, other):
        assume("98765432" not in repr(document) or secret in resolve(document, steps_of(pointer)))
        assume("s3cr3t" not in repr(document) or resolve(document, steps_of(pointer)))
    comparison = Comparison(
        kind=data.draw(st.sampled_from(Kind)),
        unordered=tuple(data.draw(st.sampled_from([(), ("",), ("/*",), ("/a",)]))),
        absolute=data.draw(st.sampled_from([0.0, 1.0])),
        text=data.draw(st.sampled_from(Text)),
        label=data.draw(
            st.sampled_from(["", "/a/label", "/*", "/outputs/0/data", "/outputs/a/data"])
        ),
        probabilities=data.draw(st.sampled_from([None, "/b", "/outputs/*/data"])),
        headers=(),
        keep=Kept(mask=(pointer,)),
    )
    bodies = [json.dumps(document).encode() for document in (one, other)]
    if media == "text/event-stream":
        bodies = [b"data: " + body + b"\n\n" for body in bodies]
    mine, theirs = (answer(body, media) for body in bodies)
    for outcome in (compared(mine, theirs, comparison), compared(theirs, mine, comparison)):
        told = repr((outcome.fields, outcome.differences, outcome.labels, outcome.rows))
        assert "s3cr3t" not in told
        assert "98765432" not in told
    kept = mask(bodies[0], {"content-type": media}, compile_masks((pointer,)), 10_000)
    assert b"s3cr3t" not in kept
    assert b"987654321" not in kept


@given(DOCUMENTS)
def test_every_pointer_into_a_document_leads_somewhere(document: JSON) -> None:
    for pointer in pointers(document):
        assert resolve(document, steps_of(pointer))
