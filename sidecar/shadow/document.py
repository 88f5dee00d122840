"""JSON documents compared by structure."""

from __future__ import annotations

import codecs
import json
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from sidecar.shadow.body import bound_values
from sidecar.shadow.findings import Findings, FullError, TooMuchError
from sidecar.shadow.multiset import Matcher
from sidecar.shadow.pointer import (
    ANY,
    Nodes,
    below,
    below_item,
    has_mask,
    is_ignored,
    is_unordered,
    mask_of,
    spell,
)
from sidecar.shadow.tolerance import NUMBERS, Tolerance

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

MAX_DEPTH = 100  # of a walk, whose stack is the interpreter's

_decoder = msgspec.json.Decoder()
_CONTAINERS = frozenset((list, dict))
_MISSING: JSON = []  # told by identity


class MalformedError(Exception):
    """A body is not what its type, or the policy, says."""


def decode(data: bytes | str) -> JSON:
    """Return the value that a JSON text spells.

    The last of members with one name counts, as in most readers (RFC 8259 section 4). `NaN` and
    `Infinity`, which many servers in Python write, are numbers; so are UTF-16 and a byte order
    mark read.

    Raises:
        MalformedError: it is no JSON.
        TooMuchError: it is nested too deeply.
        UnreadableError: it has too many values.
    """
    bound_values(data)
    try:
        value: JSON = _decoder.decode(data)
    except RecursionError:
        raise TooMuchError from None
    except (msgspec.DecodeError, UnicodeError):
        return _decode_loosely(data)
    return value


def _decode_loosely(data: bytes | str) -> JSON:
    if isinstance(data, bytes) and data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    try:
        value: JSON = json.loads(data)
    except RecursionError:
        raise TooMuchError from None
    except ValueError as error:  # its own, of Unicode, of an integer with thousands of digits
        raise MalformedError from error
    return value


class Walk:
    """One walk down two documents, noting the fields that differ.

    A masked place is one field, however much differs below it, so that not even the names of its
    members are told.
    """

    __slots__ = ("_findings", "_matcher", "_path", "_tolerance")

    def __init__(
        self, findings: Findings, tolerance: Tolerance, path: tuple[str, ...] = ()
    ) -> None:
        self._findings = findings
        self._tolerance = tolerance
        self._path = list(path)
        self._matcher: Matcher | None = None

    def compare(self, primary: JSON, shadow: JSON, nodes: Nodes) -> None:
        """Note where two values differ, of whose place `nodes` are said.

        Raises:
            FullError: as many fields differ as are told.
            TooMuchError: they are nested too deeply.
        """
        if nodes:
            if is_ignored(nodes):
                return
            mask = mask_of(nodes)
            if mask is not None:
                self._compare_masked(primary, shadow, nodes, mask)
                return
        self.compare_inside(primary, shadow, nodes)

    def compare_inside(self, primary: JSON, shadow: JSON, nodes: Nodes) -> None:
        """Note where two values differ, be their place itself ignored or masked.

        Raises:
            FullError: as many fields differ as are told.
            TooMuchError: they are nested too deeply.
        """
        if isinstance(primary, dict) and isinstance(shadow, dict):
            self._deeper()
            self._objects(primary, shadow, nodes)
        elif isinstance(primary, list) and isinstance(shadow, list):
            self._deeper()
            self._arrays(primary, shadow, nodes)
        elif not self._are_same(primary, shadow):
            self._findings.note_values(
                spell(self._path), primary, shadow, is_masked=has_mask(nodes)
            )

    def _compare_masked(self, primary: JSON, shadow: JSON, nodes: Nodes, mask: str) -> None:
        found = Findings()
        with suppress(FullError):
            Walk(found, self._tolerance, tuple(self._path)).compare_inside(primary, shadow, nodes)
        if found.fields:
            self._findings.note_values(mask, primary, shadow, is_masked=True)

    def _deeper(self) -> None:
        if len(self._path) >= MAX_DEPTH:
            raise TooMuchError

    def _are_same(self, primary: JSON, shadow: JSON) -> bool:
        kind = type(primary)
        if kind in NUMBERS and type(shadow) in NUMBERS:
            return self._tolerance.allows(primary, shadow)  # type: ignore[arg-type]
        return kind is type(shadow) and primary == shadow

    def _objects(self, primary: dict[str, JSON], shadow: dict[str, JSON], nodes: Nodes) -> None:
        path = self._path
        common = 0
        for name, mine in primary.items():
            theirs = shadow.get(name, _MISSING)
            if theirs is _MISSING:
                self._absent(name, "missing", mine, nodes)
                continue
            common += 1
            kind = type(mine)
            if kind is type(theirs) and kind not in _CONTAINERS and mine == theirs:
                continue
            path.append(name)
            self.compare(mine, theirs, below(nodes, name) if nodes else nodes)
            path.pop()
        if common < len(shadow):
            for name, theirs in shadow.items():
                if name not in primary:
                    self._absent(name, "extra", theirs, nodes)

    def _absent(self, name: str, kind: str, value: JSON, nodes: Nodes) -> None:
        nodes = below(nodes, name)
        if is_ignored(nodes):
            return
        field = mask_of(nodes) or spell([*self._path, name])
        self._findings.note_absence(field, kind, value, is_masked=has_mask(nodes))

    def _arrays(self, primary: list[JSON], shadow: list[JSON], nodes: Nodes) -> None:
        if len(primary) != len(shadow):
            self._findings.note_length(spell(self._path), len(primary), len(shadow))
        self._path.append(ANY)
        if nodes and is_unordered(nodes):
            self._multisets(primary, shadow, nodes)
        elif not nodes and primary and type(primary[0]) is float:
            self._rows(primary, shadow)
        else:
            self._items(primary, shadow, nodes)
        self._path.pop()

    def _items(self, primary: list[JSON], shadow: list[JSON], nodes: Nodes) -> None:
        for index, (mine, theirs) in enumerate(zip(primary, shadow, strict=False)):
            kind = type(mine)
            if kind is type(theirs) and kind not in _CONTAINERS and mine == theirs:
                continue
            inner = below_item(nodes, index, mine, theirs) if nodes else nodes
            self.compare(mine, theirs, inner)

    def _rows(self, primary: list[JSON], shadow: list[JSON]) -> None:
        """Compare what is likely an array of numbers; they are one field, so one will do."""
        number = min(len(primary), len(shadow))
        mine, theirs = primary[:number], shadow[:number]
        if mine == theirs and {float}.issuperset(map(type, theirs)):
            return
        if not (NUMBERS.issuperset(map(type, mine)) and NUMBERS.issuperset(map(type, theirs))):
            self._items(primary, shadow, ())
            return
        for one, other in zip(mine, theirs, strict=True):
            if not self._tolerance.allows(one, other):  # type: ignore[arg-type]
                self._findings.note_values(spell(self._path), one, other, is_masked=False)
                return

    def _multisets(self, primary: list[JSON], shadow: list[JSON], nodes: Nodes) -> None:
        items = below(nodes, ANY)
        if is_ignored(items):
            return
        self._matcher = self._matcher or Matcher(self._tolerance)
        lone_primary, lone_shadow = self._matcher.unmatched(primary, shadow, items)
        field = mask_of(items) or spell(self._path)
        for kind, lone in (("missing", lone_primary), ("extra", lone_shadow)):
            if lone:
                self._findings.note_absence(field, kind, lone[0], is_masked=has_mask(nodes))
