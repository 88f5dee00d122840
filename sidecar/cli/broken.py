"""What to know of a model whose stored document is not valid: what serves, and the way out."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.cli.failure import advised
from sidecar.policy.problem import PolicyError
from sidecar.store.base import Instance, Store


class BrokenError(PolicyError):
    """The stored document is not valid; the text ends with what serves."""

    def __init__(self, error: PolicyError, serves: str) -> None:
        super().__init__(error.problems)
        self.args = (f"{self}\nThe stored document is not valid; {serves}.",)


def what_serves(model: str, living: Sequence[Instance]) -> str:
    """Say what the live sidecars decide by in the place of the stored document."""
    having = [one for one in living if model in one.revisions]
    if not living:
        return "sidecars go on with the last good one that they have seen"
    if not having:
        return "no live sidecar has seen a good one, so nothing serves it"
    numbers = ", ".join(map(str, sorted({one.revisions[model] for one in having})))
    lacking = len(living) - len(having)
    some = f" at {len(having)} of {len(living)} sidecars; the others have none" if lacking else ""
    return f"the last good one serves, revision {numbers}{some}"


async def way_out(store: Store, model: str) -> str:
    """Say how to see the document and to get rid of it."""
    look = f"`rmv get {model}` prints it"
    newest = next(iter(await store.history(model, limit=1)), None)
    if newest is None:
        return f"{look}; its history has nothing to go back to: apply a valid one"
    return f"{look}, `rmv rollback {model}` commits revision {newest.revision} anew"


async def explained(store: Store, model: str, error: PolicyError) -> BrokenError:
    """Return the failure with what serves and the way out."""
    serves = what_serves(model, await store.fleet(model))
    return advised(BrokenError(error, serves), f"{await way_out(store, model)}.")
