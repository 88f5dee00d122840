"""YAML text to plain values, with the place of each.

YAML is read from parser events: no tag runs code, nothing recurses, and only what JSON can say
comes out. Plain scalars mean what they mean in JSON; all others are text, so `no`, `1:30`,
`007` and `2026-01-01` stay as written. Keys are always text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import yaml

from sidecar.policy import places
from sidecar.policy.problem import PolicyError, Problem, below
from sidecar.policy.steps import Steps, finish

if TYPE_CHECKING:
    from sidecar.model.identity import JSON
    from sidecar.policy.places import Place

MAX_DEPTH = 32  # a policy needs 7
MAX_NODES = 200_000  # 1 MiB of text without aliases stays far below; a bomb of aliases does not

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS: dict[str, JSON] = {"": None, "~": None, "null": None, "true": True, "false": False}
_TEXT_TAGS = (None, "!", "tag:yaml.org,2002:str")


class Document(NamedTuple):
    """One document: its value, and the place of every value by spelled path."""

    value: JSON
    places: dict[str, Place]


def read(text: str, source: str) -> Document:
    """Read one YAML document (JSON is one too).

    Raises:
        PolicyError: it is no YAML, more than one document, too deep or large, or uses tags.
    """
    return finish(reading(text, source))


def reading(text: str, source: str) -> Steps[Document]:
    """Do what `read` does, in steps."""
    try:
        loader = _LOADER(text)
        try:
            return (yield from _Builder(loader, source).build())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(part for part in (error.context, error.problem) if part)
        where = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise PolicyError([Problem(source, "", f"not YAML: {words}", *where)]) from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        # A character that YAML does not allow: libyaml gives its offset in bytes, PyYAML in others.
        at = text.find(chr(getattr(error, "character", 0)))
        where = places.place(text, max(at, 0))
        raise PolicyError([Problem(source, "", f"not YAML: {reason}", *where)]) from error


class _Frame:
    """A collection that is still open."""

    __slots__ = ("anchor", "items", "key", "members", "nodes_before", "path")

    def __init__(self, event: yaml.CollectionStartEvent, path: str, nodes_before: int) -> None:
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        self.members: dict[str, JSON] | None = {} if is_mapping else None
        self.items: list[JSON] = []
        self.key: str | None = None
        self.path = path
        self.anchor: str | None = event.anchor
        self.nodes_before = nodes_before


class _Builder:
    """Builds the value of one document from its events, with a stack of its own."""

    def __init__(self, loader: yaml.SafeLoader, source: str) -> None:
        self._loader = loader
        self._source = source
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[JSON, int]] = {}
        self._nodes = 0
        self._places: dict[str, Place] = {}
        self._roots: list[JSON] = []

    def build(self) -> Steps[Document]:
        while self._loader.check_event():
            yield
            event: yaml.Event = self._loader.get_event()  # type: ignore[no-untyped-call]  # untyped stub
            if isinstance(event, yaml.NodeEvent):
                self._start(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
        if not self._roots:
            raise PolicyError([Problem(self._source, "", "the document is empty", 1, 1)])
        return Document(self._roots[0], self._places)

    def _start(self, event: yaml.NodeEvent) -> None:
        if not self._stack and self._roots:
            self._refuse(event, "more than one document")
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.members is not None and frame.key is None:
            self._open_key(event, frame)
            return
        path = self._path()
        self._places[path] = _place(event)
        self._count(event, 1)
        if isinstance(event, yaml.ScalarEvent):
            self._add(self._scalar(event), event.anchor, 1)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event, path)

    def _open(self, event: yaml.CollectionStartEvent, path: str) -> None:
        if event.tag not in {None, "!"}:
            self._refuse(event, f"tags such as {event.tag} are not supported")
        if len(self._stack) >= MAX_DEPTH:
            self._refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        self._stack.append(_Frame(event, path, self._nodes - 1))

    def _open_key(self, event: yaml.NodeEvent, frame: _Frame) -> None:
        if not isinstance(event, yaml.ScalarEvent) or event.tag not in _TEXT_TAGS:
            self._refuse(event, "a key must be plain text")
        if frame.members is not None and event.value in frame.members:
            self._refuse(event, f'the key "{event.value[:80]}" is given twice')
        frame.key = event.value

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self._anchors:
            self._refuse(event, f"the alias *{event.anchor} stands before the end of its anchor")
        value, nodes = self._anchors[event.anchor]
        self._count(event, nodes)
        self._add(value, None, nodes)

    def _end(self) -> None:
        frame = self._stack.pop()
        value: JSON = frame.items if frame.members is None else frame.members
        self._add(value, frame.anchor, self._nodes - frame.nodes_before)

    def _add(self, value: JSON, anchor: str | None, nodes: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = value, nodes
        if not self._stack:
            self._roots.append(value)
            return
        frame = self._stack[-1]
        if frame.members is None or frame.key is None:
            frame.items.append(value)
        else:
            frame.members[frame.key] = value
            frame.key = None

    def _scalar(self, event: yaml.ScalarEvent) -> JSON:
        text: str = event.value
        if event.tag not in _TEXT_TAGS:
            self._refuse(event, f"tags such as {event.tag} are not supported")
        if event.tag is not None or event.style:
            return text
        if text in _WORDS:
            return _WORDS[text]
        number = _NUMBER.fullmatch(text)
        if number is None:
            return text
        if number[1] is None and number[2] is None:
            return int(text)
        value = float(text)
        if value in {float("inf"), float("-inf")}:
            self._refuse(event, "number out of range")
        return value

    def _path(self) -> str:
        if not self._stack:
            return ""
        frame = self._stack[-1]
        return below(frame.path, len(frame.items) if frame.key is None else frame.key)

    def _count(self, event: yaml.NodeEvent, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            self._refuse(event, f"more than {MAX_NODES} values, aliases counted in full")

    def _refuse(self, event: yaml.NodeEvent, reason: str) -> NoReturn:
        raise PolicyError([Problem(self._source, self._path(), reason, *_place(event))])


def _place(event: yaml.NodeEvent) -> Place:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
