"""Tensors of the Open Inference Protocol: how far two answers' outputs are apart.

Outputs are found by name, in whatever order they come. `id`, `model_name` and `model_version` tell
of the answer, not of what was inferred, and are not compared.
"""

from __future__ import annotations

import struct
from itertools import chain
from math import inf, isfinite, sqrt
from operator import mul, sub
from typing import TYPE_CHECKING, NamedTuple, cast

from sidecar.model.shadow import Uncompared
from sidecar.shadow.body import MAX_VALUES, UnreadableError
from sidecar.shadow.document import MalformedError, Walk
from sidecar.shadow.findings import Findings
from sidecar.shadow.pointer import ANY, along, below_item, has_mask, is_ignored, mask_of, spell
from sidecar.shadow.tolerance import NUMBERS, distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.model.identity import JSON
    from sidecar.shadow.pointer import Nodes
    from sidecar.shadow.rules import Rules
    from sidecar.shadow.tolerance import Number

MAX_RANKED = 2000  # numbers of an output, from its beginning, that are put in order: a millisecond
MIN_SCORES = 2
MIN_RANKED = 3  # two numbers are in the same order or in the other, as top-1 says

_FORMATS = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
    "BF16": "H",  # the upper half of an FP32
}
_SCORES = frozenset(("FP16", "FP32", "FP64", "BF16"))
_ENVELOPE = frozenset(("id", "model_name", "model_version", "outputs"))


class Tensor(NamedTuple):
    """One output: its data flat in row-major order, `place` its index among the outputs."""

    datatype: str
    shape: tuple[int, ...]
    data: list[JSON]
    place: int


class Sums:
    """What the outputs of one pair add up to."""

    __slots__ = ("apart", "correlation", "number", "ranked", "rows", "top", "worst")

    def __init__(self) -> None:
        self.number = 0  # numbers
        self.apart = 0.0  # sum of their errors
        self.worst = 0.0
        self.rows = 0  # of scores
        self.top = 0  # with the same greatest score
        self.ranked = 0
        self.correlation = 0.0

    def add(self, ones: list[Number], others: list[Number]) -> float:
        """Add the errors of numbers; return the greatest, be it infinity.

        Errors that are no finite number are left out of the sums.
        """
        errors: list[Number] = []
        try:
            errors = list(map(abs, map(sub, ones, others)))
            total = float(sum(errors))
        except OverflowError:
            total = inf
        worst = float(max(errors, default=0.0)) if isfinite(total) else inf
        if worst == inf:
            errors = [error for error in map(distance, ones, others) if isfinite(error)]
            total = sum(errors)
        self.number += len(errors)
        self.apart += total
        self.worst = max(self.worst, float(max(errors, default=0.0)) if worst == inf else worst)
        return worst

    def add_rows(
        self, ones: list[Number], others: list[Number], width: int, *, are_finite: bool
    ) -> None:
        """Add rows of scores, but for those that hold what is no finite number."""
        if width < MIN_SCORES or len(ones) % width:
            return
        ranked = 0
        for start in range(0, len(ones), width):
            mine, theirs = ones[start : start + width], others[start : start + width]
            if not are_finite and not (_are_finite(mine) and _are_finite(theirs)):
                continue
            self.rows += 1
            self.top += mine.index(max(mine)) == theirs.index(max(theirs))
            ranked += width
            if width >= MIN_RANKED and ranked <= MAX_RANKED:
                self._add_ranks(mine, theirs)

    def _add_ranks(self, mine: list[Number], theirs: list[Number]) -> None:
        found = rank_correlation(mine, theirs)
        if found is not None:
            self.ranked += 1
            self.correlation += found

    def measure(self, findings: Findings) -> None:
        """Say what all rows and numbers amount to."""
        measures = findings.measures
        if self.number and isfinite(self.apart):
            measures["max_error"] = self.worst
            measures["mean_error"] = self.apart / self.number
        if self.rows:
            measures["top1"] = self.top / self.rows
        if self.ranked:
            measures["rank_correlation"] = self.correlation / self.ranked


def _are_finite(numbers: list[Number]) -> bool:
    try:
        return isfinite(sum(numbers))
    except OverflowError:
        return False


def rank_correlation(ones: list[Number], others: list[Number]) -> float | None:
    """Return Spearman's correlation of two lists of equal length: Pearson's of their ranks.

    Like numbers share the mean of their ranks. It is undefined where all numbers of a side are one.
    """
    number = len(ones)
    if len(set(ones)) == len(set(others)) == number > 1:
        mine, theirs = _order(ones), _order(others)
        if mine == theirs:
            return 1.0
        apart = map(sub, _order(mine), _order(theirs))  # the order of an order is the ranks
        squares: int = sum([by * by for by in apart])
        return 1 - 6 * squares / (number * (number * number - 1))
    return _tied_correlation(_ranks(ones), _ranks(others))


def _tied_correlation(mine: list[float], theirs: list[float]) -> float | None:
    middle = (len(mine) + 1) / 2
    off = len(mine) * middle * middle
    spread = (sum(map(mul, mine, mine)) - off) * (sum(map(mul, theirs, theirs)) - off)
    if spread <= 0:
        return None
    together: float = sum(map(mul, mine, theirs)) - off
    return together / sqrt(spread)


def _order(numbers: Sequence[Number]) -> list[int]:
    return sorted(range(len(numbers)), key=numbers.__getitem__)


def _ranks(numbers: list[Number]) -> list[float]:
    order = _order(numbers)
    ranks = [0.0] * len(numbers)
    first = 0
    for last, at in enumerate(order):
        if last + 1 < len(order) and numbers[order[last + 1]] == numbers[at]:
            continue
        for tied in order[first : last + 1]:
            ranks[tied] = (first + last) / 2 + 1
        first = last + 1
    return ranks


def is_tensors(document: JSON) -> bool:
    """Return whether a document is an inference answer, as far as its outputs' members tell."""
    if not isinstance(document, dict):
        return False
    outputs = document.get("outputs")
    if not isinstance(outputs, list) or not outputs:
        return False
    return all(
        isinstance(output, dict) and "name" in output and "datatype" in output and "shape" in output
        for output in outputs
    )


def read(document: JSON, binary: bytes = b"") -> dict[str, Tensor]:
    """Return the outputs of an answer by name; `binary` is what follows its JSON.

    KServe, Open Inference Protocol, "Inference Response JSON Object"; Triton, "Binary Tensor Data
    Extension".

    Raises:
        MalformedError: it is no such answer, or two outputs have one name.
        UnreadableError: an output has too many numbers.
    """
    if not is_tensors(document):
        raise MalformedError
    found: dict[str, Tensor] = {}
    start = 0
    for place, output in enumerate(document["outputs"]):  # type: ignore[index, call-overload, arg-type]
        name, datatype, shape = output["name"], output["datatype"], output["shape"]
        if not isinstance(name, str) or name in found or not isinstance(datatype, str):
            raise MalformedError
        if not isinstance(shape, list) or not {int}.issuperset(map(type, shape)):
            raise MalformedError
        size = _binary_size(output)
        if size is None:
            data = _flat(output.get("data"))
        else:
            data = _unpack(binary[start : start + size], size, datatype)
            start += size
        found[name] = Tensor(datatype, tuple(shape), data, place)
    return found


def _binary_size(output: dict[str, JSON]) -> int | None:
    parameters = output.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    return size if type(size) is int and size >= 0 else None


def _flat(data: JSON) -> list[JSON]:
    if not isinstance(data, list):
        raise MalformedError
    while data and {list}.issuperset(map(type, data)):
        data = list(chain.from_iterable(cast("list[list[JSON]]", data)))
    return data


def _unpack(raw: bytes, size: int, datatype: str) -> list[JSON]:
    """Return the numbers, or texts, of a tensor's bytes, which are little-endian."""
    if len(raw) != size:
        raise MalformedError
    if datatype == "BYTES":
        return _unpack_texts(raw)
    form = _FORMATS.get(datatype)
    if form is None or len(raw) % struct.calcsize(form):
        raise MalformedError
    number = len(raw) // struct.calcsize(form)
    if number > MAX_VALUES:
        raise UnreadableError(Uncompared.SIZE)
    if datatype == "BF16":
        raw, form = b"".join([b"\0\0" + raw[at : at + 2] for at in range(0, len(raw), 2)]), "f"
    return list(struct.unpack(f"<{number}{form}", raw))


def _unpack_texts(raw: bytes) -> list[JSON]:
    found: list[JSON] = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw) or at + 4 > len(raw):
            raise MalformedError
        found.append(raw[at + 4 : end].decode("utf-8", "backslashreplace"))
        at = end
    return found


def compare(
    primary: dict[str, Tensor], shadow: dict[str, Tensor], rules: Rules, findings: Findings
) -> None:
    """Note where two answers' outputs differ, and measure by how much.

    Fields are `/outputs/<name>`, and `datatype`, `shape` or `data` below it; a pointer may name an
    output or say its index. Two outputs of one shape have the same data if every number is within
    the tolerance. Over all numbers, `max_error` and `mean_error` are absolute. Over all rows (the
    last axis) of floats, `top1` is the share in which the first of the greatest numbers is at one
    place, and `rank_correlation` the mean of Spearman's, where it is defined.

    Raises:
        FullError: as many fields differ as are told.
        TooMuchError: items that are no numbers are nested too deeply.
    """
    outputs = along(rules.nodes, ("outputs",))
    if is_ignored(outputs):
        return
    sums = Sums()
    try:
        for name in dict.fromkeys([*primary, *shadow]):
            mine, theirs = primary.get(name), shadow.get(name)
            output = _Output(name, _nodes_of(outputs, name, mine, theirs), rules, findings)
            output.compare(mine, theirs, sums)
    finally:
        sums.measure(findings)


def _nodes_of(outputs: Nodes, name: str, mine: Tensor | None, theirs: Tensor | None) -> Nodes:
    if mask_of(outputs) is not None:
        return outputs
    places = [side.place for side in (mine, theirs) if side is not None]
    found = [below_item(outputs, place, {"name": name}) for place in places]
    return tuple(dict.fromkeys([node for nodes in found for node in nodes]))


class _Output(NamedTuple):
    """One output that is compared."""

    name: str
    nodes: Nodes
    rules: Rules
    findings: Findings

    def compare(self, mine: Tensor | None, theirs: Tensor | None, sums: Sums) -> None:
        if is_ignored(self.nodes):
            return
        if mine is None:
            self._note_absence("extra", theirs)
        elif theirs is None:
            self._note_absence("missing", mine)
        else:
            if mine.datatype != theirs.datatype:
                self._note("datatype", mine.datatype, theirs.datatype)
            if mine.shape != theirs.shape:
                self._note("shape", list(mine.shape), list(theirs.shape))
            else:
                self._compare_data(mine, theirs, sums)

    def _note_absence(self, kind: str, there: Tensor | None) -> None:
        said: JSON = there and {"datatype": there.datatype, "shape": list(there.shape)}
        field = mask_of(self.nodes) or self._field()
        self.findings.note_absence(field, kind, said, is_masked=has_mask(self.nodes))

    def _note(self, part: str, mine: JSON, theirs: JSON) -> None:
        nodes = along(self.nodes, (part,))
        if not is_ignored(nodes):
            field = mask_of(nodes) or self._field(part)
            self.findings.note_values(field, mine, theirs, is_masked=has_mask(nodes))

    def _field(self, *part: str) -> str:
        is_named = not has_mask(along(self.nodes, ("name",)))
        return spell(("outputs", self.name if is_named else ANY, *part))

    def _compare_data(self, mine: Tensor, theirs: Tensor, sums: Sums) -> None:
        if is_ignored(along(self.nodes, ("data",))):
            return
        if len(mine.data) != len(theirs.data):
            self._note("data", len(mine.data), len(theirs.data))
            return
        ones, others = _numbers(mine), _numbers(theirs)
        if ones is None or others is None:
            self._compare_items(mine.data, theirs.data)
            return
        worst = sums.add(ones, others)
        if mine.datatype in _SCORES and mine.shape:
            sums.add_rows(ones, others, mine.shape[-1], are_finite=worst < inf)
        allows = self.rules.tolerance.allows
        is_near = worst <= self.rules.tolerance.absolute and worst < inf
        if not is_near and not self.rules.tolerance.allows_all(ones, others):
            pairs = zip(ones, others, strict=True)
            apart = [pair for pair in pairs if not allows(*pair)]
            self._note("data", *max(apart, key=lambda pair: distance(*pair)))

    def _compare_items(self, ones: list[JSON], others: list[JSON]) -> None:
        """Compare what is not all numbers: texts, or what servers write for not-a-number."""
        for one, other in zip(ones, others, strict=True):
            if type(one) is type(other) and one == other:
                continue
            found = Findings()
            Walk(found, self.rules.tolerance).compare(one, other, ())
            if found.fields:
                self._note("data", one, other)
                return


def _numbers(tensor: Tensor) -> list[Number] | None:
    """Return a tensor's data if they are numbers, as the truth values of `BOOL` are."""
    kinds = set(map(type, tensor.data))
    if kinds <= NUMBERS:
        return cast("list[Number]", tensor.data)
    if tensor.datatype == "BOOL" and kinds <= {bool, int}:
        return [int(cast("bool", value)) for value in tensor.data]
    return None


def compare_envelopes(primary: JSON, shadow: JSON, rules: Rules, findings: Findings) -> None:
    """Note where two answers differ apart from their outputs and what tells of the answer.

    Raises:
        FullError: as many fields differ as are told.
        TooMuchError: they are nested too deeply.
    """
    mine, theirs = (
        {name: value for name, value in side.items() if name not in _ENVELOPE}
        for side in (primary, shadow)
        if isinstance(side, dict)
    )
    Walk(findings, rules.tolerance).compare(mine, theirs, rules.nodes)
