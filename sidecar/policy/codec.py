"""How a policy is spelled: JSON or YAML in, one canonical JSON out."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

import msgspec

from sidecar.model.policy import Policy
from sidecar.policy import document, places, words
from sidecar.policy.address import ANYWHERE, AllowList
from sidecar.policy.problem import PolicyError, Problem, gather
from sidecar.policy.shape import misfits
from sidecar.policy.validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
        raise _json_misfits(text, source, error) from error
    except msgspec.DecodeError as error:
        return _from_flow_yaml(text, source, str(error))
    _refuse_twins(text, source)
    return policy


def load(raw: bytes, *, source: str, allowed: AllowList = ANYWHERE) -> Policy:
    """Decode and validate at once; every problem carries its place in the text.

    `allowed` is where endpoints may be.

    Raises:
        PolicyError: as `decode`, or the policy is not valid.
    """
    policy = decode(raw, source=source)
    problems = validate(policy, source, allowed)
    if problems:
        raise PolicyError(locate(raw, problems))
    return policy


def locate(raw: bytes, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Give problems of a document that `decode` accepts their lines and columns."""
    text, given = _text(raw, ""), tuple(problems)
    if not given:
        return ()
    if not _is_json(text):
        return _placed(given, document.read(text, "").places)
    return _placed(given, places.in_json(text, [one.path for one in given]))


def encode(policy: Policy) -> bytes:
    """Spell a policy as compact JSON: equal policies give equal bytes."""
    return msgspec.json.encode(policy, order="deterministic")


def digest(document_or_policy: bytes | Policy) -> str:
    """Return the SHA-256, in hexadecimal, of a document as it stands or of a policy as encoded."""
    raw = document_or_policy
    return hashlib.sha256(raw if isinstance(raw, bytes) else encode(raw)).hexdigest()


def _text(raw: bytes, source: str) -> str:
    if len(raw) > MAX_DOCUMENT_BYTES:
        where = _end(raw[:MAX_DOCUMENT_BYTES])
        reason = f"too large: a document has at most {MAX_DOCUMENT_BYTES} bytes"
        raise PolicyError([Problem(source, "", reason, *where)])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"not UTF-8: byte 0x{raw[error.start]:02x}"
        raise PolicyError([Problem(source, "", reason, *_end(raw[: error.start]))]) from error


def _end(before: bytes) -> places.Place:
    """Return the place that follows a piece of a document."""
    text = before.decode("utf-8-sig", errors="replace")
    return places.place(text, len(text))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _convert(read: document.Document, source: str) -> Policy:
    try:
        return msgspec.convert(read.value, Policy)
    except msgspec.ValidationError as error:
        problems = gather(misfits(read.value), source) or (_first_misfit(error, source),)
        raise PolicyError(_placed(problems, read.places)) from error


def _from_flow_yaml(text: str, source: str, json_reason: str) -> Policy:
    """Read what starts with `{` and is no JSON; the words of a failure are JSON's."""
    try:
        read = document.read(text, source)
    except PolicyError as error:
        at = _BYTE.search(json_reason)  # none: it ends too early
        raw = text.encode()
        where = _end(raw[: int(at[1])] if at else raw)
        reason = "not JSON: " + _BYTE.sub("", json_reason).removeprefix("JSON is malformed: ")
        raise PolicyError([Problem(source, "", reason, *where)]) from error
    return _convert(read, source)


def _json_misfits(text: str, source: str, refusal: msgspec.ValidationError) -> PolicyError:
    problems: tuple[Problem, ...] = ()
    try:
        value: JSON = json.loads(text)
        problems = gather(misfits(value), source)
    except RecursionError:
        where = places.too_deep(text, document.MAX_DEPTH)
        reason = f"nested deeper than {document.MAX_DEPTH} levels"
        return PolicyError([Problem(source, "", reason, *where)])
    except json.JSONDecodeError as error:
        where = places.place(text, error.pos)
        return PolicyError([Problem(source, "", f"not JSON: {error.msg}", *where)])
    except ValueError:
        pass  # a number of thousands of digits, which is what was refused
    problems = problems or (_first_misfit(refusal, source),)
    return PolicyError(_placed(problems, places.in_json(text, [one.path for one in problems])))


def _first_misfit(refusal: msgspec.ValidationError, source: str) -> Problem:
    """Tell what a decoder refused, where it knows more than the types: numbers out of range."""
    reason, _, path = str(refusal).partition(" - at `$")
    inside = path.partition("[...]")[0].rstrip("`").removeprefix(".")
    return Problem(source, inside, words.plain(reason, None))


def _refuse_twins(text: str, source: str) -> None:
    """Refuse equal keys: msgspec keeps the last, and nobody can tell which one was meant."""
    try:
        json.loads(text, object_pairs_hook=_refuse_twin_members)
    except _TwinKeyError as error:
        reason = f"the key {json.dumps(str(error)[:80])} is given twice"
        where = places.twin(text) or (1, 1)
        raise PolicyError([Problem(source, "", reason, *where)]) from error


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


def _placed(problems: Iterable[Problem], found: Mapping[str, places.Place]) -> tuple[Problem, ...]:
    """Give problems the places of what they speak of, or else of what encloses that."""
    return tuple(
        Problem(one.source, one.path, one.reason, *(places.nearest(one.path, found) or (1, 1)))
        for one in problems
    )
