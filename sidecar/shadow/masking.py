"""Bodies as they may be kept: without what an operator's pointers mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sidecar.shadow import body
from sidecar.shadow.body import UnreadableError
from sidecar.shadow.document import MalformedError, decode
from sidecar.shadow.findings import MASKED, TooMuchError
from sidecar.shadow.pointer import below, below_item, has_mask, mask_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model.identity import JSON
    from sidecar.shadow.pointer import Nodes

MAX_DEPTH = 100


def mask(data: bytes, fields: Mapping[str, str], nodes: Nodes, max_bytes: int) -> bytes:
    """Return a body with `"***"` in the place of all that masks point at.

    `nodes` come from `compile_masks` or a comparison's rules; `fields` are the body's header
    fields by lower-case name. A body of JSON is written anew, in UTF-8 and without content coding.
    Of any other body nothing is kept, for what a mask means in it cannot be told. Without masks a
    body is kept as it is.
    """
    if not has_mask(nodes):
        return data
    try:
        said = body.read(data, fields, max_bytes)
        if not body.is_json(said.media) or said.json_bytes is not None:
            return b""
        document = decode(said.text() if said.charset else said.data)
        return msgspec.json.encode(masked(document, nodes))
    except (UnreadableError, MalformedError, TooMuchError):
        return b""
    except (UnicodeEncodeError, OverflowError):  # a lone surrogate; a very long integer
        return b""


def masked(value: JSON, nodes: Nodes, depth: int = 0) -> JSON:
    """Return a document with `"***"` in the place of all that masks point at.

    Raises:
        TooMuchError: it is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise TooMuchError
    if mask_of(nodes) is not None:
        return MASKED
    if not has_mask(nodes):
        return value
    if isinstance(value, dict):
        return {name: masked(inner, below(nodes, name), depth + 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [
            masked(inner, below_item(nodes, index, inner), depth + 1)
            for index, inner in enumerate(value)
        ]
    return value
