"""Whether a shadow's answer says what the client's does, as far as the policy tells.

Whatever bytes the answers hold, this ends with an outcome, in time and memory that their length
bounds. What differs in kind (an event stream and a JSON document, a body and none) differs; only
what neither side can be read as is `uncompared`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sidecar.model.comparison import Kind
from sidecar.model.shadow import Outcome, Uncompared
from sidecar.shadow import body, classes, completion, events, tensors, text
from sidecar.shadow.body import Body, UnreadableError
from sidecar.shadow.document import MalformedError, Walk, decode
from sidecar.shadow.findings import (
    MAX_VALUE_CHARS,
    Findings,
    FullError,
    TooMuchError,
    mismatch,
    spell_value,
)
from sidecar.shadow.pointer import ANY, WHOLE, along, below, has_mask
from sidecar.shadow.rules import Rules, compile_rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model.identity import JSON
    from sidecar.model.shadow import Answer
    from sidecar.shadow.events import Event

__all__ = ["Rules", "compare", "compile_rules"]

T = TypeVar("T")
EMPTY = "empty"
STATUS = "status"
EVENT = "event"
COMPLETION = "completion"
Inference = tuple["JSON", dict[str, tensors.Tensor]]
"""An inference answer's JSON, and its outputs by name."""

_BAD_REQUEST = 400


class Side(NamedTuple):
    """One answer, and its body without content coding."""

    answer: Answer
    body: Body


class Pair(NamedTuple):
    """Two answers with one status, and what is found between them."""

    primary: Side
    shadow: Side
    rules: Rules
    findings: Findings

    @property
    def is_same(self) -> bool:
        """Whether both bodies are, byte by byte."""
        mine, theirs = self.primary.body, self.shadow.body
        return mine.data == theirs.data and mine.charset == theirs.charset

    def both(self, read: Callable[[Body], T], name: str) -> tuple[T, T] | None:
        """Return what both bodies are read as; that just one of them can be is a difference.

        Raises:
            FullError: no further field can be noted.
            UnreadableError: neither can.
        """
        found = [_read_or_none(read, side.body) for side in (self.primary, self.shadow)]
        mine, theirs = found
        if mine is None and theirs is None:
            raise UnreadableError(Uncompared.MALFORMED)
        if mine is not None and theirs is not None:
            return mine[0], theirs[0]
        sides = (name, "malformed") if theirs is None else ("malformed", name)
        self.note_kinds(*sides)
        return None

    def note_kinds(self, primary: str, shadow: str) -> None:
        """Note that two bodies are not of one kind.

        Raises:
            FullError: no further field can be noted.
        """
        self.findings.note(WHOLE, "type", f'"{primary}"', f'"{shadow}"')


def _read_or_none(read: Callable[[Body], T], said: Body) -> tuple[T] | None:
    try:
        return (read(said),)
    except MalformedError:
        return None


def compare(primary: Answer, shadow: Answer, rules: Rules) -> Outcome:
    """Return what comparing two answers finds; it raises nothing.

    Of answers with another status nothing else is compared. Those of 400 and up are compared by
    their form, as `auto` does, whatever kind the policy says of answers.
    """
    findings = Findings()
    mine = body.fields_of(primary, rules.fields)
    theirs = body.fields_of(shadow, rules.fields)
    if primary.status != shadow.status:
        _note_status(primary, shadow, findings)
        with suppress(UnreadableError, TooMuchError):
            findings.tokens = _tokens_of(body.read(shadow.body, theirs, rules.max_body_bytes))
        return _outcome(STATUS, findings)
    kind = rules.kind if primary.status < _BAD_REQUEST else Kind.AUTO
    try:
        _compare_headers(mine, theirs, rules, findings)
        pair = Pair(
            Side(primary, body.read(primary.body, mine, rules.max_body_bytes)),
            Side(shadow, body.read(shadow.body, theirs, rules.max_body_bytes)),
            rules,
            findings,
        )
        found = _compare_bodies(pair, kind)
    except UnreadableError as error:
        return Outcome(kind.value, uncompared=error.cause)
    except TooMuchError:
        return Outcome(kind.value, uncompared=Uncompared.MALFORMED)
    return _outcome(found, findings)


def _outcome(kind: str, findings: Findings) -> Outcome:
    labels, probabilities = findings.rows[0] if findings.rows else (None, None)
    return Outcome(
        kind,
        fields=tuple(findings.fields),
        differences=tuple(findings.differences),
        measures=findings.measures,
        labels=labels,
        probabilities=probabilities,
        tokens=findings.tokens,
        rows=tuple(findings.rows[1:]),
    )


def _note_status(primary: Answer, shadow: Answer, findings: Findings) -> None:
    by = float(shadow.status - primary.status)
    findings.note(STATUS, "value", str(primary.status), str(shadow.status), by)


def _compare_headers(
    primary: dict[str, str], shadow: dict[str, str], rules: Rules, findings: Findings
) -> None:
    for name in rules.headers:
        mine, theirs = primary.get(name), shadow.get(name)
        if mine == theirs:
            continue
        field = f"header:{name}"
        if mine is None:
            findings.note(field, "extra", shadow=spell_value(theirs))
        elif theirs is None:
            findings.note(field, "missing", spell_value(mine))
        elif name != "content-type" or body.media_type(mine) != body.media_type(theirs):
            findings.note(field, "value", spell_value(mine), spell_value(theirs))


def _compare_bodies(pair: Pair, kind: Kind) -> str:
    """Return as what two bodies have been compared.

    Raises:
        UnreadableError: neither is what it says, or a charset is unknown here.
        TooMuchError: one is nested too deeply.
    """
    mine, theirs = _form(pair.primary.body, kind), _form(pair.shadow.body, kind)
    if mine is not theirs and (mine, theirs) in _HALF_BINARY:
        mine = theirs = Kind.TENSORS
    found = EMPTY if mine is None else _name(mine)
    with suppress(FullError):
        if mine is None or theirs is None:
            _note_emptiness(pair)
        elif mine is not theirs:
            pair.note_kinds(_name(mine), _name(theirs))
        else:
            found = _COMPARERS[mine](pair)
    return found


def _form(said: Body, kind: Kind) -> Kind | None:
    """Return what a body is compared as: none if it is empty, `auto` by its form as JSON."""
    if not said.data:
        return None
    if kind is not Kind.AUTO:
        return kind
    if said.json_bytes is not None:
        return Kind.TENSORS
    if said.media == body.EVENTS or body.is_lines(said.media):
        return Kind.STREAM
    if body.is_json(said.media) or (not said.media and body.looks_like_json(said.data)):
        return Kind.AUTO
    return Kind.TEXT if body.is_text(said.media) else Kind.BYTES


def _name(kind: Kind) -> str:
    return Kind.JSON.value if kind is Kind.AUTO else kind.value


def _note_emptiness(pair: Pair) -> None:
    mine, theirs = (len(side.body.data) for side in (pair.primary, pair.shadow))
    if mine != theirs:
        pair.findings.note_length(WHOLE, mine, theirs)


def _by_form(pair: Pair) -> str:
    """Compare JSON as what it is of what is known here."""
    if pair.is_same and not any(mark in pair.primary.body.data for mark in _MARKS):
        return _name(Kind.JSON)
    both = pair.both(_document, _name(Kind.JSON))
    if both is None:
        return _name(Kind.JSON)
    if tensors.is_tensors(both[0]) and tensors.is_tensors(both[1]):
        with suppress(MalformedError):
            _compare_tensors(pair, *[(document, tensors.read(document)) for document in both])
            return Kind.TENSORS.value
    said, answered = map(completion.of_document, both)
    if said is not None and answered is not None:
        _compare_completions(pair, said, answered)
        return COMPLETION
    return _compare_documents(pair, *both)


def _as_json(pair: Pair) -> str:
    if pair.is_same and _USAGE not in pair.primary.body.data:
        return Kind.JSON.value
    both = pair.both(_document, Kind.JSON.value)
    return _compare_documents(pair, *both) if both else Kind.JSON.value


def _compare_documents(pair: Pair, primary: JSON, shadow: JSON) -> str:
    pair.findings.tokens = completion.tokens_of(shadow)
    if not pair.is_same:
        Walk(pair.findings, pair.rules.tolerance).compare(primary, shadow, pair.rules.nodes)
    return Kind.JSON.value


def _as_tensors(pair: Pair) -> str:
    both = pair.both(_inference, Kind.TENSORS.value)
    if both is not None:
        _compare_tensors(pair, *both)
    return Kind.TENSORS.value


def _compare_tensors(pair: Pair, primary: Inference, shadow: Inference) -> None:
    with suppress(FullError):  # here, as it is known what they are
        tensors.compare_envelopes(primary[0], shadow[0], pair.rules, pair.findings)
        tensors.compare(primary[1], shadow[1], pair.rules, pair.findings)


def _as_classification(pair: Pair) -> str:
    both = pair.both(lambda said: classes.read(_document(said), pair.rules), "classification")
    if both is not None:
        classes.compare(*both, pair.rules, pair.findings)
    return Kind.CLASSIFICATION.value


def _as_text(pair: Pair) -> str:
    mine, theirs = pair.primary.body.text(), pair.shadow.body.text()
    is_masked = has_mask(pair.rules.nodes)
    text.compare(mine, theirs, pair.rules, pair.findings, is_masked=is_masked)
    return Kind.TEXT.value


def _as_stream(pair: Pair) -> str:
    mine, theirs = _events(pair.primary.body), _events(pair.shadow.body)
    said, answered = completion.of_events(mine), completion.of_events(theirs)
    if said is not None and answered is not None:
        _measure(pair, said.ends, answered.ends)
        _compare_completions(pair, said, answered)
    else:
        _measure(pair, [event.end for event in mine], [event.end for event in theirs])
        _compare_events(pair, mine, theirs)
    return Kind.STREAM.value


def _compare_events(pair: Pair, primary: list[Event], shadow: list[Event]) -> None:
    """Compare events in their order.

    A pointer means the array of all events' data, or those of any one.
    """
    if len(primary) != len(shadow):
        pair.findings.note_length(WHOLE, len(primary), len(shadow))
    root = pair.rules.nodes
    walk = Walk(pair.findings, pair.rules.tolerance, (ANY,))
    for index, (mine, theirs) in enumerate(zip(primary, shadow, strict=False)):
        if mine.kind != theirs.kind:
            kinds = [event.kind.decode("utf-8", "backslashreplace") for event in (mine, theirs)]
            pair.findings.note_values(EVENT, kinds[0], kinds[1], is_masked=has_mask(root))
        if mine.data != theirs.data:
            walk.compare(_value(mine), _value(theirs), root + below(root, str(index)))


def _measure(pair: Pair, primary: list[int], shadow: list[int]) -> None:
    for side, ends, name in (
        (pair.primary, primary, "primary"),
        (pair.shadow, shadow, "shadow"),
    ):
        marks = body.undo_marks(side.answer.body, side.body.coding, side.answer.marks)
        events.measure(ends, marks, name, pair.findings)


def _compare_completions(
    pair: Pair, primary: completion.Completion, shadow: completion.Completion
) -> None:
    pair.findings.tokens = shadow.tokens
    for said, name in ((primary, "primary"), (shadow, "shadow")):
        if said.tokens is not None:
            pair.findings.measures[f"tokens.{name}"] = said.tokens[1]
    root = pair.rules.nodes  # a pointer means an answer, or the array of a stream's events
    nodes = along(root + below(root, ANY), ("choices",))
    with suppress(FullError):
        completion.compare(primary, shadow, nodes, pair.rules, pair.findings)


def _tokens_of(said: Body) -> tuple[int, int] | None:
    """Return what an answer cost that nothing is to be compared with."""
    form = _form(said, Kind.AUTO)
    if form is Kind.STREAM:
        found = completion.of_events(_events(said))
        return None if found is None else found.tokens
    if form is not Kind.AUTO or _USAGE not in said.data:
        return None
    read = _read_or_none(_document, said)
    return completion.tokens_of(read[0]) if read else None


def _as_bytes(pair: Pair) -> str:
    mine, theirs = pair.primary.body.data, pair.shadow.body.data
    if len(mine) != len(theirs):
        pair.findings.note_length(WHOLE, len(mine), len(theirs))
    elif mine != theirs:
        is_masked = has_mask(pair.rules.nodes)
        start = mismatch(mine, theirs)
        sides = [side[start : start + MAX_VALUE_CHARS].hex() for side in (mine, theirs)]
        pair.findings.note_values(WHOLE, sides[0], sides[1], is_masked=is_masked)
    return Kind.BYTES.value


_COMPARERS: dict[Kind, Callable[[Pair], str]] = {
    Kind.AUTO: _by_form,
    Kind.JSON: _as_json,
    Kind.TENSORS: _as_tensors,
    Kind.CLASSIFICATION: _as_classification,
    Kind.TEXT: _as_text,
    Kind.STREAM: _as_stream,
    Kind.BYTES: _as_bytes,
}

_HALF_BINARY = ((Kind.AUTO, Kind.TENSORS), (Kind.TENSORS, Kind.AUTO))
"""One answer is JSON as a whole, the other's tensors follow it."""

_BEGIN = frozenset(bytes([byte]) for byte in b'{["-0123456789tfnNI ')
"""How a JSON value begins, or what stands before one."""

_USAGE = b'"usage"'
_MARKS = (_USAGE, b'"outputs"')
"""What a document has that more is measured of than whether it differs."""


def _document(said: Body) -> JSON:
    """Read a body as JSON.

    Raises:
        MalformedError: it is not.
        TooMuchError: it is nested too deeply.
        UnreadableError: its charset is unknown here.
    """
    return decode(said.text() if said.charset else said.data)


def _inference(said: Body) -> Inference:
    head = said.data if said.json_bytes is None else said.data[: said.json_bytes]
    document = decode(head)
    return document, tensors.read(document, said.data[len(head) :])


def _events(said: Body) -> list[Event]:
    return events.parse_lines(said.data) if body.is_lines(said.media) else events.parse(said.data)


def _value(event: Event) -> JSON:
    """Return an event's data as the JSON, or else the text, that they are."""
    with suppress(MalformedError):
        if event.data[:1] in _BEGIN:  # for most texts need not be tried
            return decode(event.data)
    return event.data.decode("utf-8", "backslashreplace")
