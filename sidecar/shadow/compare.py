"""Whether a shadow's answer says what the client's does, as far as the policy tells.

Whatever bytes the answers hold, this ends with an outcome, in time and memory that their length
bounds. What differs in kind (an event stream and a JSON document, a body and none) differs; only
what neither side can be read as is `uncompared`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from sidecar.model.comparison import Kind, Text
from sidecar.model.shadow import Outcome, Uncompared
from sidecar.shadow import body
from sidecar.shadow.body import CONTENT_FIELDS, Body, UnreadableError
from sidecar.shadow.document import MalformedError, Walk, decode
from sidecar.shadow.findings import Findings, FullError, TooMuchError, spell_value
from sidecar.shadow.pointer import WHOLE, Nodes, compile_nodes, has_mask
from sidecar.shadow.tolerance import Tolerance

if TYPE_CHECKING:
    from sidecar.model.comparison import Comparison
    from sidecar.model.identity import JSON
    from sidecar.model.shadow import Answer


class Rules(NamedTuple):
    """A policy's comparison, compiled. `fields` are the header fields that are looked at."""

    kind: Kind
    headers: tuple[str, ...]
    fields: frozenset[str]
    nodes: Nodes
    tolerance: Tolerance
    text: Text
    text_ratio: float
    max_body_bytes: int


def compile_rules(comparison: Comparison) -> Rules:
    """Return what `compare` needs of a policy's comparison."""
    headers = tuple(dict.fromkeys(name.lower() for name in comparison.headers))
    return Rules(
        kind=comparison.kind,
        headers=headers,
        fields=CONTENT_FIELDS.union(headers),
        nodes=compile_nodes(comparison),
        tolerance=Tolerance(comparison.absolute, comparison.relative),
        text=comparison.text,
        text_ratio=comparison.text_ratio,
        max_body_bytes=comparison.max_body_bytes,
    )


def compare(primary: Answer, shadow: Answer, rules: Rules) -> Outcome:
    """Return what comparing two answers finds; it raises nothing.

    Of answers with another status nothing else is compared. Those of 400 and up are compared by
    their form, as `auto` does, whatever kind the policy says of answers.
    """
    findings = Findings()
    if primary.status != shadow.status:
        by = float(shadow.status - primary.status)
        findings.note("status", "value", str(primary.status), str(shadow.status), by)
        return _outcome("status", findings)
    mine = body.fields_of(primary, rules.fields)
    theirs = body.fields_of(shadow, rules.fields)
    _compare_headers(mine, theirs, rules, findings)
    kind = rules.kind if primary.status < 400 else Kind.AUTO  # noqa: PLR2004
    try:
        one = body.read(primary.body, mine, rules.max_body_bytes)
        other = body.read(shadow.body, theirs, rules.max_body_bytes)
        found = _compare_bodies(one, other, kind, rules, findings)
    except UnreadableError as error:
        return Outcome(kind.value, uncompared=error.cause)
    except TooMuchError:
        return Outcome(kind.value, uncompared=Uncompared.MALFORMED)
    return _outcome(found, findings)


def _outcome(kind: str, findings: Findings) -> Outcome:
    return Outcome(
        kind,
        fields=tuple(findings.fields),
        differences=tuple(findings.differences),
        measures=findings.measures,
    )


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


def _compare_bodies(
    primary: Body, shadow: Body, kind: Kind, rules: Rules, findings: Findings
) -> str:
    """Return as what two bodies have been compared.

    Raises:
        UnreadableError: neither is what it says, or a charset is unknown here.
        TooMuchError: one is nested too deeply.
    """
    if not primary.data and not shadow.data:
        return "empty"
    forms = _form(primary, kind), _form(shadow, kind)
    with suppress(FullError):
        if forms[0] != forms[1]:
            _note_kinds(primary, shadow, forms, findings)
        elif forms[0] is Kind.JSON:
            _compare_json(primary, shadow, rules, findings)
        else:
            _compare_bytes(primary, shadow, rules, findings)
    return forms[0].value if forms[0] else "empty"


def _form(said: Body, kind: Kind) -> Kind | None:
    """Return what a body is compared as, be it empty (None)."""
    if not said.data:
        return None
    if kind is not Kind.AUTO:
        return kind
    if body.is_json(said.media) or (not said.media and body.looks_like_json(said.data)):
        return Kind.JSON
    return Kind.BYTES


def _note_kinds(
    primary: Body, shadow: Body, forms: tuple[Kind | None, Kind | None], findings: Findings
) -> None:
    if forms[0] is None:
        findings.note(WHOLE, "extra", shadow=_spell_size(shadow))
    elif forms[1] is None:
        findings.note(WHOLE, "missing", _spell_size(primary))
    else:
        findings.note(WHOLE, "type", f'"{forms[0].value}"', f'"{forms[1].value}"')


def _spell_size(said: Body) -> str:
    return f'"{len(said.data)} bytes"'


def _compare_json(primary: Body, shadow: Body, rules: Rules, findings: Findings) -> None:
    if primary.data == shadow.data and primary.charset == shadow.charset:
        return
    mine, theirs = _document(primary), _document(shadow)
    if isinstance(mine, MalformedError) and isinstance(theirs, MalformedError):
        raise UnreadableError(Uncompared.MALFORMED)
    if isinstance(mine, MalformedError) or isinstance(theirs, MalformedError):
        _note_malformed(mine, findings)
        return
    Walk(findings, rules.tolerance).compare(mine, theirs, rules.nodes)


def _document(said: Body) -> JSON | MalformedError:
    try:
        return decode(said.text() if said.charset not in {"", "utf-8"} else said.data)
    except MalformedError as error:
        return error


def _note_malformed(primary: JSON | MalformedError, findings: Findings) -> None:
    sides = ('"malformed"', '"json"')
    mine, theirs = sides if isinstance(primary, MalformedError) else sides[::-1]
    findings.note(WHOLE, "type", mine, theirs)


def _compare_bytes(primary: Body, shadow: Body, rules: Rules, findings: Findings) -> None:
    if primary.data == shadow.data:
        return
    if len(primary.data) != len(shadow.data):
        findings.note_length(WHOLE, len(primary.data), len(shadow.data))
        return
    is_masked = has_mask(rules.nodes)
    findings.note_values(
        WHOLE, primary.data[:100].hex(), shadow.data[:100].hex(), is_masked=is_masked
    )
