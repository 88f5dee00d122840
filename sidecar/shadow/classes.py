"""Classifications: which label each side gives, and with what probability."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from sidecar.shadow.document import MalformedError
from sidecar.shadow.findings import spell_value
from sidecar.shadow.masking import masked
from sidecar.shadow.pointer import along, has_mask, is_ignored, resolve
from sidecar.shadow.tolerance import NUMBERS

if TYPE_CHECKING:
    from sidecar.model.identity import JSON
    from sidecar.shadow.findings import Findings
    from sidecar.shadow.rules import Rules
    from sidecar.shadow.tolerance import Number

MAX_ROWS = 256  # whose labels are told; all are compared
MAX_LABEL_CHARS = 100  # labels are rows and columns of a table
FIELD = "label"


class Row(NamedTuple):
    """What a side says of one row; `probabilities` are by label."""

    label: str
    probabilities: dict[str, float]


class Rows(NamedTuple):
    """What a side says of all rows; `is_masked` if any of it may not be told."""

    rows: list[Row]
    is_masked: bool


def read(document: JSON, rules: Rules) -> Rows:
    """Return the rows that the policy's pointers mean.

    A label is the text, number or truth value at `label`; a number there that is none of the names
    in `labels` is the index of one. Without `label` it is that of the first greatest probability.
    `probabilities` are an array, an object by label, or one number: that of the second of two. An
    array may hold a row each, or be the flat data of as many rows as there are labels; without
    `label`, of rows that are as wide as `labels`.

    Raises:
        MalformedError: a pointer means nothing, or what is no label or no probabilities; both
            pointers mean several rows, but not as many.
        TooMuchError: the document is nested too deeply.
    """
    labels = _labels(document, rules)
    likely = _probabilities(document, rules, None if labels is None else len(labels))
    if labels is None:
        rows = [Row(max(by, key=by.__getitem__), by) for by in likely or ()]
    elif likely is None:
        rows = [Row(label, {}) for label in labels]
    elif len(labels) == len(likely):
        rows = [Row(label, by) for label, by in zip(labels, likely, strict=True)]
    else:
        raise MalformedError
    if not rows:
        raise MalformedError
    return Rows(rows, _is_masked(document, rules))


def _is_masked(document: JSON, rules: Rules) -> bool:
    if not has_mask(rules.nodes):
        return False
    left = masked(document, rules.nodes)
    places = [steps for steps in (rules.label, rules.probabilities) if steps is not None]
    return any(resolve(left, steps) != resolve(document, steps) for steps in places)


def _labels(document: JSON, rules: Rules) -> list[str] | None:
    if rules.label is None:
        return None
    found = resolve(document, rules.label)
    if len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    return [_label(value, rules.labels) for value in found]


def _label(value: JSON, names: tuple[str, ...]) -> str:
    if value is None or isinstance(value, (list, dict)):
        raise MalformedError
    label = value if isinstance(value, str) else spell_value(value)
    if type(value) is int and label not in names and 0 <= value < len(names):
        label = names[value]
    return label


def _probabilities(document: JSON, rules: Rules, rows: int | None) -> list[dict[str, float]] | None:
    if rules.probabilities is None:
        return None
    found = resolve(document, rules.probabilities)
    if len(found) == 1 and isinstance(found[0], list):
        found = _divided(found[0], rows, len(rules.labels))
    return [_by_label(value, rules.labels) for value in found]


def _divided(value: list[JSON], rows: int | None, classes: int) -> list[JSON]:
    """Return the rows of an array: its own, or of flat data of so many rows, or classes."""
    if value and isinstance(value[0], (list, dict)):
        return value
    width = len(value) // rows if rows else classes
    if rows == 1 or width == 0 or len(value) % width or (rows is None and width == 1):
        return [value]
    return [value[start : start + width] for start in range(0, len(value), width)]


def _by_label(value: JSON, names: tuple[str, ...]) -> dict[str, float]:
    if isinstance(value, dict):
        found = {name: _number(said) for name, said in value.items()}
    else:
        numbers = [_number(said) for said in (value if isinstance(value, list) else [value])]
        if len(numbers) == 1:
            numbers = [1 - numbers[0], numbers[0]]
        spare = map(str, range(len(names), len(numbers)))
        found = dict(zip([*names[: len(numbers)], *spare], numbers, strict=True))
    if not found:
        raise MalformedError
    return found


def _number(value: JSON) -> float:
    if type(value) not in NUMBERS or not -1e300 < cast("Number", value) < 1e300:  # noqa: PLR2004
        raise MalformedError  # nor are infinities and not-a-number
    return float(cast("Number", value))


def compare(primary: Rows, shadow: Rows, rules: Rules, findings: Findings) -> None:
    """Note whether every row has the same label on both sides; probabilities are measured alone.

    `label_agreement` is the share of rows with one label, `probability_error` the mean distance of
    the probabilities of the labels that the client got. Labels that are ignored or masked are not
    told.

    Raises:
        FullError: no further field can be noted.
    """
    if len(primary.rows) != len(shadow.rows):
        findings.note_length(FIELD, len(primary.rows), len(shadow.rows))
        return
    pairs = list(zip(primary.rows, shadow.rows, strict=True))
    same = sum(mine.label == theirs.label for mine, theirs in pairs)
    findings.measures["label_agreement"] = same / len(pairs)
    shifts = [_shift(mine, theirs) for mine, theirs in pairs]
    known = [shift for shift in shifts if shift is not None]
    if known:
        apart = sum(abs(mine - theirs) for mine, theirs in known)
        findings.measures["probability_error"] = apart / len(known)
    if is_ignored(along(rules.nodes, rules.label or rules.probabilities or ())):
        return
    is_masked = primary.is_masked or shadow.is_masked
    if not is_masked:
        findings.rows = [
            (_told(mine.label, theirs.label), shift)
            for (mine, theirs), shift in zip(pairs[:MAX_ROWS], shifts, strict=False)
        ]
    for mine, theirs in pairs:
        if mine.label != theirs.label:
            findings.note_values(FIELD, mine.label, theirs.label, is_masked=is_masked)
            return


def _told(mine: str, theirs: str) -> tuple[str, str]:
    """Return two labels as they are counted, cut: those that differ do so afterwards, too."""
    one, other = mine[:MAX_LABEL_CHARS], theirs[:MAX_LABEL_CHARS]
    return one, other if one != other or mine == theirs else f"{other[:-1]}…"


def _shift(mine: Row, theirs: Row) -> tuple[float, float] | None:
    """Return both sides' probability of the label that the client got."""
    here, there = mine.probabilities.get(mine.label), theirs.probabilities.get(mine.label)
    return None if here is None or there is None else (here, there)
