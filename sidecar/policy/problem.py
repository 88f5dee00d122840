"""What is wrong with a document, and where: one struct, one exception, one spelling of paths."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import reduce
from itertools import islice
from typing import TYPE_CHECKING

from msgspec import Struct

from sidecar.errors import SidecarError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Path = tuple[str | int, ...]
"""Keys and indexes from the root of a document."""

Finding = tuple[Path, str]
"""Where something is wrong, and what."""

Findings = Iterator[Finding | None]
"""Findings of what may be long to look through: None is a moment to pause."""

MAX_PROBLEMS = 100  # more of them is one mistake repeated, and a log line without end

MAX_STEP_CHARS = 100  # of a key in a path: a document may be one key

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_RULE = re.compile(r"rules\[([0-9]+)\]")


def render(path: Path) -> str:
    """Spell a path as operators read it: `rules[1].when["header.x-beta"]`."""
    return reduce(below, path, "")


def below(path: str, step: str | int) -> str:
    """Return the spelled path of what a spelled path holds under a key or index."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    if len(step) > MAX_STEP_CHARS:
        step = f"{step[:MAX_STEP_CHARS]}..."
    if not _PLAIN.fullmatch(step):
        return f"{path}[{json.dumps(step)}]"
    return f"{path}.{step}" if path else step


def enclosing(path: str) -> Iterator[str]:
    """Yield the spelled paths of the values around one, the nearest first, the root last.

    Among them may be texts that spell nothing: a key may look like a path.
    """
    while path:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
        yield path


class Problem(Struct, frozen=True):
    """One thing that is wrong. `path` is as `render` spells it; lines and columns count from 1."""

    source: str
    path: str
    reason: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """Return `policies/tumor.yaml:12:7: rules[1].serve: <reason>`, as far as known.

        It is one line: what a document names must not begin another, which others would believe.
        """
        place = self.source
        if self.line is not None:
            place += f":{self.line}"
            if self.column is not None:
                place += f":{self.column}"
        parts = (part for part in (place, self.path, self.reason) if part)
        return ": ".join(parts).replace("\n", "\\n")


def by_rule(problems: Iterable[Problem], ids: Sequence[str]) -> Iterator[Problem]:
    """Tell of problems by the ids of rules, not by lines: of a document that nobody has as a text.

    `ids` are those of all its rules, as far as they are known.
    """
    for one in problems:
        found = _RULE.match(one.path)
        number = int(found[1]) if found else len(ids)
        named = f' (rule "{ids[number]}")' if number < len(ids) else ""
        yield Problem(one.source, one.path, one.reason + named)


def gather(findings: Iterable[Finding], source: str) -> tuple[Problem, ...]:
    """Make problems of paths and reasons: all of them, up to `MAX_PROBLEMS`."""
    first = islice(findings, MAX_PROBLEMS + 1)
    problems = tuple(Problem(source, render(path), reason) for path, reason in first)
    if len(problems) <= MAX_PROBLEMS:
        return problems
    return (*problems[:MAX_PROBLEMS], Problem(source, "", "and more"))


class PolicyError(SidecarError):
    """A document cannot be used; the text holds every problem, one a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
