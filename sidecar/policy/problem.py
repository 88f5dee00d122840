"""What is wrong with a document, and where: one struct, one exception, one spelling of paths."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import TYPE_CHECKING

from msgspec import Struct

from sidecar.errors import SidecarError

if TYPE_CHECKING:
    from collections.abc import Iterable

Path = tuple[str | int, ...]
"""Keys and indexes from the root of a document."""

MAX_PROBLEMS = 100  # more of them is one mistake repeated, and a log line without end

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def render(path: Path) -> str:
    """Spell a path as operators read it: `rules[1].when["header.x-beta"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif not _PLAIN.fullmatch(step):
            text += f"[{json.dumps(step)}]"
        else:
            text += f".{step}" if text else step
    return text


class Problem(Struct, frozen=True):
    """One thing that is wrong. `path` is as `render` spells it; lines and columns count from 1."""

    source: str
    path: str
    reason: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """Return `policies/tumor.yaml:12:7: rules[1].serve: <reason>`, as far as known."""
        place = self.source
        if self.line is not None:
            place += f":{self.line}"
            if self.column is not None:
                place += f":{self.column}"
        return ": ".join(part for part in (place, self.path, self.reason) if part)


def gather(findings: Iterable[tuple[Path, str]], source: str) -> tuple[Problem, ...]:
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
