"""The pins of one model: a mapping that a million tenants make neither slow nor sudden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, TypeVar, overload

_T = TypeVar("_T")

MAX_WHOLE: Final = 4096  # tenants in one dict; to make it larger moves them all
# Prime: a dict places its keys by the low bits of their hashes, so these must not choose the part.
PARTS: Final = 509  # of a large mapping: at a million tenants each is smaller than MAX_WHOLE


class Pins(Mapping[str, str]):
    """Version or label by tenant, changed in place.

    A dict that grows moves all that it holds at once, while requests wait. So from a few thousand
    on this is many dicts, each of which grows by itself.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[dict[str, str]] = [{}]

    @overload
    def get(self, tenant: str, /) -> str | None: ...
    @overload
    def get(self, tenant: str, /, default: str | _T) -> str | _T: ...
    def get(self, tenant: str, /, default: object = None) -> object:
        """Return the version of a tenant, or `default`; a request pays for this."""
        parts = self._parts
        return parts[hash(tenant) % len(parts)].get(tenant, default)

    def put(self, tenant: str, version: str | None) -> None:
        """Hold a tenant to a version, or let it go when that is None."""
        parts = self._parts
        part = parts[hash(tenant) % len(parts)]
        if version is None:
            part.pop(tenant, None)
            return
        part[tenant] = version
        if len(parts) == 1 and len(part) > MAX_WHOLE:
            self._divide(part)

    def portions(self, size: int) -> Iterator[list[str]]:
        """Yield the tenants, at most `size` at a time; pins may change in between.

        A tenant who is there all the while comes once.
        """
        for part in self._parts:
            held = iter(list(part))
            while portion := list(islice(held, size)):
                yield portion

    def __getitem__(self, tenant: str) -> str:
        parts = self._parts
        return parts[hash(tenant) % len(parts)][tenant]

    def __iter__(self) -> Iterator[str]:
        return (tenant for part in self._parts for tenant in part)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def _divide(self, whole: dict[str, str]) -> None:
        parts: list[dict[str, str]] = [{} for _ in range(PARTS)]
        for tenant, version in whole.items():
            parts[hash(tenant) % PARTS][tenant] = version
        self._parts = parts
