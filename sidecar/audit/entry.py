"""What an entry of audit tells: no body, no token, no header that no policy asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from sidecar.model.context import Values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model.audit import Kind
    from sidecar.model.identity import JSON


class Inputs(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a decision was made from besides the document of its revision, to decide it again.

    `attributes` are as in a `Context`: what the policy looks at, by the names of matchers. `pin`
    is what the tenant was pinned to, `kills` reasons by version or label ("" the whole model),
    `unready` the versions without a healthy endpoint, all at the moment of the decision. `grants`
    are those of the token.
    """

    attributes: dict[str, Values] = {}
    asked_version: str | None = None
    pin: str | None = None
    kills: dict[str, str] = {}
    unready: tuple[str, ...] = ()
    grants: dict[str, tuple[str, ...]] | None = None


class Event(Struct, frozen=True, gc=False, omit_defaults=True):
    """What happened. `kind` is a value of `Kind`, `at_s` epoch seconds.

    Of a request: `version` is empty when it was refused, `lineage` the digest of the version's
    lineage, `rule` the id of the rule or split that chose, `rejected` causes by version; `code` the
    slug of the error that was answered and `duration_s` the time to the last byte. `actor` is who
    did a control action, `facts` what else there is to tell of one.
    """

    at_s: float
    kind: str
    request_id: str = ""
    actor: str = ""
    tenant: str = ""
    subject: str = ""
    app: str = ""
    model: str = ""
    version: str = ""
    lineage: str = ""
    revision: int = 0
    reason: str = ""
    rule: str = ""
    rejected: dict[str, str] = {}
    status: int = 0
    code: str = ""
    duration_s: float = 0.0
    inputs: Inputs | None = None
    facts: dict[str, object] = {}


class Entry(Event, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """An event in its place: the `seq`-th of the chain of `writer`, after the one of hash `prev`.

    `signature` is that of a checkpoint; `last` ends the chain.
    """

    writer: str
    seq: int
    prev: str
    hash: str
    last: bool = False
    signature: str = ""


_FIELDS: Final = frozenset(Event.__struct_fields__) - {"at_s", "kind", "facts", "inputs"}
_encode: Final = msgspec.json.Encoder().encode
decode: Final = msgspec.json.Decoder(Entry).decode


def event(kind: Kind, at_s: float, facts: Mapping[str, JSON]) -> Event:
    """Return the event of these facts: those with a member of their own there, others in `facts`.

    Raises:
        msgspec.ValidationError: one of them is of another type than its member.
    """
    own = {name: value for name, value in facts.items() if name in _FIELDS}
    others = {name: value for name, value in facts.items() if name not in _FIELDS}
    return msgspec.convert({**own, "at_s": at_s, "kind": kind.value, "facts": others}, Event)


def encode(one: Event) -> bytes:
    """Return an event as a JSON object; what is no Unicode, as a claim may be, is told as `?`."""
    try:
        return _encode(one)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(one), ensure_ascii=False).encode("utf-8", "replace")
