"""What changes between two policies, field by field, and whose changes another one would undo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, structs

from sidecar.model.identity import JSON
from sidecar.policy import codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecar.model.policy import Policy

FINGERPRINT_CHARS = 16  # 64 bits: it tells edits apart, and guards nothing

_NAMED = {"rules": "id", "shadows": "version"}
"""Lists whose items are told apart by a field, so that they compare one by one."""

_MAPPINGS = ("versions", "labels", "segments", *_NAMED)
ORDER = "order of rules"


class Change(Struct, frozen=True):
    """One field that differs; None where it is not given."""

    path: tuple[str, ...]
    before: JSON = None
    after: JSON = None

    def spell(self) -> str:
        """Return the path as people read it: `rules[canary].split.arms.v2`."""
        return ".".join(self.path)

    def touches(self, other: Change) -> bool:
        """Return whether both are about one field, or about a field and what it is in."""
        return all(mine == its for mine, its in zip(self.path, other.path, strict=False))


def content(policy: Policy) -> Policy:
    """Return a policy without what commits write into it."""
    return structs.replace(policy, revision=0, actor="", comment="", applied="", signature="")


def fingerprint(policy: Policy) -> str:
    """Return what `applied` of a policy is when files say just this."""
    return codec.digest(content(policy))[:FINGERPRINT_CHARS]


def diff(old: Policy | None, new: Policy | None) -> tuple[Change, ...]:
    """Return what has to change in `old` to make it `new`, in the order of the document."""
    before, after = _fields(old), _fields(new)
    changes = list(_compare(before, after, ()))
    if old is not None and new is not None:
        changes += _reordered([one.id for one in old.rules], [one.id for one in new.rules])
    return tuple(changes)


def undone(base: Policy | None, stored: Policy, wanted: Policy | None) -> tuple[Change, ...]:
    """Return the changes from `base` to `stored` that would be lost by `wanted` in its place.

    Without a base everything in `stored` counts as changed; without `wanted` all is lost.
    """
    made = diff(base, stored)
    if wanted is None:
        return made
    lost = diff(stored, wanted)
    return tuple(one for one in made if any(one.touches(other) for other in lost))


def _fields(policy: Policy | None) -> dict[str, JSON]:
    """Return the fields of a policy; those that have parts are there even if they have none."""
    fields: dict[str, JSON] = {name: {} for name in _MAPPINGS}
    if policy is None:
        return fields
    given: dict[str, JSON] = msgspec.to_builtins(content(policy))
    del given["model"]  # the name of what is compared
    for name, key in _NAMED.items():
        given[name] = _by_name(given.get(name), key)
    return fields | given


def _by_name(items: JSON, key: str) -> JSON:
    listed = items if isinstance(items, (list, tuple)) else ()
    return {str(item[key]): item for item in listed if isinstance(item, dict)}


def _compare(
    before: dict[str, JSON], after: dict[str, JSON], at: tuple[str, ...]
) -> Iterator[Change]:
    is_list = len(at) == 1 and at[0] in _NAMED
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        path = (f"{at[0]}[{name}]",) if is_list else (*at, name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _compare(old, new, path)
        elif _spelled(old) != _spelled(new):
            yield Change(path, old, new)


def _spelled(value: JSON) -> bytes:
    """Spell a value to compare it: in Python `True == 1`, in a document they differ."""
    return msgspec.json.encode(value, order="deterministic")


def _reordered(old: list[str], new: list[str]) -> Iterable[Change]:
    known = frozenset(new)
    kept = [one for one in old if one in known]
    if new[: len(kept)] != kept:
        yield Change((ORDER,), [*old], [*new])
