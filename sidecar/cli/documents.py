"""Policy documents as files: found, read and judged together."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sidecar.model.policy import Policy
from sidecar.policy import codec
from sidecar.policy.address import ANYWHERE, AllowList
from sidecar.policy.problem import PolicyError, Problem
from sidecar.policy.validate import warnings as odd
from sidecar.runtime.clock import SystemClock

SUFFIXES = {".yaml", ".yml", ".json"}


class Read(NamedTuple):
    """What was found: policies by the file that says them, and everything that is wrong.

    `warnings` are of what is odd about policies that are valid.
    """

    policies: dict[str, Policy]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def read(paths: Iterable[Path], allowed: AllowList = ANYWHERE) -> Read:
    """Read the documents in files and folders; `-` is standard input. Problems are returned.

    Folders are read with those below them.

    `allowed` is where endpoints may be.
    """
    now_s = SystemClock().now_s()
    policies: dict[str, Policy] = {}
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for path in paths:
        try:
            found = list(_files(path))
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            problems.append(Problem(error.filename or str(path), "", reason))
            continue
        if not found:
            problems.append(
                Problem(str(path), "", f"holds no {' or '.join(sorted(SUFFIXES))} file")
            )
        for file in found:
            try:
                raw, source = _bytes(file), _name(file)
                policy = codec.load(raw, source=source, allowed=allowed)
            except PolicyError as error:
                problems += error.problems
            else:
                policies[source] = policy
                if file.suffix == ".json":
                    warnings += _no_json(raw, source)
                warnings += codec.locate(raw, odd(policy, source, now_s))
    problems += _repeats(policies)
    return Read(policies, tuple(problems), tuple(warnings))


def _no_json(raw: bytes, source: str) -> Iterator[Problem]:
    """Tell of what other readers of JSON refuse, as a comma behind the last value."""
    try:
        json.loads(raw)
    except ValueError as error:
        yield Problem(source, "", f"no JSON, so it is read as YAML: {error}")


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for inner in sorted(path.iterdir()):
        if inner.name.startswith("."):  # as what a volume of Kubernetes holds besides its files
            continue
        if inner.is_dir():
            yield from _files(inner)
        elif inner.suffix in SUFFIXES:
            yield inner


def _name(file: Path) -> str:
    return "stdin" if str(file) == "-" else str(file)


def _bytes(file: Path) -> bytes:
    """Read a document, and no more of a larger file than shows that it is too large."""
    if str(file) == "-":
        return sys.stdin.buffer.read(codec.MAX_DOCUMENT_BYTES + 1)
    try:
        with file.open("rb") as opened:
            return opened.read(codec.MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        problem = Problem(str(file), "", f"cannot be read: {error.strerror}")
        raise PolicyError([problem]) from error


def _repeats(policies: dict[str, Policy]) -> Iterator[Problem]:
    """Two files for one model: the last one would win, whichever that is."""
    first: dict[str, str] = {}
    for source, policy in policies.items():
        other = first.setdefault(policy.model, source)
        if other != source:
            yield Problem(source, "model", f"`{policy.model}` is described in {other}, too")
