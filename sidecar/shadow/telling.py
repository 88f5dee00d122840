"""Outcomes as they can be stored: whatever answers hold, what is told of them is text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sidecar.model.shadow import Outcome

if TYPE_CHECKING:
    from sidecar.model.identity import JSON


def tellable(outcome: Outcome) -> Outcome:
    r"""Return an outcome that can be written in UTF-8.

    JSON may hold half a surrogate pair (RFC 8259 section 8.2), as a name or a label: it is told as
    the escape that it came as, `\ud800`. One such answer would else keep all counts from the store.
    """
    try:
        msgspec.json.encode(outcome)
    except UnicodeEncodeError:
        return msgspec.convert(_escaped(msgspec.to_builtins(outcome)), Outcome)
    return outcome


def _escaped(told: JSON) -> JSON:
    if isinstance(told, str):
        return told.encode("utf-8", "backslashreplace").decode()
    if isinstance(told, dict):
        return {str(_escaped(name)): _escaped(inner) for name, inner in told.items()}
    if isinstance(told, list | tuple):
        return [_escaped(inner) for inner in told]
    return told
