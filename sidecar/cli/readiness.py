"""Which versions the live sidecars find ready, and what a policy may take from that."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sidecar.model.policy import Policy
from sidecar.store.base import Store


class Readiness(msgspec.Struct, frozen=True):
    """What `sidecars` that decide by a model's policy find of its versions.

    `unready` have no healthy endpoint at any of them, `partly` lack one at so many; `untold` are
    versions of the wanted policy that nobody has looked at, as the stored one lacks them, or has
    other endpoints or another health check.
    """

    sidecars: int
    unready: tuple[str, ...] = ()
    partly: dict[str, int] = {}
    untold: tuple[str, ...] = ()

    def in_words(self) -> Iterator[str]:
        """Yield what has to be known of it to judge decisions that go by it."""
        if not self.sidecars:
            yield "every version is taken for ready, as no live sidecar knows the model"
            return
        for version in self.unready:
            yield f"{version} is not ready: it has no healthy endpoint at {_all(self.sidecars)}"
        for version, number in self.partly.items():
            yield (
                f"{version} is taken for ready, although it has no healthy endpoint at {number} of "
                f"{self.sidecars} sidecars"
            )
        if self.untold:
            named = ", ".join(self.untold)
            yield f"new or changed, and so taken for ready although nobody has looked: {named}"


async def readiness(store: Store, stored: Policy, wanted: Policy) -> Readiness:
    """Ask the fleet which versions of a model are ready; raises StoreUnavailableError."""
    model = stored.model
    living = [one for one in await store.fleet(model) if model in one.revisions]
    if not living:
        return Readiness(0)
    untold = tuple(name for name in wanted.versions if not _is_same(name, stored, wanted))
    counts = {
        name: sum(name in one.unready.get(model, ()) for one in living) for name in stored.versions
    }
    return Readiness(
        len(living),
        tuple(name for name, number in counts.items() if number == len(living)),
        {name: number for name, number in counts.items() if 0 < number < len(living)},
        untold,
    )


def _is_same(name: str, stored: Policy, wanted: Policy) -> bool:
    """Return whether what sidecars find of a version holds of the wanted one."""
    old, new = stored.versions.get(name), wanted.versions[name]
    return old is not None and (old.endpoints, old.health) == (new.endpoints, new.health)


def _all(sidecars: int) -> str:
    return "the one live sidecar" if sidecars == 1 else f"any of {sidecars} sidecars"
