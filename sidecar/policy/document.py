"""YAML text to plain values, and where they stand: places are found for those that are asked for.

YAML is read from parser events: no tag runs code, nothing recurses, and only what JSON can say
comes out. Plain scalars mean what they mean in JSON; all others are text, so `no`, `1:30`,
`007` and `2026-01-01` stay as written. Keys are always text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

import yaml

from sidecar.policy import places
from sidecar.policy.pieces import MAX_DEPTH, MAX_DIGITS
from sidecar.policy.problem import PolicyError, Problem, below, render
from sidecar.policy.steps import Steps, finish, letting_go

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.model.identity import JSON
    from sidecar.policy.places import Place
    from sidecar.policy.problem import Path

MAX_NODES = 200_000  # 1 MiB of text without aliases stays far below; a bomb of aliases does not

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS: dict[str, JSON] = {"": None, "~": None, "null": None, "true": True, "false": False}
_TEXT_TAGS = (None, "!", "tag:yaml.org,2002:str")
_ADVICE = dict.fromkeys("@`%", ": text that begins with this needs quotes") | {
    "\t": ": a tab is here, where only blanks may be"
}
"""Told of the character at which YAML ends; the parser does not name it."""
_MAX_SHOWN = 80  # characters of a tag, an anchor or a key


def read(text: str, source: str) -> JSON:
    """Read one YAML document (JSON is one too).

    Raises:
        PolicyError: it is no YAML, more than one document, too deep or large, or uses tags.
    """
    return finish(reading(text, source))


def reading(text: str, source: str) -> Steps[JSON]:
    """Do what `read` does, in steps."""
    try:
        loader = _LOADER(text)
        try:
            return (yield from _built(_Builder(loader, text, source)))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(part for part in (error.context, error.problem) if part)
        where = places.place(text, mark.index) if mark else (1, 1)
        advice = _ADVICE.get(text[mark.index : mark.index + 1], "") if mark else ""
        raise PolicyError([Problem(source, "", f"not YAML: {words}{advice}", *where)]) from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        # A character that YAML does not allow: libyaml gives its offset in bytes, PyYAML in others.
        at = text.find(chr(getattr(error, "character", 0)))
        where = places.place(text, max(at, 0))
        raise PolicyError([Problem(source, "", f"not YAML: {reason}", *where)]) from error


def _built(builder: _Builder) -> Steps[JSON]:
    try:
        return (yield from builder.build())
    except (PolicyError, yaml.YAMLError):
        yield from letting_go(builder.parting())
        raise


def in_yaml(text: str, paths: Iterable[str]) -> dict[str, Place]:
    """Return the places of the values at `paths` and of those around them, as far as there are any.

    `text` has to be what `read` accepts. What an alias stands for has the alias's place.
    """
    return finish(finding(text, paths))


def finding(text: str, paths: Iterable[str]) -> Steps[dict[str, Place]]:
    """Find what `in_yaml` returns, in steps."""
    loader = _LOADER(text)
    try:
        offsets = yield from _Finder(loader, places.Wanted(paths)).find()
    finally:
        loader.dispose()
    return places.placed(text, offsets)


class _Frame:
    """A collection that is still open."""

    __slots__ = ("anchor", "items", "key", "members", "nodes_before")

    def __init__(self, event: yaml.CollectionStartEvent, nodes_before: int) -> None:
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        self.members: dict[str, JSON] | None = {} if is_mapping else None
        self.items: list[JSON] = []
        self.key: str | None = None
        self.anchor: str | None = event.anchor
        self.nodes_before = nodes_before


class _Builder:
    """Builds the value of one document from its events, with a stack of its own."""

    def __init__(self, loader: yaml.SafeLoader, text: str, source: str) -> None:
        self._loader = loader
        self._text = text
        self._source = source
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[JSON, int]] = {}
        self._nodes = 0
        self._roots: list[JSON] = []

    def build(self) -> Steps[JSON]:
        while self._loader.check_event():
            yield
            event: yaml.Event = self._loader.get_event()  # type: ignore[no-untyped-call]  # untyped stub
            if isinstance(event, yaml.NodeEvent):
                self._start(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
        if not self._roots:
            raise PolicyError([Problem(self._source, "", "the document is empty", 1, 1)])
        return self._roots[0]

    def parting(self) -> list[object]:
        """Return all that was built, and hold it no more."""
        built: list[object] = [self._roots, self._anchors]
        built += [frame.items if frame.members is None else frame.members for frame in self._stack]
        self._roots, self._anchors, self._stack = [], {}, []
        return built

    def _start(self, event: yaml.NodeEvent) -> None:
        if not self._stack and self._roots:
            self._refuse(event, "more than one document")
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.members is not None and frame.key is None:
            self._open_key(event, frame)
            return
        self._count(event, 1)
        if isinstance(event, yaml.ScalarEvent):
            self._add(self._scalar(event), event.anchor, 1)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        if event.tag not in {None, "!"}:
            self._refuse_tag(event)
        if len(self._stack) >= MAX_DEPTH:
            self._refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        self._stack.append(_Frame(event, self._nodes - 1))

    def _open_key(self, event: yaml.NodeEvent, frame: _Frame) -> None:
        if not isinstance(event, yaml.ScalarEvent) or event.tag not in _TEXT_TAGS:
            self._refuse(event, "a key must be plain text")
        if frame.members is not None and event.value in frame.members:
            self._refuse(event, f'the key "{_short(event.value)}" is given twice')
        frame.key = event.value

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self._anchors:
            name = _short(event.anchor)
            self._refuse(event, f"the alias *{name} stands before the end of its anchor")
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
            self._refuse_tag(event)
        if event.tag is not None or event.style:
            return text
        if text in _WORDS:
            return _WORDS[text]
        number = _NUMBER.fullmatch(text)
        if number is None:
            return text
        if number[1] is None and number[2] is None:
            if len(text) > MAX_DIGITS:
                self._refuse(event, "number out of range")
            return int(text)
        value = float(text)
        if value in {float("inf"), float("-inf")}:
            self._refuse(event, "number out of range")
        return value

    def _path(self) -> Path:
        """Return where the builder is; at a key of a mapping that is the mapping itself."""
        return tuple(
            len(one.items) if one.key is None else one.key
            for one in self._stack
            if one.members is None or one.key is not None
        )

    def _count(self, event: yaml.NodeEvent, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            self._refuse(event, f"more than {MAX_NODES} values, aliases counted in full")

    def _refuse(self, event: yaml.NodeEvent, reason: str) -> NoReturn:
        where = places.place(self._text, _offset(event))
        raise PolicyError([Problem(self._source, render(self._path()), reason, *where)])

    def _refuse_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> NoReturn:
        self._refuse(event, f"tags such as {_short(event.tag)} are not supported")


class _Spot:
    """A collection that is still open; `path` is None when nothing in it is wanted."""

    __slots__ = ("is_at_key", "path", "step")

    def __init__(self, path: str | None, *, is_mapping: bool) -> None:
        self.path = path
        self.step: str | int = "" if is_mapping else -1
        self.is_at_key = is_mapping

    def takes_key(self, event: yaml.NodeEvent) -> bool:
        """Return whether the next node is a key; the value that follows it is not."""
        if isinstance(self.step, int):
            self.step += 1
            return False
        is_key = self.is_at_key
        self.is_at_key = not is_key
        if is_key and isinstance(event, yaml.ScalarEvent):
            self.step = event.value
        return is_key


class _Finder:
    """Walks over the events of a document again, and notes where what is wanted starts."""

    def __init__(self, loader: yaml.SafeLoader, wanted: places.Wanted) -> None:
        self._loader = loader
        self._wanted = wanted
        self._stack: list[_Spot] = []
        self._found: dict[str, int] = {}

    def find(self) -> Steps[dict[str, int]]:
        while self._wanted.left and self._loader.check_event():
            yield
            event: yaml.Event = self._loader.get_event()  # type: ignore[no-untyped-call]  # untyped stub
            if isinstance(event, yaml.NodeEvent):
                self._start(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._stack.pop()
        return self._found

    def _start(self, event: yaml.NodeEvent) -> None:
        path: str | None = ""
        if self._stack:
            spot = self._stack[-1]
            if spot.takes_key(event):
                return
            path = None if spot.path is None else below(spot.path, spot.step)
        if path is not None and self._wanted.leads(path):
            self._found[path] = _offset(event)
            self._wanted.left.discard(path)
        if isinstance(event, yaml.CollectionStartEvent):
            goes_on = path is not None and self._wanted.goes_on(path)
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            self._stack.append(_Spot(path if goes_on else None, is_mapping=is_mapping))


def _short(name: str | None) -> str:
    return (name or "")[:_MAX_SHOWN]


def _offset(event: yaml.NodeEvent) -> int:
    """Return where a node starts.

    The lines of the parser are others: to YAML, U+0085 and two more end one, to whoever opens the
    file at a place they do not.
    """
    mark = event.start_mark
    return mark.index if mark is not None else 0
