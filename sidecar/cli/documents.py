"""Policy documents as files: found, read and judged together."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sidecar.cli.pieces import pieces
from sidecar.model.policy import Policy
from sidecar.policy import codec
from sidecar.policy.address import ANYWHERE, AllowList
from sidecar.policy.problem import PolicyError, Problem
from sidecar.policy.validate import warnings as odd
from sidecar.runtime.clock import SystemClock

MAX_FILE_BYTES = 64 * codec.MAX_DOCUMENT_BYTES  # of a whole store, say; each document has its own
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
            of_file = _load(file, allowed, now_s)
            policies |= of_file.policies
            problems += of_file.problems
            warnings += of_file.warnings
    problems += _repeats(policies)
    return Read(policies, tuple(problems), tuple(warnings))


def _load(file: Path, allowed: AllowList, now_s: float) -> Read:
    """Read all documents of one file."""
    policies: dict[str, Policy] = {}
    problems: list[Problem] = []
    warnings: list[Problem] = []
    source = _name(file)
    try:
        parts = pieces(_bytes(file), source)
    except PolicyError as error:
        return Read({}, error.problems, ())
    for part in parts:
        try:
            policy = codec.load(part.raw, source=source, allowed=allowed)
        except PolicyError as error:
            problems += part.placed(error.problems, source)
            continue
        policies[part.name] = policy
        if file.suffix.lower() == ".json":
            warnings += _no_json(part.raw, part.name)
        found = codec.locate(part.raw, odd(policy, source, now_s))
        warnings += part.placed(found, source)
    return Read(policies, tuple(problems), tuple(warnings))


def _no_json(raw: bytes, source: str) -> Iterator[Problem]:
    """Tell of what other readers of JSON refuse, as a comma behind the last value."""
    try:
        json.loads(raw)
    except ValueError as error:
        yield Problem(source, "", f"no JSON, so it is read as YAML: {error}")


def _files(path: Path) -> Iterator[Path]:
    return _below(path, set()) if path.is_dir() else iter((path,))


def _below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield the documents in a folder; one that links lead to again, or back to, is read once."""
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    for inner in sorted(folder.iterdir()):
        if inner.name.startswith("."):  # as what a volume of Kubernetes holds besides its files
            continue
        if inner.is_dir():
            yield from _below(inner, seen)
        elif inner.suffix.lower() in SUFFIXES:
            if inner.exists() and not inner.is_file():  # a pipe, say, which nobody may ever fill
                raise OSError(errno.EINVAL, "not a regular file", str(inner))
            yield inner


def _name(file: Path) -> str:
    return "stdin" if str(file) == "-" else str(file)


def _bytes(file: Path) -> bytes:
    """Read a file, and no more of a larger one than shows that it is too large."""
    try:
        if str(file) == "-":
            raw = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with file.open("rb") as opened:
                raw = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        problem = Problem(_name(file), "", f"cannot be read: {error.strerror}")
        raise PolicyError([problem]) from error
    if len(raw) > MAX_FILE_BYTES:
        reason = f"larger than {MAX_FILE_BYTES:,} bytes"
        raise PolicyError([Problem(_name(file), "", reason)])
    return raw


def _repeats(policies: dict[str, Policy]) -> Iterator[Problem]:
    """Two files for one model: the last one would win, whichever that is."""
    first: dict[str, str] = {}
    for source, policy in policies.items():
        other = first.setdefault(policy.model, source)
        if other != source:
            yield Problem(source, "model", f"`{policy.model}` is described in {other}, too")
