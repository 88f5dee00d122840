"""How a policy is spelled: JSON or YAML in, one canonical JSON out."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sidecar.policy import pieces, places
from sidecar.policy.address import ANYWHERE, AllowList
from sidecar.policy.partial import dividing
from sidecar.policy.problem import MAX_PROBLEMS, PolicyError, Problem, gather, render
from sidecar.policy.shape import shaping
from sidecar.policy.steps import finish, letting_go
from sidecar.policy.validate import judging, validating

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sidecar.model.identity import JSON
    from sidecar.model.policy import Policy
    from sidecar.policy.steps import Steps

MAX_DOCUMENT_BYTES = 1024 * 1024  # etcd's and Kubernetes' order of size for one object

_WELL_FORMED = msgspec.json.Decoder(msgspec.Raw)
_BYTE = re.compile(r" \(byte (\d+)\)$")


def decode(raw: bytes, *, source: str) -> Policy:
    """Read a policy from JSON or YAML; `source` names the document in problems.

    The shape alone is checked here; `validate` judges the meaning.

    Raises:
        PolicyError: not UTF-8, JSON or YAML, too large, a key twice, or not shaped like a policy.
    """
    return finish(decoding(raw, source=source))


def decoding(raw: bytes, *, source: str) -> Steps[Policy]:
    """Do what `decode` does, in steps."""
    value, read = yield from _reading(_text(raw, source), source)
    made, misfits, _ = yield from shaping(value)
    held: list[object] = [value]
    del value
    yield from letting_go(held)
    if made is not None and not misfits:
        return made
    held.append(made)
    del made
    yield from letting_go(held)
    raise (yield from _refusal(read, gather(misfits, source)))


def load(raw: bytes, *, source: str, allowed: AllowList = ANYWHERE) -> Policy:
    """Decode and validate at once; every problem carries its place in the text, and they its order.

    `allowed` is where endpoints may be. Of a document that is not shaped like a policy is judged
    what is.

    Raises:
        PolicyError: as `decode`, or the policy is not valid.
    """
    return finish(loading(raw, source=source, allowed=allowed))


def loading(
    raw: bytes, *, source: str, allowed: AllowList = ANYWHERE, most_yaml: int = MAX_DOCUMENT_BYTES
) -> Steps[Policy]:
    """Do what `load` does, in steps.

    Of YAML `most_yaml` characters are read at most: its scanner takes one text, however long, in
    one go.
    """
    value, read = yield from _reading(_text(raw, source), source, most_yaml)
    made, misfits, holes = yield from shaping(value)
    held: list[object] = [value]
    del value
    yield from letting_go(held)
    if made is None:
        problems = gather(misfits, source)
    elif not misfits:
        problems = yield from validating(made, source, allowed)
        if not problems:
            return made
    else:
        partial = yield from dividing(made, holes)
        found = yield from judging(partial, allowed, MAX_PROBLEMS + 1 - len(misfits))
        problems = gather((*misfits, *found), source)
        del partial
    held.append(made)
    del made
    yield from letting_go(held)
    raise (yield from _refusal(read, problems))


def locate(raw: bytes, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Give problems of a document that `decode` accepts their lines and columns."""
    return finish(locating(raw, problems))


def locating(raw: bytes, problems: Iterable[Problem]) -> Steps[tuple[Problem, ...]]:
    """Do what `locate` does, in steps."""
    given = tuple(problems)
    if not given:
        return ()
    value, read = yield from _reading(_text(raw, ""), "")
    held: list[object] = [value]
    del value
    yield from letting_go(held)
    return (yield from _placing(read, given))


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


class _Read(NamedTuple):
    """What it takes to find the places of a document's values: `ends` only of JSON."""

    text: str
    ends: Mapping[int, int] | None = None


def _reading(
    text: str, source: str, most_yaml: int = MAX_DOCUMENT_BYTES
) -> Steps[tuple[JSON, _Read]]:
    """Read a document as plain values, which nothing else holds."""
    if not text.lstrip().startswith("{"):
        return (yield from _reading_yaml(text, source, most_yaml)), _Read(text)
    try:
        _WELL_FORMED.decode(text)  # a megabyte takes a millisecond: nothing is made of it
        value, ends = yield from pieces.read(text)
    except msgspec.DecodeError as error:
        return (yield from _reading_flow_yaml(text, source, most_yaml, str(error)))
    except pieces.FlawError as flaw:
        where = places.place(text, flaw.at)
        raise PolicyError([Problem(source, render(flaw.path), flaw.reason, *where)]) from flaw
    except RecursionError as error:
        where = places.too_deep(text, pieces.MAX_DEPTH)
        reason = f"nested deeper than {pieces.MAX_DEPTH} levels"
        raise PolicyError([Problem(source, "", reason, *where)]) from error
    return value, _Read(text, ends)


def _reading_yaml(text: str, source: str, most: int) -> Steps[JSON]:
    if len(text) > most:
        reason = f"too large for YAML: {most} characters are the most here; write it as JSON"
        raise PolicyError([Problem(source, "", reason, 1, 1)])
    # People write YAML; a store has JSON, and a worker does without the parser's 1.5 MB.
    from sidecar.policy import document  # noqa: PLC0415

    return document.reading(text, source)


def _reading_flow_yaml(
    text: str, source: str, most: int, json_reason: str
) -> Steps[tuple[JSON, _Read]]:
    """Read what starts with `{` and is no JSON; the words of a failure are JSON's."""
    try:
        value = yield from _reading_yaml(text, source, most)
    except PolicyError as error:
        at = _BYTE.search(json_reason)  # none: it ends too early
        raw = text.encode()
        where = _end(raw[: int(at[1])] if at else raw)
        reason = "not JSON: " + _BYTE.sub("", json_reason).removeprefix("JSON is malformed: ")
        raise PolicyError([Problem(source, "", reason, *where)]) from error
    return value, _Read(text)


def _refusal(read: _Read, problems: tuple[Problem, ...]) -> Steps[PolicyError]:
    """Return why a document is refused, sorted by place."""
    placed = yield from _placing(read, problems)
    first = sorted(placed[:MAX_PROBLEMS], key=lambda one: (one.line or 0, one.column or 0))
    return PolicyError((*first, *placed[MAX_PROBLEMS:]))


def _placing(read: _Read, problems: Iterable[Problem]) -> Steps[tuple[Problem, ...]]:
    """Give problems the places of what they speak of, or else of what encloses that."""
    given = tuple(problems)
    paths = [one.path for one in given]
    if read.ends is None:
        from sidecar.policy import document  # noqa: PLC0415 -- see _reading_yaml

        found = yield from document.finding(read.text, paths)
    else:
        found = yield from places.finding(read.text, paths, read.ends)
    return tuple(
        Problem(one.source, one.path, one.reason, *(places.nearest(one.path, found) or (1, 1)))
        for one in given
    )
