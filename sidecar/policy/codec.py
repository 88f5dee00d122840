"""How a policy is spelled: JSON or YAML in, one canonical JSON out."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

import msgspec

from sidecar.model.policy import Policy
from sidecar.policy import document
from sidecar.policy.problem import PolicyError, Problem, gather
from sidecar.policy.shape import misfits
from sidecar.policy.validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.model.identity import JSON

MAX_DOCUMENT_BYTES = 1024 * 1024  # etcd's and Kubernetes' order of size for one object

_DECODER = msgspec.json.Decoder(Policy)
_BYTE = re.compile(r" \(byte (\d+)\)$")


def decode(raw: bytes, *, source: str) -> Policy:
    """Read a policy from JSON or YAML; `source` names the document in problems.

    The shape alone is checked here; `validate` judges the meaning.

    Raises:
        PolicyError: not UTF-8, JSON or YAML, too large, a key twice, or not shaped like a policy.
    """
    text = _text(raw, source)
    if not text.lstrip().startswith("{"):
        return _convert(document.read(text, source), source)
    try:
        policy = _DECODER.decode(text)
    except msgspec.ValidationError as error:
        raise _json_misfits(text, source) from error
    except msgspec.DecodeError as error:
        return _from_flow_yaml(text, source, str(error))
    _refuse_twins(text, source)
    return policy


def load(raw: bytes, *, source: str) -> Policy:
    """Decode and validate at once; every problem carries its place in the text.

    Raises:
        PolicyError: as `decode`, or the policy is not valid.
    """
    policy = decode(raw, source=source)
    problems = validate(policy, source)
    if problems:
        raise PolicyError(locate(raw, problems))
    return policy


def locate(raw: bytes, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Give problems of a document that `decode` accepts their lines and columns."""
    where = _places(_text(raw, ""))
    return tuple(problems if where is None else (_placed(one, where) for one in problems))


def encode(policy: Policy) -> bytes:
    """Spell a policy as compact JSON: equal policies give equal bytes."""
    return msgspec.json.encode(policy, order="deterministic")


def digest(document_or_policy: bytes | Policy) -> str:
    """Return the SHA-256, in hexadecimal, of a document as it stands or of a policy as encoded."""
    raw = document_or_policy
    return hashlib.sha256(raw if isinstance(raw, bytes) else encode(raw)).hexdigest()


def _text(raw: bytes, source: str) -> str:
    if len(raw) > MAX_DOCUMENT_BYTES:
        reason = f"{len(raw)} bytes; a document has at most {MAX_DOCUMENT_BYTES}"
        raise PolicyError([Problem(source, "", reason)])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _line_and_column(raw[: error.start].decode(errors="replace"))
        reason = f"not UTF-8: byte 0x{raw[error.start]:02x}"
        raise PolicyError([Problem(source, "", reason, line, column)]) from error


def _line_and_column(before: str) -> document.Place:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _convert(read: document.Document, source: str) -> Policy:
    try:
        return msgspec.convert(read.value, Policy)
    except msgspec.ValidationError as error:
        raise _misfit_error(read.value, read, source) from error


def _from_flow_yaml(text: str, source: str, json_reason: str) -> Policy:
    """Read what starts with `{` and is no JSON; the words of a failure are JSON's."""
    try:
        read = document.read(text, source)
    except PolicyError as error:
        at = _BYTE.search(json_reason)
        before = text.encode()[: int(at[1]) if at else 0].decode(errors="replace")
        place = _line_and_column(before) if at else (None, None)
        reason = "not JSON: " + _BYTE.sub("", json_reason).removeprefix("JSON is malformed: ")
        raise PolicyError([Problem(source, "", reason, *place)]) from error
    return _convert(read, source)


def _json_misfits(text: str, source: str) -> PolicyError:
    try:
        value: JSON = json.loads(text)
    except RecursionError:
        reason = f"nested deeper than {document.MAX_DEPTH} levels"
        return PolicyError([Problem(source, "", reason)])
    except ValueError as error:
        return PolicyError([Problem(source, "", f"not JSON: {error}")])
    return _misfit_error(value, _places(text), source)


def _refuse_twins(text: str, source: str) -> None:
    """Refuse equal keys: msgspec keeps the last, and nobody can tell which one was meant."""
    try:
        json.loads(text, object_pairs_hook=_refuse_twin_members)
    except _TwinKeyError as error:
        reason = f"the key {json.dumps(str(error))} is given twice"
        raise PolicyError([Problem(source, "", reason, *_twin_place(text))]) from error


class _TwinKeyError(ValueError):
    """An object has one key twice."""


def _refuse_twin_members(members: list[tuple[str, JSON]]) -> None:
    if len(dict(members)) == len(members):
        return
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            raise _TwinKeyError(name)
        seen.add(name)


def _twin_place(text: str) -> document.Place | tuple[None, None]:
    try:
        document.read(text, "")
    except PolicyError as error:
        first = error.problems[0]
        if first.line is not None and first.column is not None:
            return first.line, first.column
    return None, None


def _places(text: str) -> document.Document | None:
    try:
        return document.read(text, "")
    except PolicyError:
        return None  # JSON that is no YAML, such as with tabs: its problems go without places


def _misfit_error(value: JSON, where: document.Document | None, source: str) -> PolicyError:
    problems = gather(misfits(value), source)
    return PolicyError(problems if where is None else (_placed(one, where) for one in problems))


def _placed(problem: Problem, where: document.Document) -> Problem:
    place = where.place(problem.path)
    if place is None:
        return problem
    return Problem(problem.source, problem.path, problem.reason, *place)
