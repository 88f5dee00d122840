"""What decodes of a document that does not as a whole: enough to judge what the rest means.

Nothing is held against what is sound because of what does not decode: a version that is there but
cannot be read is no unknown one.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from msgspec import structs

from sidecar.model.policy import DefaultAccess, Policy

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from sidecar.model.policy import Matcher
    from sidecar.policy.problem import Findings, Path
    from sidecar.policy.steps import Steps

T = TypeVar("T")

_ACCESS: Final = frozenset({"allow", "deny", "default_access"})
_SOME: Final[tuple[Matcher, ...]] = ({"tenant": "x"},)
"""Whom a model lets in that nobody can read: some, and not all."""

_NAMED: Final = ("versions", "labels", "segments")
_FIELDS: Final = frozenset(Policy.__struct_encode_fields__)


class Unread(NamedTuple):
    """Names of what does not decode: `versions` those of versions and labels."""

    versions: Container[str] = ()
    segments: Container[str] = ()


class Parts(NamedTuple):
    """Some parts of a document; `numbers` are those that its rules and shadows have there."""

    policy: Policy
    numbers: Mapping[str, Sequence[int]]

    def placed(self, findings: Findings) -> Findings:
        """Give findings the paths of the document."""
        for one in findings:
            if one is None:
                yield None
                continue
            path, reason = one
            numbers = self.numbers.get(str(path[0])) if len(path) > 1 else None
            if numbers is not None and isinstance(path[1], int):
                path = (path[0], numbers[path[1]], *path[2:])
            yield path, reason


class Partial(NamedTuple):
    """The parts without a misfit, and the others without what does not fit, which is at `holes`."""

    sound: Parts
    mended: Parts
    holes: Sequence[Path]
    unread: Unread

    def without_follow_ups(self, findings: Findings) -> Findings:
        """Leave out what is found about values that are there only in part, or not at all."""
        for one in findings:
            if one is None or not any(_is_on_way(one[0], hole) for hole in self.holes):
                yield one


class Names(Collection[str]):
    """Names that are known, and others that may be there: only the known are told of."""

    def __init__(self, known: Collection[str], unread: Container[str]) -> None:
        self._known = known
        self._unread = unread

    def __contains__(self, name: object) -> bool:
        return name in self._known or name in self._unread

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class _All:
    """Has every name: nobody knows what a document names there."""

    def __contains__(self, name: object) -> bool:
        return True


def dividing(made: Policy, holes: Sequence[Path]) -> Steps[Partial]:
    """Divide what was made of a document into what is sound and what has a hole."""
    faulty = frozenset(hole[:2] for hole in holes)
    versions = yield from _by_name(made.versions, "versions", faulty)
    segments = yield from _by_name(made.segments, "segments", faulty)
    rules = yield from _by_number(made.rules, "rules", faulty)
    shadows = yield from _by_number(made.shadows, "shadows", faulty)
    access = _access(made, holes)
    sound, mended = (
        Parts(
            structs.replace(
                access[half],
                versions=versions[half],
                segments=segments[half],
                rules=tuple(rules[half].values()),
                shadows=tuple(shadows[half].values()),
            ),
            {"rules": tuple(rules[half]), "shadows": tuple(shadows[half])},
        )
        for half in (0, 1)
    )
    return Partial(sound, mended, holes, _unread(holes))


def _access(made: Policy, holes: Sequence[Path]) -> tuple[Policy, Policy]:
    """Return a policy with its `allow` and `deny` if they are sound, and one with them if not."""
    without = structs.replace(made, allow=None, deny=(), default_access=DefaultAccess.ALLOW)
    if any(hole[0] in _ACCESS for hole in holes):
        return structs.replace(without, allow=_SOME), made
    return made, without


def _by_name(
    given: Mapping[str, T], field: str, faulty: Container[Path]
) -> Steps[tuple[dict[str, T], dict[str, T]]]:
    halves: tuple[dict[str, T], dict[str, T]] = {}, {}
    for name, part in given.items():
        halves[(field, name) in faulty][name] = part
        yield
    return halves


def _by_number(
    given: Sequence[T], field: str, faulty: Container[Path]
) -> Steps[tuple[dict[int, T], dict[int, T]]]:
    halves: tuple[dict[int, T], dict[int, T]] = {}, {}
    for number, part in enumerate(given):
        halves[(field, number) in faulty][number] = part
        yield
    return halves


def _unread(holes: Iterable[Path]) -> Unread:
    """Return the names in holes; all names where what names them is one, or may be misspelled."""
    names: dict[str, set[str]] = {field: set() for field in _NAMED}
    whole: set[str] = set()
    for hole in holes:
        field = str(hole[0])
        if len(hole) == 1:
            whole.update((field,) if field in _FIELDS else get_close_matches(field, _NAMED))
        elif field in names:
            names[field].add(str(hole[1]))
    versions: Container[str] = names["versions"] | names["labels"]
    return Unread(
        _All() if whole & {"versions", "labels"} else versions,
        _All() if "segments" in whole else names["segments"],
    )


def _is_on_way(path: Path, hole: Path) -> bool:
    """Return whether one of both leads to the other."""
    shorter = min(len(path), len(hole))
    return path[:shorter] == hole[:shorter]
